/* Inverse frequencies and rotation tables, in fp32 with the operations of transformers (modeling_rope_utils.py):
 *     default  theta^(-2i/D)
 *     linear   the same, over factor (Chen et al. 2023)
 *     llama3   long wavelengths over factor, short ones kept, a linear blend between (Llama 3.1)
 *     yarn     a ramp between the interpolated and the original frequency (Peng et al. 2023, eq. 20 to 24)
 *     long     over a factor of its own for each frequency (LongRoPE, Ding et al. 2024, eq. 2)
 * Frequencies are within an ulp of torch's (its powf differs from ours); angles follow from them exactly. */
#include "models/rope.h"

#include <math.h>

#include "base/parallel.h"

#define PI 3.14159265358979323846

static float power(const qz_rope *rope, int64_t i, int64_t head_dim)
{
    return (float)pow(rope->theta, (double)((float)(2 * i) / (float)head_dim));
}

static float llama3(const qz_rope *rope, float inv_freq)
{
    float factor = (float)rope->factor, low = (float)rope->low_freq_factor, high = (float)rope->high_freq_factor;
    float context = (float)rope->original_context;
    float wavelength = (float)(2 * PI) / inv_freq;
    if (wavelength < context / high) return inv_freq;
    if (wavelength > context / low) return inv_freq / factor;
    float smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * inv_freq / factor + smooth * inv_freq;
}

/* The dimension whose wavelength makes `rotations` turns within the original context (eq. 23 solved for it). */
static double correction(const qz_rope *rope, double rotations, int64_t head_dim)
{
    return (double)head_dim * log(rope->original_context / (rotations * 2 * PI)) / (2 * log(rope->theta));
}

static void yarn(float *inv_freq, const qz_rope *rope, int64_t head_dim)
{
    double low = correction(rope, rope->beta_fast, head_dim), high = correction(rope, rope->beta_slow, head_dim);
    if (rope->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, (double)(head_dim - 1));
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < head_dim / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        float base = power(rope, i, head_dim);
        inv_freq[i] = 1 / ((float)rope->factor * base) * (1 - keep) + 1 / base * keep;
    }
}

void qz_rope_frequencies(float *inv_freq, const qz_rope *rope, int64_t head_dim)
{
    if (rope->kind == QZ_ROPE_YARN) {
        yarn(inv_freq, rope, head_dim);
        return;
    }
    for (int64_t i = 0; i < head_dim / 2; i++) {
        if (rope->kind == QZ_ROPE_LONG) {
            inv_freq[i] = 1 / (rope->factors[i] * power(rope, i, head_dim));
            continue;
        }
        float plain = 1 / power(rope, i, head_dim);
        if (rope->kind == QZ_ROPE_LINEAR) plain /= (float)rope->factor;
        inv_freq[i] = rope->kind == QZ_ROPE_LLAMA3 ? llama3(rope, plain) : plain;
    }
}

void qz_rope_tables(float *cos, float *sin, const qz_rope *rope, const float *inv_freq, int64_t length,
                    int64_t head_dim)
{
    int64_t half = head_dim / 2;
    float scale = (float)rope->attention_factor;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t t = 0; t < length; t++) {
        for (int64_t i = 0; i < half; i++) {
            float angle = (float)t * inv_freq[i];
            cos[t * half + i] = cosf(angle) * scale;
            sin[t * half + i] = sinf(angle) * scale;
        }
    }
}
