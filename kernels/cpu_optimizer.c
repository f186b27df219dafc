/* AdamW over pieces of the parameters, and the sum of squares. The operations on one element are those of `ref`
 * (adamw.h, numeric/codebook.h), so the bits are too; a code is found by the exponent and first bits of the magnitude
 * and two comparisons with midpoints. */
#include <assert.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/adamw.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/codebook.h"

QZ_WIDE static void step_row(float *restrict p, float *restrict m, float *restrict v, const float *restrict g,
                             const qz_adamw_step *step, int64_t count)
{
    const qz_adamw_step s = *step;
    for (int64_t i = 0; i < count; i++) p[i] = qz_adamw_element(p[i], m + i, v + i, g[i], &s);
}

qz_status qz_cpu_adamw(const qz_tensor *p, const qz_tensor *m, const qz_tensor *v, const qz_tensor *g,
                       const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    const int64_t count = qz_tensor_count(p);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < count; i += QZ_PIECE)
        step_row(qz_f32(p) + i, qz_f32(m) + i, qz_f32(v) + i, qz_f32(g) + i, &step, qz_min(QZ_PIECE, count - i));
    return QZ_OK;
}

/* ---- moments of 8 bits ---- */

/* A magnitude's bits without the lower 17 are its octave and one of 64 parts of it; KEYS of them from 2^-24, which is
 * below every midpoint, to 1. */
enum { BLOCK = QZ_MOMENT_BLOCK, CODES = 256, SHIFT = 17, LEAST_KEY = (127 - 24) << 6, KEYS = (24 << 6) + 1, STEPS = 2 };

/* A map by magnitude: the midpoint above the value r places from 0 as bits, and how many midpoints lie below a key. */
typedef struct map {
    float value[CODES];
    int32_t above[CODES + STEPS];
    uint8_t start[KEYS];
    int32_t zero; /* the code of 0 */
} map;

static void fill_values(map *out, float (*decode)(int code))
{
    for (int i = 0; i < CODES; i++) out->value[i] = decode(i);
    for (out->zero = 0; out->value[out->zero] != 0;) out->zero++;
    for (int r = 0; r < CODES + STEPS; r++) {
        const int code = out->zero + r;
        out->above[r] = code + 1 < CODES ? (int32_t)qz_bits_from_float((out->value[code] + out->value[code + 1]) / 2.0f)
                                         : INT32_MAX;
    }
}

static void fill_keys(map *out)
{
    for (int key = 0, r = 0; key < KEYS; key++) {
        while (key > 0 && out->above[r] < (LEAST_KEY + key) << SHIFT) r++;
        out->start[key] = (uint8_t)r;
        /* what a key leaves open is decided by so many comparisons */
        assert(key == KEYS - 1 || out->above[r + STEPS] >= (LEAST_KEY + key + 1) << SHIFT);
    }
}

static float signed_value(int code)
{
    return qz_dynamic_decode(code);
}

static float unsigned_value(int code)
{
    return qz_dynamic_unsigned_decode(code);
}

static void decode_row(float *restrict out, const uint8_t *restrict code, const float *restrict value, float absmax,
                       int64_t count)
{
    for (int64_t i = 0; i < count; i++) out[i] = value[code[i]] * absmax;
}

/* The magnitudes of x / absmax as bits, and their keys. A tie goes down: below 0 that is away from 0, as if the
 * magnitude were a bit more. */
QZ_WIDE static void measure_row(int32_t *restrict size, int32_t *restrict key, const float *restrict x, float absmax,
                                int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = qz_bits_from_float(x[i] / absmax);
        const int32_t now = (int32_t)((bits & 0x7fffffffu) + (bits >> 31)), k = (now >> SHIFT) - LEAST_KEY;
        size[i] = now;
        key[i] = k < 0 ? 0 : k > KEYS - 1 ? KEYS - 1 : k;
    }
}

/* How many midpoints lie below. */
static void rank_row(int32_t *restrict rank, const int32_t *restrict size, const int32_t *restrict key,
                     const map *restrict to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int32_t r = to->start[key[i]];
        r += size[i] > to->above[r];
        r += size[i] > to->above[r];
        rank[i] = r;
    }
}

