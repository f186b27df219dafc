/* xoshiro256** 1.0 seeded by splitmix64 (Blackman and Vigna 2018; the authors' public-domain description). */
#include "base/rng.h"

#include <math.h>

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void qz_rng_seed(qz_rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t state = seed;
    state = splitmix(&state) ^ stream;
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&state);
}

static uint64_t rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t qz_rng_u64(qz_rng *r)
{
    uint64_t result = rotate(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotate(r->s[3], 45);
    return result;
}

uint64_t qz_rng_below(qz_rng *r, uint64_t n)
{
    uint64_t reject = -n % n, x; /* 2^64 mod n values would be favoured */
    do x = qz_rng_u64(r);
    while (x < reject);
    return x % n;
}

double qz_rng_double(qz_rng *r)
{
    return (double)(qz_rng_u64(r) >> 11) * 0x1p-53;
}

double qz_rng_normal(qz_rng *r)
{
    double u = 1 - qz_rng_double(r), v = qz_rng_double(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

void qz_rng_permutation(qz_rng *r, size_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)qz_rng_below(r, i), keep = out[i - 1];
        out[i - 1] = out[j];
        out[j] = keep;
    }
}
