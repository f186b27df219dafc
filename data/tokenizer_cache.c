/* Words seen a moment ago and their ids. One slot per hash, the latest word wins; long words are not kept. */
#include <string.h>

#include "data/tokenizer_impl.h"

enum { MAX_WORD = 30, MAX_IDS = 8, MIN_SLOTS = 64, MAX_SLOTS = 1 << 16 };

typedef struct slot {
    uint8_t size, count; /* size 0: empty */
    char word[MAX_WORD];
    int32_t id[MAX_IDS];
} slot;

struct qz_word_cache {
    uint64_t mask;
    slot *slot; /* (mask + 1) */
};

qz_status qz_word_cache_new(qz_word_cache **out, size_t text_size)
{
    size_t slots = MIN_SLOTS;
    while (slots < MAX_SLOTS && slots < text_size / 16) slots *= 2;
    qz_word_cache *c = *out = qz_calloc(1, sizeof *c);
    if (!c || !(c->slot = qz_calloc(slots, sizeof *c->slot)))
        return QZ_FAIL(QZ_MEMORY, "out of memory: a cache of %zu words", slots);
    c->mask = slots - 1;
    return QZ_OK;
}

void qz_word_cache_free(qz_word_cache *c)
{
    if (c) qz_free(c->slot);
    qz_free(c);
}

static slot *slot_of(const qz_encoder *e, const char *text, size_t size)
{
    return &e->cache->slot[qz_hash64(text, size) & e->cache->mask];
}

qz_status qz_word_cache_get(qz_encoder *e, const char *text, size_t size, bool *found)
{
    *found = false;
    if (size > MAX_WORD) return QZ_OK;
    const slot *s = slot_of(e, text, size);
    *found = s->size == size && !memcmp(s->word, text, size);
    for (int i = 0; *found && i < s->count; i++) QZ_TRY(qz_encoder_put(e, s->id[i]));
    return QZ_OK;
}

void qz_word_cache_put(qz_encoder *e, const char *text, size_t size, size_t first_id)
{
    size_t count = e->count - first_id;
    if (size > MAX_WORD || count > MAX_IDS) return;
    slot *s = slot_of(e, text, size);
    s->size = (uint8_t)size;
    s->count = (uint8_t)count;
    memcpy(s->word, text, size);
    if (count) memcpy(s->id, e->ids + first_id, count * sizeof *s->id);
}
