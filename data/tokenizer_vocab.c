/* The "model" of tokenizer.json (type BPE) -> tables: token -> id, id -> token, and pair of ids -> merge.
 *
 * Merges are either "a b" or ["a", "b"]; their place in the list is their rank. Everything a merge names must be in the
 * vocabulary, and ids must be unique, so the tables cannot hold an id that is not a token. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer_impl.h"

static uint64_t slot_of(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u;
    return key ^ key >> 29;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

bool qz_merges_find(const qz_merges *m, int32_t left, int32_t right, uint32_t *rank, int32_t *id)
{
    uint64_t key = pair_key(left, right);
    for (uint64_t i = slot_of(key) & m->mask;; i = (i + 1) & m->mask) {
        if (m->key[i] == UINT64_MAX) return false;
        if (m->key[i] != key) continue;
        *rank = (uint32_t)(m->value[i] >> 32);
        *id = (int32_t)(uint32_t)m->value[i];
        return true;
    }
}

/* A pair written twice takes the later rank, as in the library. */
static void put_merge(qz_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t key = pair_key(left, right), i = slot_of(key) & m->mask;
    while (m->key[i] != UINT64_MAX && m->key[i] != key) i = (i + 1) & m->mask;
    m->key[i] = key;
    m->value[i] = (uint64_t)rank << 32 | (uint32_t)id;
}

static qz_status new_merges(qz_merges *m, size_t count)
{
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    m->key = qz_malloc(slots * sizeof *m->key);
    m->value = qz_malloc(slots * sizeof *m->value);
    if (!m->key || !m->value) return QZ_FAIL(QZ_MEMORY, "out of memory: %zu merges of a tokenizer", count);
    memset(m->key, 0xff, slots * sizeof *m->key);
    m->mask = slots - 1;
    return QZ_OK;
}

qz_status qz_tokenizer_put(qz_tokenizer *t, int32_t id, const char *text, size_t size, bool special)
{
    if (id >= t->token_room) {
        int64_t more = id + 1 > t->token_room * 2 ? id + 1 : t->token_room * 2;
        qz_token *token = qz_realloc(t->token, (size_t)more * sizeof *token);
        if (!token) return QZ_FAIL(QZ_MEMORY, "out of memory: a tokenizer of %d ids", (int)id + 1);
        memset(token + t->token_room, 0, (size_t)(more - t->token_room) * sizeof *token);
        t->token = token;
        t->token_room = more;
    }
    if (id >= t->size) t->size = id + 1;
    t->token[id] = (qz_token){.text = text, .size = (uint32_t)size, .special = special};
    return QZ_OK;
}

/* All token texts in one piece of memory, because the arena aligns each piece. */
static qz_status copy_keys(char **out, const qz_json_node *vocab, qz_arena *arena)
{
    size_t total = 1;
    for (const qz_json_node *v = qz_json_first(vocab); v; v = qz_json_next(v)) total += strlen(qz_json_key(v)) + 1;
    *out = qz_arena_alloc(arena, total);
    return *out ? QZ_OK : qz_arena_failed(arena);
}

static qz_status read_id(int32_t *out, const qz_tokenizer *t, const qz_json_node *v)
{
    char name[QZ_WHERE_SIZE];
    int64_t id;
    snprintf(name, sizeof name, "model.vocab[\"%.200s\"]", qz_json_key(v));
    QZ_TRY(qz_json_int(v, name, 0, QZ_TOKENIZER_MAX_ID - 1, &id));
    if (id < t->size && t->token[id].text)
        return QZ_FAIL(QZ_FORMAT, "%s: id %d is also the id of \"%.100s\"; ids must be unique", name, (int)id,
                       t->token[id].text);
    *out = (int32_t)id;
    return QZ_OK;
}

