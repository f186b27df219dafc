/* The merging of words against the definition: as long as there is a pair with a rank, merge the leftmost pair of the
 * lowest rank. Vocabularies and words are random, short and long; a cut or cached word must change nothing. */
#include "base/rng.h"
#include "testing/small_tokenizer.h"

enum { LETTERS = 4, TOKENS = 60, ROUNDS = 150, LONGEST = 400 };

typedef struct model {
    char token[TOKENS][64];
    int count;
    struct {
        int left, right, whole;
    } merge[TOKENS];
    int merges;
} model;

static int find(const model *m, const char *text)
{
    for (int i = 0; i < m->count; i++)
        if (!strcmp(m->token[i], text)) return i;
    return -1;
}

static bool crosses_mark(const char *left, const char *right)
{
    size_t n = strlen(left);
    return !strncmp(right, "\xe2\x96\x81", 3) && (n < 3 || strcmp(left + n - 3, "\xe2\x96\x81") != 0);
}

static void random_model(model *m, qz_rng *r, bool may_cross)
{
    static const char *const letters[LETTERS] = {"a", "b", "\xe2\x96\x81", "\xc3\xa9"};
    m->count = m->merges = 0;
    for (int i = 0; i < LETTERS; i++) strcpy(m->token[m->count++], letters[i]);
    for (int tries = 0; tries < 300 && m->count < TOKENS; tries++) {
        char text[128];
        int a = (int)qz_rng_below(r, (uint64_t)m->count), b = (int)qz_rng_below(r, (uint64_t)m->count), duplicate = 0;
        sprintf(text, "%s%s", m->token[a], m->token[b]);
        if (strlen(text) > 24 || (!may_cross && crosses_mark(m->token[a], m->token[b]))) continue;
        for (int i = 0; i < m->merges; i++) duplicate |= m->merge[i].left == a && m->merge[i].right == b;
        if (duplicate || m->merges == TOKENS) continue;
        int whole = find(m, text);
        if (whole < 0) strcpy(m->token[whole = m->count++], text);
        m->merge[m->merges].left = a;
        m->merge[m->merges].right = b;
        m->merge[m->merges++].whole = whole;
    }
}

static qz_tokenizer *open_model(const model *m, bool with_unknown)
{
    char vocab[8192] = "", merges[16384] = "";
    for (int i = 0; i < m->count; i++) sprintf(vocab + strlen(vocab), "%s\"%s\": %d", i ? ", " : "", m->token[i], i);
    for (int i = 0; i < m->merges; i++)
        sprintf(merges + strlen(merges), "%s[\"%s\", \"%s\"]", i ? ", " : "", m->token[m->merge[i].left],
                m->token[m->merge[i].right]);
    if (!with_unknown) return small_open(small_json(vocab, merges, "", ""));
    sprintf(vocab + strlen(vocab), ", \"?\": %d", m->count);
    return small_open(small_json(vocab, merges, ", \"unk_token\": \"?\"", ""));
}

static int rank_of(const model *m, int left, int right)
{
    for (int i = 0; i < m->merges; i++)
        if (m->merge[i].left == left && m->merge[i].right == right) return i;
    return TOKENS;
}

static int merge_all(const model *m, int *id, int count)
{
    for (;;) {
        int best = TOKENS, at = 0;
        for (int i = 0; i + 1 < count; i++)
            if (rank_of(m, id[i], id[i + 1]) < best) best = rank_of(m, id[i], id[i + 1]), at = i;
        if (best == TOKENS) return count;
        id[at] = m->merge[best].whole;
        memmove(id + at + 1, id + at + 2, (size_t)(--count - at - 1) * sizeof *id);
    }
}

Test(data_tokenizer_bpe, equals_the_definition)
{
    qz_rng r;
    qz_rng_seed(&r, 5, 0);
    int cuts = 0;
    for (int round = 0; round < ROUNDS; round++) {
        model m;
        random_model(&m, &r, round % 2);
        qz_tokenizer *t = open_model(&m, round % 4 < 2);
        cuts += t->model.cut_at_mark;
        for (int w = 0; w < 10; w++) {
            char text[4 * LONGEST] = "";
            int id[LONGEST], count = (int)qz_rng_below(&r, w < 7 ? 40 : LONGEST);
            for (int i = 0; i < count; i++) strcat(text, m.token[id[i] = (int)qz_rng_below(&r, LETTERS)]);
            count = merge_all(&m, id, count);
            qz_arena *arena;
            qz_ids ids;
            check_ok(qz_arena_new(&arena, "test"));
            check_ok(qz_tokenizer_encode(t, text, strlen(text), false, &ids, arena));
            cr_assert_eq((int)ids.count, count, "round %d, \"%s\": %zu ids, expected %d", round, text, ids.count,
                         count);
            for (int i = 0; i < count; i++) cr_assert_eq(ids.id[i], id[i], "round %d, \"%s\": id %d", round, text, i);
            qz_arena_free(arena);
        }
        qz_tokenizer_close(t);
    }
    cr_expect(cuts > 0 && cuts < ROUNDS, "models with and without cuts must both occur: %d of %d", cuts, ROUNDS);
}

/* A character that leaves nothing behind lets the marks around it meet. */
Test(data_tokenizer_bpe, dropped_characters)
{
    qz_tokenizer *t = small_open(small_json("\"_\": 0, \"\xe2\x96\x81\": 1, \"\xe2\x96\x81\xe2\x96\x81\": 2",
                                            "[\"\xe2\x96\x81\", \"\xe2\x96\x81\"]", "", ""));
    check_tokens(t, "\xe2\x96\x81z\xe2\x96\x81", "\xe2\x96\x81\xe2\x96\x81");
    qz_tokenizer_close(t);
}
