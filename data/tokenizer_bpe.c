/* A word -> ids by byte-pair encoding (Sennrich et al. 2016): its characters are symbols, and of all neighbouring
 * pairs the one of lowest rank, leftmost first, is merged until none is left.
 *
 * Short words scan their pairs, long ones keep them in a heap (n log n). Results equal the library's Word::merge_all,
 * also in how unknown characters become byte tokens or the unknown token. */
#include <string.h>

#include "data/tokenizer_impl.h"

enum { SHORT_WORD = 32, GONE = -1 };

typedef struct symbol {
    int32_t id;          /* GONE: merged into the one before */
    uint32_t prev, next; /* UINT32_MAX: none */
} symbol;

typedef struct candidate {
    uint32_t rank, at;
    int32_t id; /* of the merged token */
} candidate;

static const uint32_t NONE = UINT32_MAX;

static qz_status reserve(void **data, size_t *room, size_t count, size_t size)
{
    if (count <= *room) return QZ_OK;
    size_t more = count < 256 ? 256 : count;
    void *grown = qz_realloc(*data, qz_array_bytes(more, size));
    if (!grown) return QZ_FAIL(QZ_MEMORY, "out of memory: encoding a word of %zu characters", count);
    *data = grown;
    *room = more;
    return QZ_OK;
}

/* ---- characters to symbols ---- */

typedef struct spelling {
    const qz_model_bpe *m;
    symbol *out;
    size_t count;
    bool unk_waits; /* a run of unknown characters is one token when fuse_unk */
} spelling;

static void put(spelling *s, int32_t id)
{
    s->out[s->count++].id = id;
}

static void end_unknown(spelling *s)
{
    if (s->unk_waits) put(s, s->m->unk);
    s->unk_waits = false;
}

/* Byte tokens do not end a run of unknown characters: so does the library. */
static bool put_bytes(spelling *s, const char *text, size_t n)
{
    if (!s->m->byte_fallback) return false;
    for (size_t i = 0; i < n; i++)
        if (s->m->byte_id[(uint8_t)text[i]] < 0) return false;
    for (size_t i = 0; i < n; i++) put(s, s->m->byte_id[(uint8_t)text[i]]);
    return true;
}

static void put_unknown(spelling *s)
{
    if (s->m->unk < 0) return;
    if (!s->m->fuse_unk) end_unknown(s);
    s->unk_waits = true;
}

static size_t spell(const qz_model_bpe *m, symbol *out, const char *text, size_t size)
{
    spelling s = {m, out, 0, false};
    size_t n;
    for (size_t i = 0; i < size; i += n) {
        uint32_t c = qz_utf8_get(text + i, &n);
        int32_t id = c < 0x180 ? m->char_id[c] : (int32_t)qz_strmap_get(m->vocab, text + i, n);
        if (id >= 0) {
            end_unknown(&s);
            put(&s, id);
        } else if (!put_bytes(&s, text + i, n)) {
            put_unknown(&s);
        }
    }
    end_unknown(&s);
    return s.count;
}

/* ---- short words ---- */

static candidate pair_at(const qz_merges *m, const symbol *s, uint32_t at)
{
    candidate c = {NONE, at, GONE};
    qz_merges_find(m, s[at].id, s[at + 1].id, &c.rank, &c.id);
    return c;
}

static size_t merge_by_scan(const qz_merges *m, symbol *s, size_t count)
{
    candidate pair[SHORT_WORD];
    for (uint32_t i = 0; i + 1 < count; i++) pair[i] = pair_at(m, s, i);
    while (count > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < count; i++)
            if (pair[i].rank < pair[best].rank) best = i;
        if (pair[best].rank == NONE) break;
        s[best].id = pair[best].id;
        count--;
        memmove(s + best + 1, s + best + 2, (count - best - 1) * sizeof *s);
        if (best + 1 < count) memmove(pair + best, pair + best + 1, (count - best - 1) * sizeof *pair);
        if (best + 1 < count) pair[best] = pair_at(m, s, best);
        if (best > 0) pair[best - 1] = pair_at(m, s, best - 1);
    }
    return count;
}

/* ---- long words ---- */

typedef struct heap {
    candidate *at;
    size_t count;
} heap;

static bool before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(heap *h, candidate c)
{
    size_t i = h->count++;
    for (; i > 0 && before(&c, &h->at[(i - 1) / 2]); i = (i - 1) / 2) h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = c;
}

static candidate pop(heap *h)
{
    candidate top = h->at[0], last = h->at[--h->count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->count; i = child) {
        if (child + 1 < h->count && before(&h->at[child + 1], &h->at[child])) child++;
        if (!before(&h->at[child], &last)) break;
        h->at[i] = h->at[child];
    }
    h->at[i] = last;
    return top;
}

static void push_pair(heap *h, const qz_merges *m, const symbol *s, uint32_t left, uint32_t right)
{
    candidate c = {.at = left};
    if (left != NONE && right != NONE && qz_merges_find(m, s[left].id, s[right].id, &c.rank, &c.id)) push(h, c);
}