static qz_status read_vocab(qz_tokenizer *t, const qz_json_node *model)
{
    const qz_json_node *vocab = qz_json_get(model, "vocab");
    if (!qz_json_is(vocab, QZ_JSON_OBJECT) || qz_json_count(vocab) == 0)
        return QZ_FAIL(QZ_FORMAT, "model.vocab: found %s, expected an object with a member for each token",
                       vocab ? qz_json_count(vocab) ? qz_json_type_name(qz_json_type_of(vocab)) : "nothing in it"
                             : "nothing");
    char *text;
    QZ_TRY(copy_keys(&text, vocab, t->arena));
    QZ_TRY(qz_strmap_new(&t->model.vocab, qz_json_count(vocab)));
    for (const qz_json_node *v = qz_json_first(vocab); v; v = qz_json_next(v)) {
        int32_t id = 0;
        size_t n = strlen(qz_json_key(v));
        memcpy(text, qz_json_key(v), n + 1);
        QZ_TRY(read_id(&id, t, v));
        QZ_TRY(qz_strmap_add(t->model.vocab, text, n, id, NULL));
        QZ_TRY(qz_tokenizer_put(t, id, text, n, false));
        text += n + 1;
    }
    t->model.vocab_count = (int64_t)qz_strmap_count(t->model.vocab);
    return QZ_OK;
}

typedef struct halves {
    const char *left, *right;
    size_t left_size, right_size;
} halves;

static qz_status merge_halves(halves *h, const qz_json_node *merge, size_t rank)
{
    if (qz_json_is(merge, QZ_JSON_STRING)) {
        const char *text = qz_json_text(merge), *space = strchr(text, ' ');
        if (space && !strchr(space + 1, ' ')) {
            *h = (halves){text, space + 1, (size_t)(space - text), strlen(space + 1)};
            return QZ_OK;
        }
    }
    const qz_json_node *a = qz_json_count(merge) == 2 ? qz_json_first(merge) : NULL, *b = a ? qz_json_next(a) : NULL;
    if (qz_json_is(merge, QZ_JSON_ARRAY) && qz_json_is(a, QZ_JSON_STRING) && qz_json_is(b, QZ_JSON_STRING)) {
        *h = (halves){qz_json_text(a), qz_json_text(b), strlen(qz_json_text(a)), strlen(qz_json_text(b))};
        return QZ_OK;
    }
    char shown[80];
    qz_json_print(merge, shown, sizeof shown);
    return QZ_FAIL(QZ_FORMAT, "model.merges[%zu]: found %s, expected \"a b\" or [\"a\", \"b\"]", rank, shown);
}

static qz_status known(int32_t *id, const qz_tokenizer *t, const char *text, size_t size, size_t rank)
{
    *id = (int32_t)qz_strmap_get(t->model.vocab, text, size);
    if (*id >= 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "model.merges[%zu]: \"%.*s\" is not in the vocabulary", rank,
                   (int)(size < 80 ? size : 80), text);
}

static const char mark[] = "\xe2\x96\x81"; /* U+2581, which stands for a space */

static bool crosses_mark(const halves *h)
{
    bool begins = h->right_size >= 3 && !memcmp(h->right, mark, 3);
    bool ends = h->left_size >= 3 && !memcmp(h->left + h->left_size - 3, mark, 3);
    return begins && !ends;
}

static qz_status read_merge(qz_tokenizer *t, const qz_json_node *merge, size_t rank, qz_text *joined)
{
    halves h = {0};
    int32_t left = -1, right = -1, whole = -1;
    QZ_TRY(merge_halves(&h, merge, rank));
    QZ_TRY(known(&left, t, h.left, h.left_size, rank));
    QZ_TRY(known(&right, t, h.right, h.right_size, rank));
    joined->size = 0;
    QZ_TRY(qz_text_add(joined, h.left, h.left_size));
    QZ_TRY(qz_text_add(joined, h.right, h.right_size));
    QZ_TRY(known(&whole, t, joined->data, joined->size, rank));
    if (crosses_mark(&h)) t->model.cut_at_mark = false;
    put_merge(&t->model.merges, left, right, (uint32_t)rank, whole);
    return QZ_OK;
}

/* Every character must leave a symbol that does not end in the mark, or marks far apart in the text would meet.
 * Without the mark itself as a token it would become other symbols, about which nothing is known. */
static bool may_cut(const qz_tokenizer *t)
{
    const qz_model_bpe *m = &t->model;
    bool leaves_symbol = m->byte_fallback;
    for (int b = 0; b < 256; b++) leaves_symbol &= m->byte_id[b] >= 0;
    if (m->unk >= 0) {
        const qz_token *unk = &t->token[m->unk];
        leaves_symbol = unk->size < 3 || memcmp(unk->text + unk->size - 3, mark, 3) != 0;
    }
    return leaves_symbol && qz_strmap_get(m->vocab, mark, 3) >= 0;
}

