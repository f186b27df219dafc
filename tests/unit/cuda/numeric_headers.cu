// numeric/*.h are CUDA C++ too: every function of theirs is instantiated in a kernel. Compiled, not run:
//     nvcc -std=c++17 -c --fmad=false --prec-div=true --ftz=false -I. tests/unit/cuda/numeric_headers.cu -o /dev/null
#include "numeric/actgrid.h"
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/minifloat.h"
#include "numeric/pack.h"
#include "numeric/scale.h"

__global__ void minifloats(float *y, const float *x, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float sum = qz_bf16_decode(qz_bf16_encode(x[i])) + qz_f16_decode(qz_f16_encode(x[i]));
    sum += qz_e4m3_decode(qz_e4m3_encode(x[i])) + qz_e4m3_decode(qz_e4m3_encode_ieee(x[i]));
    sum += qz_e5m2_decode(qz_e5m2_encode(x[i])) + qz_e5m2_decode(qz_e5m2_encode_ieee(x[i]));
    y[i] = sum;
}

__global__ void grids(float *y, const float *w, int groups, int width, int bits, int symmetric)
{
    const int g = blockIdx.x * blockDim.x + threadIdx.x;
    if (g >= groups) return;
    float lo, hi;
    qz_range_of(&lo, &hi, w + (int64_t)g * width, width);
    const qz_grid grid = qz_grid_of(lo, hi, bits, symmetric, QZ_F16, QZ_ROUND_VALUE);
    const float scale = qz_float_scale(hi > -lo ? hi : -lo, QZ_FORMAT_FP8_E4M3, QZ_F32);
    for (int i = 0; i < width; i++) {
        const float x = w[(int64_t)g * width + i];
        const uint8_t code = qz_float_encode(x, scale, QZ_FORMAT_FP8_E4M3);
        y[(int64_t)g * width + i] = qz_grid_decode(qz_grid_encode(x, grid, QZ_ROUND_VALUE), grid) +
                                    qz_float_decode(code, scale, QZ_FORMAT_FP8_E4M3);
    }
}

__global__ void activations(float *y, const float *x, int rows, int width, qz_act_scheme scheme)
{
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= rows) return;
    float lo, hi;
    qz_range_of(&lo, &hi, x + (int64_t)t * width, width);
    const qz_act_values v = qz_act_values_of(lo, hi, scheme);
    for (int i = 0; i < width; i++) y[(int64_t)t * width + i] = qz_act_round(x[(int64_t)t * width + i], v, scheme.format);
}

__global__ void words(uint32_t *out, const uint8_t *codes, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    uint8_t back[32];
    uint32_t block[8];
    if (i >= n) return;
    qz_pack_block(block, codes + 32 * i, 3);
    qz_unpack_block(back, block, 3);
    qz_unpack_awq(back, qz_pack_awq(codes + 8 * i));
    qz_unpack_low_first(back, qz_pack_low_first(back, 4), 4);
    out[i] = qz_pack_awq(back);
}

__global__ void codebooks(float *y, uint8_t *codes, const float *w, int n, float second, float offset)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    codes[i] = qz_codebook_encode(w[i], qz_codebook_scale(1.0f, QZ_F32), QZ_FORMAT_NF4);
    y[i] = qz_codebook_decode(codes[i], 1.0f, QZ_FORMAT_FP4) +
           qz_dynamic_unsigned_decode(qz_dynamic_unsigned_encode(w[i])) +
           qz_double_decode(qz_dynamic_encode(w[i]), second, offset) +
           qz_grid_narrow_scale(qz_grid_narrow(-1.0f, w[i], 8, QZ_F32).scale, 8);
}
