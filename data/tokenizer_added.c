/* Added tokens: they are found in the text before anything else and never go through the model.
 *
 * Matching is leftmost-longest (tokenizers' AddedVocabulary::find_matches): a token is looked up by its first byte,
 * longest first. Ids are those of the vocabulary or follow it, in file order; the file's own numbers are only compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/tokenizer_impl.h"

static bool boundary_before(const char *text, size_t at)
{
    size_t unused;
    return at == 0 || !qz_char_is_word(qz_utf8_get(text + at - qz_utf8_last(text, text + at), &unused));
}

static bool boundary_after(const char *text, size_t size, size_t at)
{
    size_t unused;
    return at == size || !qz_char_is_word(qz_utf8_get(text + at, &unused));
}

static const qz_added *match_at(const qz_added_scan *s, size_t at, size_t *end)
{
    uint8_t byte = (uint8_t)s->text[at];
    for (uint32_t i = s->set->first[byte]; i < s->set->first[byte + 1]; i++) {
        size_t n = s->set->pattern_size[i];
        if (n > s->size - at || memcmp(s->text + at, s->set->pattern[i], n) != 0) continue;
        *end = at + n;
        return s->set->token[i];
    }
    return NULL;
}

static const qz_added *find(qz_added_scan *s, size_t *start, size_t *end)
{
    while (s->search < s->size) {
        size_t at = s->search;
        const qz_added *token = match_at(s, at, end);
        s->search = token ? *end : at + 1;
        if (!token) continue;
        if (token->single_word && !(boundary_before(s->text, at) && boundary_after(s->text, s->size, *end))) continue;
        *start = at;
        return token;
    }
    return NULL;
}

static size_t spaces_before(const char *text, size_t at)
{
    size_t unused;
    while (at > 0) {
        size_t n = qz_utf8_last(text, text + at);
        if (!qz_char_is_space(qz_utf8_get(text + at - n, &unused))) break;
        at -= n;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t size, size_t at)
{
    size_t n;
    while (at < size && qz_char_is_space(qz_utf8_get(text + at, &n))) at += n;
    return at;
}

bool qz_added_next(qz_added_scan *s, qz_added_piece *out)
{
    if (s->holds) {
        *out = s->held;
        s->holds = false;
        return true;
    }
    size_t start = 0, end = 0, done = s->done;
    const qz_added *token = s->set->count ? find(s, &start, &end) : NULL;
    if (!token) {
        s->done = s->size;
        *out = (qz_added_piece){done, s->size, NULL};
        return done < s->size;
    }
    if (token->lstrip) start = spaces_before(s->text, start);
    if (start < done) start = done;
    if (token->rstrip) end = spaces_after(s->text, s->size, end);
    s->done = end > done ? end : done;
    s->held = (qz_added_piece){start, end, token};
    s->holds = done < start;
    *out = s->holds ? (qz_added_piece){done, start, NULL} : s->held;
    return true;
}

/* ---- reading ---- */

typedef struct entry {
    const qz_added *token;
    const char *pattern;
    size_t size;
} entry;

static int by_byte_and_length(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int byte = (uint8_t)*x->pattern - (uint8_t)*y->pattern;
    if (byte) return byte;
    if (x->size != y->size) return x->size > y->size ? -1 : 1;
    int order = memcmp(x->pattern, y->pattern, x->size);
    return order ? order : x->token->id - y->token->id;
}

static qz_status build_set(qz_added_set *set, entry *list, size_t count, qz_arena *arena)
{
    set->token = qz_arena_array(arena, const qz_added *, count);
    set->pattern = qz_arena_array(arena, const char *, count);
    set->pattern_size = qz_arena_array(arena, size_t, count);
    if (!set->token || !set->pattern || !set->pattern_size) return qz_arena_failed(arena);
    if (count) qsort(list, count, sizeof *list, by_byte_and_length);
    set->count = count;
    for (size_t i = 0; i < count; i++) {
        set->token[i] = list[i].token;
        set->pattern[i] = list[i].pattern;
        set->pattern_size[i] = list[i].size;
        set->first[(uint8_t)*list[i].pattern + 1]++;
    }
    for (int b = 0; b < 256; b++) set->first[b + 1] += set->first[b];
    return QZ_OK;
}

/* What the text shows after normalization where the token was written. */
static qz_status normalized_form(entry *e, qz_tokenizer *t, qz_matcher *m)
{
    qz_text a = {0}, b = {0};
    bool first = true;
    qz_status status = qz_text_add(&a, e->token->content, e->token->size);
    if (status == QZ_OK) status = qz_normals_apply(&t->normals, &a, &b, &first, m);
    char *copy = status == QZ_OK ? qz_arena_alloc(t->arena, a.size + 1) : NULL;
    if (status == QZ_OK && !copy) status = qz_arena_failed(t->arena);
    if (status == QZ_OK) {
        if (a.size) memcpy(copy, a.data, a.size);
        copy[a.size] = '\0';
        e->pattern = copy;
        e->size = a.size;
    }
    qz_text_free(&a);
    qz_text_free(&b);
    return status;
}