/* An entry whose symbols have changed since is out of date; it is so exactly when the pair now makes another token. */
static bool is_current(const candidate *c, const qz_merges *m, const symbol *s)
{
    uint32_t rank;
    int32_t id;
    if (s[c->at].id == GONE || s[c->at].next == NONE) return false;
    return qz_merges_find(m, s[c->at].id, s[s[c->at].next].id, &rank, &id) && id == c->id;
}

static size_t compact(symbol *s, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (s[i].id != GONE) s[kept++].id = s[i].id;
    return kept;
}

/* Each merge takes one symbol away and adds at most two entries, so 3 * count entries are enough. */
static size_t merge_by_heap(const qz_merges *m, symbol *s, size_t count, candidate *entries)
{
    heap h = {entries, 0};
    for (uint32_t i = 0; i < count; i++) {
        s[i].prev = i ? i - 1 : NONE;
        s[i].next = i + 1 < count ? i + 1 : NONE;
    }
    for (uint32_t i = 0; i + 1 < count; i++) push_pair(&h, m, s, i, i + 1);
    while (h.count > 0) {
        candidate c = pop(&h);
        if (!is_current(&c, m, s)) continue;
        symbol *left = &s[c.at], *right = &s[left->next];
        left->id = c.id;
        left->next = right->next;
        right->id = GONE;
        if (left->next != NONE) s[left->next].prev = c.at;
        push_pair(&h, m, s, left->prev, c.at);
        push_pair(&h, m, s, c.at, left->next);
    }
    return compact(s, count);
}

/* ---- words ---- */

/* Most bytes of a word give one symbol each, and none gives more. */
static qz_status merge_word(qz_encoder *e, const char *text, size_t size)
{
    const qz_model_bpe *m = &e->t->model;
    if (size > UINT32_MAX / 4) return QZ_FAIL(QZ_UNSUPPORTED, "tokenizer: a word of %zu bytes is too long", size);
    QZ_TRY(reserve(&e->symbols, &e->symbols_room, size + 1, sizeof(symbol)));
    symbol *s = e->symbols;
    size_t count = spell(m, s, text, size);
    if (count <= SHORT_WORD) {
        count = merge_by_scan(&m->merges, s, count);
    } else {
        QZ_TRY(reserve(&e->heap, &e->heap_room, 3 * count, sizeof(candidate)));
        count = merge_by_heap(&m->merges, s, count, e->heap);
    }
    for (size_t i = 0; i < count; i++) QZ_TRY(qz_encoder_put(e, s[i].id));
    return QZ_OK;
}

/* The word itself as a token, where the model prefers that. */
static qz_status encode_whole(qz_encoder *e, const char *text, size_t size, bool *done)
{
    int64_t id = e->t->model.ignore_merges ? qz_strmap_get(e->t->model.vocab, text, size) : -1;
    *done = id >= 0;
    return *done ? qz_encoder_put(e, (int32_t)id) : QZ_OK;
}

static qz_status visible_word(qz_text *out, const char *text, size_t size)
{
    out->size = 0;
    for (size_t i = 0; i < size; i++) QZ_TRY(qz_text_add_char(out, qz_byte_to_char((uint8_t)text[i])));
    return QZ_OK;
}

static qz_status encode_part(qz_encoder *e, const char *text, size_t size, bool whole)
{
    size_t before_it = e->count;
    bool done = false;
    QZ_TRY(qz_word_cache_get(e, text, size, &done));
    if (done) return qz_encoder_hand_on(e);
    const char *spelled = text;
    size_t spelled_size = size;
    if (e->t->splits.bytes) {
        QZ_TRY(visible_word(&e->word, text, size));
        spelled = e->word.data;
        spelled_size = e->word.size;
    }
    if (whole) QZ_TRY(encode_whole(e, spelled, spelled_size, &done));
    if (!done) QZ_TRY(merge_word(e, spelled, spelled_size));
    qz_word_cache_put(e, text, size, before_it);
    return qz_encoder_hand_on(e);
}

/* The end of the part of a word that begins at `from`: no merge joins what stands before a mark with it. */
static size_t part_end(const char *text, size_t size, size_t from)
{
    static const char mark[] = "\xe2\x96\x81";
    for (size_t i = from + 1; i + 3 <= size; i++) {
        const char *p = memchr(text + i, mark[0], size - i - 2);
        if (!p) break;
        i = (size_t)(p - text);
        bool here = !memcmp(p, mark, 3), behind = i >= from + 3 && !memcmp(p - 3, mark, 3);
        if (here && !behind) return i;
    }
    return size;
}

qz_status qz_encoder_word(qz_encoder *e, const char *text, size_t size)
{
    const qz_model_bpe *m = &e->t->model;
    if (!m->cut_at_mark || e->t->splits.bytes || m->ignore_merges) return encode_part(e, text, size, true);
    for (size_t i = 0, end; i < size && !e->full; i = end) {
        end = part_end(text, size, i);
        QZ_TRY(encode_part(e, text + i, end - i, false));
    }
    return QZ_OK;
}
