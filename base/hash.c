/* The door to xxHash: XXH3 in its 64- and 128-bit forms. */
#include "base/hash.h"

#include <stdint.h>
#include <stdio.h>
#define XXH_INLINE_ALL /* gives the size of the state, which then lies in our own memory, and inlines short keys */
#include <xxhash.h>

#include "base/arena.h"
#include "base/file.h"

enum { ALIGNMENT = 64 }; /* of an XXH3_state_t */

struct qz_hasher {
    XXH3_state_t *state; /* inside `room` */
    unsigned char room[sizeof(XXH3_state_t) + ALIGNMENT];
};

uint64_t qz_hash64(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

static void print(char out[QZ_HASH_TEXT], XXH128_hash_t h)
{
    snprintf(out, QZ_HASH_TEXT, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void qz_hash_bytes(char out[QZ_HASH_TEXT], const void *data, size_t size)
{
    print(out, XXH3_128bits(data, size));
}

qz_status qz_hash_file(char out[QZ_HASH_TEXT], const char *path)
{
    qz_map map;
    QZ_TRY(qz_map_open(&map, path));
    qz_hash_bytes(out, map.data, map.size);
    qz_map_close(&map);
    return QZ_OK;
}

qz_status qz_hasher_new(qz_hasher **out)
{
    qz_hasher *h = qz_malloc(sizeof *h);
    *out = h;
    if (!h) return QZ_FAIL(QZ_MEMORY, "out of memory: a hash state");
    h->state = (XXH3_state_t *)(void *)(h->room + (-(uintptr_t)h->room & (ALIGNMENT - 1)));
    XXH3_INITSTATE(h->state);
    XXH3_128bits_reset(h->state);
    return QZ_OK;
}

void qz_hasher_add(qz_hasher *h, const void *data, size_t size)
{
    XXH3_128bits_update(h->state, data, size);
}

void qz_hasher_finish(qz_hasher *h, char out[QZ_HASH_TEXT])
{
    print(out, XXH3_128bits_digest(h->state));
    qz_free(h);
}