/* Decoding gives back the normalized form, and that is skipped only when it is itself a special token's text. */
static qz_status put_normalized(qz_tokenizer *t, const entry *e, const qz_strmap *seen)
{
    const qz_added *a = e->token;
    if (e->size == a->size && !memcmp(e->pattern, a->content, a->size)) return QZ_OK;
    int64_t same = qz_strmap_get(seen, e->pattern, e->size);
    return qz_tokenizer_put(t, a->id, e->pattern, e->size, same >= 0 && t->added[same].special);
}

static qz_status build_sets(qz_tokenizer *t, const qz_strmap *seen, qz_matcher *m)
{
    entry *raw = qz_arena_array(t->arena, entry, t->added_count);
    entry *normalized = qz_arena_array(t->arena, entry, t->added_count);
    if (!raw || !normalized) return qz_arena_failed(t->arena);
    size_t raw_count = 0, normalized_count = 0;
    for (size_t i = 0; i < t->added_count; i++) {
        const qz_added *a = &t->added[i];
        entry e = {a, a->content, a->size};
        if (a->normalized) {
            QZ_TRY(normalized_form(&e, t, m));
            QZ_TRY(put_normalized(t, &e, seen));
        }
        if (e.size == 0) continue;
        if (a->normalized)
            normalized[normalized_count++] = e;
        else
            raw[raw_count++] = e;
    }
    QZ_TRY(build_set(&t->raw, raw, raw_count, t->arena));
    return build_set(&t->normalized, normalized, normalized_count, t->arena);
}

static qz_status read_token(qz_added *a, const qz_json_node *node, const char *where, qz_arena *arena)
{
    const char *content;
    int64_t written;
    QZ_TRY(qz_part_known(node, where, "id content single_word lstrip rstrip normalized special"));
    QZ_TRY(qz_part_int(&written, node, where, "id", 0, QZ_TOKENIZER_MAX_ID - 1));
    QZ_TRY(qz_part_string(&content, node, where, "content", NULL));
    QZ_TRY(qz_part_bool(&a->single_word, node, where, "single_word", false));
    QZ_TRY(qz_part_bool(&a->lstrip, node, where, "lstrip", false));
    QZ_TRY(qz_part_bool(&a->rstrip, node, where, "rstrip", false));
    QZ_TRY(qz_part_bool(&a->special, node, where, "special", false));
    QZ_TRY(qz_part_bool(&a->normalized, node, where, "normalized", !a->special));
    a->content = qz_arena_strdup(arena, content);
    a->size = strlen(content);
    a->id = (int32_t)written;
    return a->content ? QZ_OK : qz_arena_failed(arena);
}

/* The id is the vocabulary's, or the next one behind both the vocabulary and the tokens added before. */
static int32_t choose_id(const qz_tokenizer *t, const qz_added *a, int32_t *next)
{
    int64_t id = qz_strmap_get(t->model.vocab, a->content, a->size);
    if (id < 0) id = (*next)++;
    if (id != a->id)
        qz_warn("tokenizer: added token \"%s\" has id %d in the file and %d by its place; the latter counts",
                a->content, (int)a->id, (int)id);
    return (int32_t)id;
}

/* `seen`: content -> index. A token written twice keeps its id, and the later flags count. */
static qz_status add_token(qz_tokenizer *t, qz_added *a, int32_t *next, qz_strmap *seen)
{
    int64_t before = qz_strmap_get(seen, a->content, a->size);
    if (before >= 0) {
        a->id = t->added[before].id;
        a->special |= t->added[before].special;
        t->added[before] = *a;
    } else {
        a->id = choose_id(t, a, next);
        QZ_TRY(qz_strmap_add(seen, a->content, a->size, (int64_t)t->added_count, NULL));
        t->added[t->added_count++] = *a;
    }
    return qz_tokenizer_put(t, a->id, a->content, a->size, a->special);
}

static qz_status read_list(qz_tokenizer *t, const qz_json_node *list, qz_strmap *seen)
{
    int32_t next = (int32_t)t->model.vocab_count;
    int i = 0;
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++) {
        char where[32];
        snprintf(where, sizeof where, "added_tokens[%d]", i);
        qz_added a = {0};
        QZ_TRY(read_token(&a, c, where, t->arena));
        if (a.size == 0) continue;
        QZ_TRY(add_token(t, &a, &next, seen));
    }
    return QZ_OK;
}

qz_status qz_added_read(qz_tokenizer *t, const qz_json_node *list)
{
    if (!qz_json_is(list, QZ_JSON_ARRAY) && qz_json_type_of(list) != QZ_JSON_NULL)
        return QZ_FAIL(QZ_FORMAT, "added_tokens: found %s, expected an array",
                       qz_json_type_name(qz_json_type_of(list)));
    size_t count = qz_json_count(list);
    t->added = qz_arena_array(t->arena, qz_added, count);
    if (!t->added) return qz_arena_failed(t->arena);
    qz_strmap *seen;
    QZ_TRY(qz_strmap_new(&seen, count));
    qz_matcher *m = NULL;
    qz_status status = read_list(t, list, seen);
    if (status == QZ_OK) status = qz_matcher_new(&m);
    if (status == QZ_OK) status = build_sets(t, seen, m);
    qz_matcher_free(m);
    qz_strmap_free(seen);
    return status;
}