static qz_status read_merges(qz_tokenizer *t, const qz_json_node *model)
{
    const qz_json_node *merges = qz_json_get(model, "merges");
    if (!qz_json_is(merges, QZ_JSON_ARRAY))
        return QZ_FAIL(QZ_FORMAT, "model.merges: found %s, expected an array",
                       merges ? qz_json_type_name(qz_json_type_of(merges)) : "nothing");
    QZ_TRY(new_merges(&t->model.merges, qz_json_count(merges)));
    t->model.cut_at_mark = may_cut(t);
    qz_text joined = {0};
    qz_status status = QZ_OK;
    size_t rank = 0;
    for (const qz_json_node *m = qz_json_first(merges); m && status == QZ_OK; m = qz_json_next(m))
        status = read_merge(t, m, rank++, &joined);
    qz_text_free(&joined);
    return status;
}

static void find_short_tokens(qz_model_bpe *m)
{
    char text[8];
    for (uint32_t c = 0; c < 0x180; c++) m->char_id[c] = (int32_t)qz_strmap_get(m->vocab, text, qz_utf8_put(text, c));
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        m->byte_id[b] = (int32_t)qz_strmap_get(m->vocab, text, 6);
    }
}

/* Parts of words are not marked in the tokenizers that we read. */
static qz_status must_be_empty(const qz_json_node *model, const char *key)
{
    const char *text;
    QZ_TRY(qz_part_string(&text, model, "model", key, ""));
    if (!*text) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "model.%s: found \"%s\"; only null or \"\" is known", key, text);
}

static qz_status read_options(qz_tokenizer *t, const qz_json_node *model)
{
    qz_model_bpe *m = &t->model;
    const qz_json_node *dropout = qz_json_get(model, "dropout");
    if (qz_json_type_of(dropout) != QZ_JSON_NULL &&
        !(qz_json_is(dropout, QZ_JSON_NUMBER) && qz_json_double(dropout) == 0))
        return QZ_FAIL(QZ_UNSUPPORTED, "model.dropout: only null is known, because ids must be reproducible");
    QZ_TRY(must_be_empty(model, "continuing_subword_prefix"));
    QZ_TRY(must_be_empty(model, "end_of_word_suffix"));
    QZ_TRY(qz_part_bool(&m->fuse_unk, model, "model", "fuse_unk", false));
    QZ_TRY(qz_part_bool(&m->byte_fallback, model, "model", "byte_fallback", false));
    return qz_part_bool(&m->ignore_merges, model, "model", "ignore_merges", false);
}

static qz_status read_unk(qz_tokenizer *t, const qz_json_node *model)
{
    const char *unk;
    t->model.unk = -1;
    QZ_TRY(qz_part_string(&unk, model, "model", "unk_token", ""));
    if (!*unk) return QZ_OK;
    t->model.unk = (int32_t)qz_strmap_get(t->model.vocab, unk, strlen(unk));
    if (t->model.unk >= 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "model.unk_token: \"%.100s\" is not in the vocabulary", unk);
}

qz_status qz_model_read(qz_tokenizer *t, const qz_json_node *model)
{
    const char *type;
    if (!model) return QZ_FAIL(QZ_FORMAT, "model: found nothing, expected an object with a type");
    QZ_TRY(qz_part_type(&type, model, "model"));
    if (strcmp(type, "BPE") != 0) return qz_part_unknown("model", type, "BPE");
    QZ_TRY(qz_part_known(model, "model",
                         "type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk byte_fallback "
                         "ignore_merges vocab merges"));
    QZ_TRY(read_options(t, model));
    QZ_TRY(read_vocab(t, model));
    QZ_TRY(read_unk(t, model));
    find_short_tokens(&t->model);
    return read_merges(t, model);
}

void qz_model_free(qz_model_bpe *m)
{
    qz_strmap_free(m->vocab);
    qz_free(m->merges.key);
    qz_free(m->merges.value);
}
