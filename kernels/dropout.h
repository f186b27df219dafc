/* Which elements dropout keeps: a function of seed and place, without a state that threads would share. SplitMix64's
 * output function (Steele, Lea and Flood 2014, section 3, with the constants of its "variant 13") of seed + place
 * steps; the seed goes through it too, so that neighbouring seeds do not give one sequence shifted. Nothing outside
 * kernels/ includes this. */
#ifndef QZ_KERNELS_DROPOUT_H
#define QZ_KERNELS_DROPOUT_H

#include <stdint.h>

static inline uint64_t qz_dropout_mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* What the seed becomes before places are counted from it. */
static inline uint64_t qz_dropout_start(uint64_t seed)
{
    return qz_dropout_mix(seed + 0x9e3779b97f4a7c15u);
}

/* The 24 upper bits against the share to drop in units of 2^-24. */
static inline int qz_dropout_keeps(uint64_t start, uint64_t place, int32_t limit)
{
    return (int32_t)(qz_dropout_mix(start + (place + 1) * 0x9e3779b97f4a7c15u) >> 40) >= limit;
}

static inline int32_t qz_dropout_limit(float p)
{
    return (int32_t)(p * 16777216.0f + 0.5f);
}

#endif
