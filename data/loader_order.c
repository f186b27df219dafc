/* A random order of 0 .. count-1 of which any place can be asked at once: a Feistel network (Luby and Rackoff 1988)
 * permutes the numbers of 2 h bits, where 4^h is the first power not below count; a number that lands outside is sent
 * through again until it lands inside ("cycle walking", Black and Rogaway 2002, section 4). Fewer than four times count
 * numbers are permuted, so fewer than four steps are to be expected. */
#include "base/rng.h"
#include "data/loader_impl.h"

static const uint64_t ORDER_STREAM = 0x65706f6368; /* keeps this use of the seed apart from others */

/* splitmix64's last step (Steele, Lea and Flood 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void qz_order_make(qz_order *out, int64_t count, uint64_t seed, int64_t epoch)
{
    qz_rng rng;
    *out = (qz_order){.count = count, .half = 1};
    while (out->half < 31 && (int64_t)1 << 2 * out->half < count) out->half++;
    qz_rng_seed(&rng, seed, mix(ORDER_STREAM + (uint64_t)epoch));
    for (int i = 0; i < QZ_ORDER_ROUNDS; i++) out->key[i] = qz_rng_u64(&rng);
}

static uint64_t permute(const qz_order *o, uint64_t x)
{
    const uint64_t mask = ((uint64_t)1 << o->half) - 1;
    uint64_t left = x >> o->half, right = x & mask;
    for (int i = 0; i < QZ_ORDER_ROUNDS; i++) {
        uint64_t next = left ^ (mix(right + o->key[i]) & mask);
        left = right;
        right = next;
    }
    return left << o->half | right;
}

int64_t qz_order_at(const qz_order *o, int64_t i)
{
    uint64_t x = (uint64_t)i;
    do x = permute(o, x);
    while (x >= (uint64_t)o->count);
    return (int64_t)x;
}
