/* Elementwise conversion between stored floating types, through fp32.
 *
 * The narrowing loops are the bodies of minifloat.h, compiled for several instruction sets (the same operations, so the
 * same bits; tests/unit/numeric_convert.c proves it against the scalar functions). From F64 the step to fp32 rounds to
 * odd (Boldo and Melquiond 2008), so that the second rounding gives what one rounding would. */
#include <inttypes.h>
#include <string.h>

#include "numeric/minifloat.h"
#include "numeric/tensor.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&               \
    !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

typedef void (*convert_fn)(void *restrict out, const void *restrict in, int64_t count);

#define CONVERT(name, to_type, from_type, expression)                                                                  \
    WIDE static void name(void *restrict out, const void *restrict in, int64_t count)                                  \
    {                                                                                                                  \
        to_type *restrict y = (to_type *)out;                                                                          \
        const from_type *restrict x = (const from_type *)in;                                                           \
        for (int64_t i = 0; i < count; i++) y[i] = (to_type)(expression);                                              \
    }

/* The fp32 next to x towards zero, made odd when x is not an fp32. */
static float odd_float(double x)
{
    const float f = (float)x;
    const double back = (double)f;
    uint32_t u = qz_float_bits(f);
    if (back == x || x != x) return f;
    if ((back < 0 ? -back : back) > (x < 0 ? -x : x)) u--;
    return qz_bits_float(u | 1u);
}

CONVERT(widen_f64, double, float, x[i])
CONVERT(widen_bf16, float, uint16_t, qz_bf16_decode(x[i]))
CONVERT(widen_f16, float, uint16_t, qz_f16_decode(x[i]))
CONVERT(widen_e4m3, float, uint8_t, qz_e4m3_decode(x[i]))
CONVERT(widen_e5m2, float, uint8_t, qz_e5m2_decode(x[i]))
CONVERT(round_f64, float, double, x[i])
CONVERT(narrow_bf16, uint16_t, float, qz_bf16_encode(x[i]))
CONVERT(narrow_f16, uint16_t, float, qz_f16_encode(x[i]))
CONVERT(narrow_e4m3, uint8_t, float, qz_e4m3_encode(x[i]))
CONVERT(narrow_e5m2, uint8_t, float, qz_e5m2_encode(x[i]))

static void copy_f32(void *restrict out, const void *restrict in, int64_t count)
{
    if (count) memcpy(out, in, (size_t)count * sizeof(float));
}

static void round_odd(void *restrict out, const void *restrict in, int64_t count)
{
    float *restrict y = (float *)out;
    const double *restrict x = (const double *)in;
    for (int64_t i = 0; i < count; i++) y[i] = odd_float(x[i]);
}

typedef struct converter {
    convert_fn to_f32, from_f32;
} converter;

static converter converter_of(qz_dtype t)
{
    switch (t) {
    case QZ_F64:
        return (converter){round_odd, widen_f64};
    case QZ_F32:
        return (converter){copy_f32, copy_f32};
    case QZ_F16:
        return (converter){widen_f16, narrow_f16};
    case QZ_BF16:
        return (converter){widen_bf16, narrow_bf16};
    case QZ_F8_E4M3:
        return (converter){widen_e4m3, narrow_e4m3};
    case QZ_F8_E5M2:
        return (converter){widen_e5m2, narrow_e5m2};
    default:
        return (converter){NULL, NULL};
    }
}

/* Through a block of fp32 that stays in the first-level cache. */
static void convert_both(void *out, convert_fn narrow, size_t out_size, const void *in, convert_fn widen,
                         size_t in_size, int64_t count)
{
    float block[2048];
    const int64_t capacity = (int64_t)(sizeof block / sizeof block[0]);
    for (int64_t first = 0; first < count; first += capacity) {
        const int64_t n = count - first < capacity ? count - first : capacity;
        widen(block, (const char *)in + (size_t)first * in_size, n);
        narrow((char *)out + (size_t)first * out_size, block, n);
    }
}

qz_status qz_convert(void *out, qz_dtype to, const void *in, qz_dtype from, int64_t count)
{
    const converter a = converter_of(from), b = converter_of(to);
    const size_t in_size = (size_t)qz_dtype_bits(from) / 8, out_size = (size_t)qz_dtype_bits(to) / 8;
    if (!a.to_f32 || !b.from_f32)
        return QZ_FAIL(QZ_UNSUPPORTED, "no conversion from %s to %s; F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 convert",
                       qz_dtype_name(from), qz_dtype_name(to));
    if (to == from) {
        if (count) memcpy(out, in, (size_t)count * in_size);
    } else if (from == QZ_F32) {
        b.from_f32(out, in, count);
    } else if (to == QZ_F32) {
        (from == QZ_F64 ? round_f64 : a.to_f32)(out, in, count);
    } else {
        convert_both(out, b.from_f32, out_size, in, a.to_f32, in_size, count);
    }
    return QZ_OK;
}
