/* Open addressing with linear probing over XXH3 hashes; the table doubles at 3/4 full. */
#include "base/map.h"

#include <string.h>

#include "base/arena.h"
#include "base/hash.h"

typedef struct slot {
    const char *key; /* NULL: free */
    size_t length;
    uint64_t hash;
    int64_t value;
} slot;

struct qz_strmap {
    slot *slots;
    size_t capacity, count; /* capacity is a power of two */
};

qz_status qz_strmap_new(qz_strmap **out, size_t expected)
{
    size_t capacity = 16;
    while (capacity / 4 * 3 < expected) capacity *= 2;
    qz_strmap *m = qz_calloc(1, sizeof *m);
    slot *slots = qz_calloc(capacity, sizeof *slots);
    *out = NULL;
    if (!m || !slots) {
        qz_free(m);
        qz_free(slots);
        return QZ_FAIL(QZ_MEMORY, "out of memory: a map of %zu names", expected);
    }
    *m = (qz_strmap){slots, capacity, 0};
    *out = m;
    return QZ_OK;
}

void qz_strmap_free(qz_strmap *m)
{
    if (!m) return;
    qz_free(m->slots);
    qz_free(m);
}

/* The slot that holds the key, or the free one where it belongs. */
static slot *find(slot *slots, size_t capacity, const char *key, size_t length, uint64_t hash)
{
    size_t i = (size_t)hash & (capacity - 1);
    while (slots[i].key &&
           (slots[i].hash != hash || slots[i].length != length || memcmp(slots[i].key, key, length) != 0))
        i = (i + 1) & (capacity - 1);
    return &slots[i];
}

static qz_status grow(qz_strmap *m)
{
    slot *slots = qz_calloc(m->capacity * 2, sizeof *slots);
    if (!slots) return QZ_FAIL(QZ_MEMORY, "out of memory: a map of %zu names", m->count);
    for (size_t i = 0; i < m->capacity; i++)
        if (m->slots[i].key)
            *find(slots, m->capacity * 2, m->slots[i].key, m->slots[i].length, m->slots[i].hash) = m->slots[i];
    qz_free(m->slots);
    m->slots = slots;
    m->capacity *= 2;
    return QZ_OK;
}

qz_status qz_strmap_add(qz_strmap *m, const char *key, size_t length, int64_t value, bool *was_there)
{
    if (m->count + 1 > m->capacity / 4 * 3) QZ_TRY(grow(m));
    uint64_t hash = qz_hash64(key, length);
    slot *s = find(m->slots, m->capacity, key, length, hash);
    bool there = s->key != NULL;
    if (was_there) *was_there = there;
    if (there) return QZ_OK;
    *s = (slot){key, length, hash, value};
    m->count++;
    return QZ_OK;
}

int64_t qz_strmap_get(const qz_strmap *m, const char *key, size_t length)
{
    const slot *s = find(m->slots, m->capacity, key, length, qz_hash64(key, length));
    return s->key ? s->value : -1;
}

size_t qz_strmap_count(const qz_strmap *m)
{
    return m->count;
}
