/* Reproducible random numbers: xoshiro256** (Blackman and Vigna 2018) seeded by splitmix64, the same on every machine.
 */
#ifndef QZ_BASE_RNG_H
#define QZ_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct qz_rng {
    uint64_t s[4];
} qz_rng;

/* `stream` keeps uses of one seed apart (a layer, a purpose). */
void qz_rng_seed(qz_rng *r, uint64_t seed, uint64_t stream);
uint64_t qz_rng_u64(qz_rng *r);
uint64_t qz_rng_below(qz_rng *r, uint64_t n); /* uniform in [0, n), without bias; n >= 1 */
double qz_rng_double(qz_rng *r);              /* [0, 1) with 53 bits */
double qz_rng_normal(qz_rng *r);              /* Box and Muller 1958, one of the pair */
/* A random order of 0..n-1 (Fisher and Yates, Durstenfeld's form). */
void qz_rng_permutation(qz_rng *r, size_t *out, size_t n);

#endif
