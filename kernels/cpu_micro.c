/* See cpu_micro.h. Each sum is one chain over the steps in their order, so nothing depends on where a tile begins. */
#include "kernels/cpu_micro.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)
_Static_assert(QZ_MICRO_ROWS == 14 && QZ_MICRO_COLS == 32, "EACH_ROW and the registers of a row");

#define SINGLE __attribute__((target("avx512f")))
#define PAIRS __attribute__((target("avx512f,avx512bf16")))

/* What will be written is fetched meanwhile. */
#define ZERO(i)                                                                                                        \
    __m512 left##i = _mm512_setzero_ps(), right##i = _mm512_setzero_ps();                                              \
    __builtin_prefetch(c.data + i * c.stride, 1);                                                                      \
    __builtin_prefetch(c.data + i * c.stride + 16, 1);
#define STORE(i)                                                                                                       \
    _mm512_storeu_ps(c.data + i * c.stride, left##i);                                                                  \
    _mm512_storeu_ps(c.data + i * c.stride + 16, right##i);
#define ADD(i)                                                                                                         \
    {                                                                                                                  \
        float *row = c.data + i * c.stride;                                                                            \
        _mm512_storeu_ps(row, _mm512_add_ps(_mm512_loadu_ps(row), left##i));                                           \
        _mm512_storeu_ps(row + 16, _mm512_add_ps(_mm512_loadu_ps(row + 16), right##i));                                \
    }

#define STEP_SINGLE(i)                                                                                                 \
    {                                                                                                                  \
        const __m512 x = _mm512_castsi512_ps(_mm512_set1_epi32((int)a[i * ROW]));                                      \
        left##i = _mm512_fmadd_ps(x, _mm512_castsi512_ps(b0), left##i);                                                \
        right##i = _mm512_fmadd_ps(x, _mm512_castsi512_ps(b1), right##i);                                              \
    }
#define STEP_PAIRS(i)                                                                                                  \
    {                                                                                                                  \
        const __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[i * ROW]);                                               \
        left##i = _mm512_dpbf16_ps(left##i, x, (__m512bh)b0);                                                          \
        right##i = _mm512_dpbf16_ps(right##i, x, (__m512bh)b1);                                                        \
    }

#define SUM(STEP, ADVANCE)                                                                                             \
    EACH_ROW(ZERO)                                                                                                     \
    for (int64_t p = 0; p < steps; p++, a += ADVANCE, b += QZ_MICRO_COLS) {                                            \
        const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);                                     \
        EACH_ROW(STEP)                                                                                                 \
    }                                                                                                                  \
    if (add) {                                                                                                         \
        EACH_ROW(ADD)                                                                                                  \
    } else {                                                                                                           \
        EACH_ROW(STORE)                                                                                                \
    }

#define ROW QZ_MICRO_ALONG
SINGLE static void single_along(qz_tile c, bool add, const uint32_t *a, const uint32_t *b,
                                int64_t steps){SUM(STEP_SINGLE, 1)}

PAIRS static void pairs_along(qz_tile c, bool add, const uint32_t *a, const uint32_t *b,
                              int64_t steps){SUM(STEP_PAIRS, 1)}
#undef ROW

#define ROW 1
SINGLE static void single_across(qz_tile c, bool add, const uint32_t *a, const uint32_t *b,
                                 int64_t steps){SUM(STEP_SINGLE, QZ_MICRO_ACROSS)}

PAIRS static void pairs_across(qz_tile c, bool add, const uint32_t *a, const uint32_t *b, int64_t steps)
{
    SUM(STEP_PAIRS, QZ_MICRO_ACROSS)
}
#undef ROW

void qz_micro_single(qz_tile c, bool add, const uint32_t *a, bool across, const uint32_t *b, int64_t steps)
{
    (across ? single_across : single_along)(c, add, a, b, steps);
}

void qz_micro_pairs(qz_tile c, bool add, const uint32_t *a, bool across, const uint32_t *b, int64_t steps)
{
    (across ? pairs_across : pairs_along)(c, add, a, b, steps);
}

bool qz_micro_has_single(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f");
}

bool qz_micro_has_pairs(void)
{
    return qz_micro_has_single() && __builtin_cpu_supports("avx512bf16");
}

bool qz_micro_likes_pairs(void)
{
    return qz_micro_has_pairs() && __builtin_cpu_is("amd");
}

#else

void qz_micro_single(qz_tile c, bool add, const uint32_t *a, bool across, const uint32_t *b, int64_t steps)
{
    (void)c, (void)add, (void)a, (void)across, (void)b, (void)steps;
}

void qz_micro_pairs(qz_tile c, bool add, const uint32_t *a, bool across, const uint32_t *b, int64_t steps)
{
    (void)c, (void)add, (void)a, (void)across, (void)b, (void)steps;
}

bool qz_micro_has_single(void)
{
    return false;
}

bool qz_micro_has_pairs(void)
{
    return false;
}

bool qz_micro_likes_pairs(void)
{
    return false;
}

#endif
