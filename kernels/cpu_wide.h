/* Loops that are compiled for several instruction sets, and an exponential that such loops can use.
 *
 * Contraction is off and every operation is a correctly rounded IEEE one in an order that the source fixes, so all
 * variants of a QZ_WIDE function give the same bits. Sums are written with lanes for that reason.
 *
 * exp(x) = 2^n exp(r), n = rint(x log2 e), |r| <= ln 2 / 2 (Cody and Waite 1980: ln 2 in two parts, the first so short
 * that n times it is exact), and Moshier's polynomial (Cephes, expf) for exp(r). Error at most 1.1 ulp; overflow gives
 * infinity, underflow is gradual, NaN stays. tanh is Moshier's too (Cephes, tanhf): a polynomial below 0.625, beyond it
 * 1 - 2 / (exp(2 |x|) + 1); error at most 1.5 ulp.
 *
 * exp in double, for x <= 0: the same reduction and the Taylor polynomial of degree 13, whose remainder is below 1e-17;
 * 0 below -700, error at most 1.5 ulp above. */
#ifndef QZ_KERNELS_CPU_WIDE_H
#define QZ_KERNELS_CPU_WIDE_H

#include <stdint.h>
#include <string.h>

/* This is the only file of the backend that looks at which compiler it is. Resolvers of clones run before a sanitizer
 * is ready, so there the plain variant is used. */
#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QZ_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#else
#define QZ_WIDE
#endif

/* In front of a loop that may work in place: element i of the output depends on element i of the inputs alone. */
#if defined(__clang__)
#define QZ_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define QZ_ELEMENTWISE _Pragma("GCC ivdep")
#endif

/* In front of a short inner loop over constants, which vanishes. */
#if defined(__clang__)
#define QZ_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QZ_UNROLL _Pragma("GCC unroll 16")
#endif

static inline float qz_float_from_bits(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline uint32_t qz_bits_from_float(float x)
{
    uint32_t out;
    memcpy(&out, &x, sizeof out);
    return out;
}

/* condition ? a : b without a branch, which compilers do not turn into lanes while comparisons may trap. */
static inline float qz_select(int condition, float a, float b)
{
    const uint32_t mask = 0u - (uint32_t)condition;
    return qz_float_from_bits((qz_bits_from_float(a) & mask) | (qz_bits_from_float(b) & ~mask));
}

static inline float qz_fast_exp(float x)
{
    const float whole = 12582912; /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
    x = qz_select(x < -104.0f, -104.0f, x);
    x = qz_select(x > 89.0f, 89.0f, x);
    const float shifted = x * 1.44269504f + whole, n = shifted - whole;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    /* 2^n in two factors, both of them normal numbers */
    const int32_t e = (int32_t)(qz_bits_from_float(shifted) - qz_bits_from_float(whole)), half = e >> 1;
    return p * qz_float_from_bits((uint32_t)(half + 127) << 23) * qz_float_from_bits((uint32_t)(e - half + 127) << 23);
}

static inline double qz_select_double(int condition, double a, double b)
{
    const uint64_t mask = 0u - (uint64_t)condition;
    uint64_t x, y;
    double out;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = (x & mask) | (y & ~mask);
    memcpy(&out, &x, sizeof out);
    return out;
}

/* NaN stays. */
static inline double qz_fast_exp_double(double x)
{
    const double whole = 6755399441055744.0; /* 1.5 * 2^52, as above */
    const double least = -700, inside = qz_select_double(x < least, least, x);
    const double shifted = inside * 1.4426950408889634 + whole, n = shifted - whole;
    /* ln 2 in two parts, the first with 32 bits: Cody and Waite, as in fdlibm's e_exp.c */
    const double r = (inside - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1;
    uint64_t shifted_bits, whole_bits, power;
    double scale;
    memcpy(&shifted_bits, &shifted, sizeof shifted_bits);
    memcpy(&whole_bits, &whole, sizeof whole_bits);
    power = (shifted_bits - whole_bits + 1023) << 52;
    memcpy(&scale, &power, sizeof scale);
    return qz_select_double(x < least, 0, p * scale);
}

static inline float qz_fast_tanh(float x)
{
    const float size = qz_float_from_bits(qz_bits_from_float(x) & 0x7fffffffu), s = x * x;
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    p = p * s * x + x;
    const float far = 1 - 2 / (qz_fast_exp(2 * size) + 1);
    const uint32_t sign = qz_bits_from_float(x) & 0x80000000u;
    return qz_select(size < 0.625f, p, qz_float_from_bits(qz_bits_from_float(far) | sign));
}

#endif