QZ_WIDE static void code_row(uint8_t *restrict code, const int32_t *restrict rank, const float *restrict x,
                             int32_t zero, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const int32_t negative = -(int32_t)(qz_bits_from_float(x[i]) >> 31);
        const int32_t r = rank[i] > zero ? (rank[i] & ~negative) + (zero & negative) : rank[i];
        code[i] = (uint8_t)(zero + ((r ^ negative) - negative));
    }
}

/* The codes nearest to x / absmax, |x| <= absmax. */
static void encode_row(uint8_t *code, const float *x, const map *to, float absmax, int64_t count)
{
    int32_t size[BLOCK], key[BLOCK], rank[BLOCK];
    measure_row(size, key, x, absmax, count);
    rank_row(rank, size, key, to, count);
    code_row(code, rank, x, to->zero, count);
}

/* As integers, whose order is that of the magnitudes; a NaN is above all. */
QZ_WIDE static float largest(const float *x, int64_t count)
{
    uint32_t max = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = qz_bits_from_float(x[i]) & 0x7fffffffu;
        max = bits > max ? bits : max;
    }
    return qz_float_from_bits(max);
}

static float store_moment(uint8_t *code, const float *x, const map *to, int64_t count)
{
    const float absmax = largest(x, count);
    if (absmax > 0)
        encode_row(code, x, to, absmax, count);
    else
        memset(code, to->zero, (size_t)count);
    return absmax;
}

qz_status qz_cpu_adamw_8bit(const qz_tensor *p, const qz_tensor *m, const qz_tensor *m_absmax, const qz_tensor *v,
                            const qz_tensor *v_absmax, const qz_tensor *g, const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    const int64_t count = m->shape[0], each = QZ_PIECE / BLOCK, blocks = qz_ceil_div(count, BLOCK);
    map of_m, of_v;
    fill_values(&of_m, signed_value);
    fill_values(&of_v, unsigned_value);
    of_v.above[0] = 0; /* what is above 0 stays so: qz_adamw_second_code */
    fill_keys(&of_m);
    fill_keys(&of_v);
    QZ_PARALLEL_FOR for (int64_t first = 0; first < blocks; first += each)
    {
        for (int64_t b = first; b < qz_min(first + each, blocks); b++) {
            const int64_t i = b * BLOCK, n = qz_min(BLOCK, count - i);
            uint8_t *m_code = (uint8_t *)m->data + i, *v_code = (uint8_t *)v->data + i;
            float m_now[BLOCK], v_now[BLOCK];
            decode_row(m_now, m_code, of_m.value, qz_f32(m_absmax)[b], n);
            decode_row(v_now, v_code, of_v.value, qz_f32(v_absmax)[b], n);
            step_row(qz_f32(p) + i, m_now, v_now, qz_f32(g) + i, &step, n);
            qz_f32(m_absmax)[b] = store_moment(m_code, m_now, &of_m, n);
            qz_f32(v_absmax)[b] = store_moment(v_code, v_now, &of_v, n);
        }
    }
    return QZ_OK;
}

/* ---- sum of squares: of pieces in parallel, those of a round added in order ---- */

enum { ROUND = 1024 };

static double piece_squares(const qz_tensor *x, int64_t stride, qz_piece p)
{
    double sum = 0;
    for (int64_t r = p.row; r < p.row + p.rows; r++) sum += qz_reduce_squares(qz_f32(x) + r * stride + p.col, p.cols);
    return sum;
}

qz_status qz_cpu_square_sum(double *sum, const qz_tensor *x)
{
    const qz_rows rows = qz_rows_of(x);
    const qz_pieces pieces = qz_pieces_of(rows.rows, rows.cols);
    double part[ROUND];
    *sum = 0;
    for (int64_t first = 0; first < pieces.count; first += ROUND) {
        const int64_t count = qz_min(ROUND, pieces.count - first);
        QZ_PARALLEL_FOR for (int64_t i = 0; i < count; i++) part[i] =
            piece_squares(x, rows.stride, qz_piece_at(&pieces, first + i));
        for (int64_t i = 0; i < count; i++) *sum += part[i];
    }
    return QZ_OK;
}
