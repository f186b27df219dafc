/* The end of a model: losses and the gradients of hidden states and head, against central differences in double; the
 * tiles that the tokens are cut into; what is left out when nobody wants a gradient. */
#include <math.h>

#include "autograd/tape.h"
#include "base/rng.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

enum { TOKENS = 7, WIDTH = 5, WORDS = 11 };

typedef struct fixture {
    qz_arena *arena;
    int64_t tokens, width, words;
    float *hidden, *table, *teacher; /* teacher (T, V): its logits */
    int32_t *labels;
    float *dhidden, *dtable;
    qz_head_rule rule;
} fixture;

static float *normal(qz_arena *arena, qz_rng *rng, int64_t count, double factor)
{
    float *x = qz_arena_array(arena, float, (size_t)count);
    cr_assert(x != NULL);
    for (int64_t i = 0; i < count; i++) x[i] = (float)(factor * qz_rng_normal(rng));
    return x;
}

static qz_status teacher_logits(void *context, int64_t first, const qz_tensor *logits)
{
    const fixture *f = context;
    memcpy(logits->data, f->teacher + first * f->words, (size_t)qz_tensor_count(logits) * sizeof(float));
    return QZ_OK;
}

static fixture *fixture_new(int64_t tokens, int64_t width, int64_t words)
{
    qz_arena *arena;
    qz_rng rng;
    check_ok(qz_arena_new(&arena, "test"));
    qz_rng_seed(&rng, 9, 0);
    fixture *f = qz_arena_calloc(arena, sizeof *f);
    *f = (fixture){.arena = arena, .tokens = tokens, .width = width, .words = words};
    f->hidden = normal(arena, &rng, tokens * width, 1);
    f->table = normal(arena, &rng, words * width, 1);
    f->teacher = normal(arena, &rng, tokens * words, 2);
    f->dhidden = qz_arena_calloc(arena, (size_t)(tokens * width) * sizeof(float));
    f->dtable = qz_arena_calloc(arena, (size_t)(words * width) * sizeof(float));
    f->labels = qz_arena_array(arena, int32_t, (size_t)tokens);
    for (int64_t t = 0; t < tokens; t++)
        f->labels[t] = t % 4 == 2 ? -100 : (int32_t)qz_rng_below(&rng, (uint64_t)words);
    return f;
}

typedef struct wanted {
    bool hidden, table, chain; /* chain: the hidden states are made on the tape, of half their size */
} wanted;

static qz_tensor halved(const fixture *f)
{
    float *x = qz_arena_array(f->arena, float, (size_t)(f->tokens * f->width));
    for (int64_t i = 0; i < f->tokens * f->width; i++) x[i] = f->hidden[i] / 2;
    return qz_tensor_2d(x, QZ_F32, f->tokens, f->width);
}

/* Gradients are added to ones. */
static qz_head_sums run(fixture *f, wanted w, bool record, size_t *peak)
{
    const qz_tensor table = qz_tensor_2d(f->table, QZ_F32, f->words, f->width);
    const qz_tensor dtable = qz_tensor_2d(f->dtable, QZ_F32, f->words, f->width);
    const qz_tensor hidden = w.chain ? halved(f) : qz_tensor_2d(f->hidden, QZ_F32, f->tokens, f->width);
    const qz_tensor dhidden = qz_tensor_2d(f->dhidden, QZ_F32, f->tokens, f->width);
    qz_head_sums sums;
    qz_tape *t;
    qz_var *leaf, *x, *head;
    for (int64_t i = 0; i < f->tokens * f->width; i++) f->dhidden[i] = 1;
    for (int64_t i = 0; i < f->words * f->width; i++) f->dtable[i] = 1;
    check_ok(qz_tape_new(&t, qz_backend_best(), false));
    qz_tape_record(t, record);
    check_ok(qz_tape_leaf(&leaf, t, &hidden, w.hidden ? &dhidden : NULL));
    check_ok(qz_tape_leaf(&head, t, &table, w.table ? &dtable : NULL));
    x = leaf;
    if (w.chain) check_ok(qz_ag_scale(&x, t, leaf, 2));
    check_ok(qz_ag_head(&sums, t, x, head, &f->rule));
    qz_var_release(t, x);
    check_ok(qz_tape_backward(t));
    cr_assert(qz_tape_used(t) == 0);
    if (peak) *peak = qz_tape_peak(t);
    qz_tape_free(t);
    return sums;
}

/* ---- in double ---- */

/* log softmax of row / temperature */
static void log_softmax(double *out, const double *row, int64_t n, double temperature)
{
    double sum = 0;
    for (int64_t v = 0; v < n; v++) sum += exp(row[v] / temperature);
    for (int64_t v = 0; v < n; v++) out[v] = row[v] / temperature - log(sum);
}

static qz_head_sums plain_sums(const fixture *f, const double *hidden, const double *table)
{
    qz_head_sums sums = {0};
    const double cap = f->rule.softcap, temperature = f->rule.temperature;
    double row[WORDS], ours[WORDS], theirs[WORDS];
    for (int64_t t = 0; t < f->tokens; t++) {
        for (int64_t v = 0; v < f->words; v++) {
            row[v] = 0;
            for (int64_t c = 0; c < f->width; c++) row[v] += hidden[t * f->width + c] * table[v * f->width + c];
            if (cap > 0) row[v] = cap * tanh(row[v] / cap);
        }
        log_softmax(ours, row, f->words, 1);
        if (f->labels[t] >= 0) sums.cross_entropy -= ours[f->labels[t]];
        if (!f->rule.teacher.logits || (f->labels[t] < 0 && !f->rule.divergence_everywhere)) continue;
        log_softmax(ours, row, f->words, temperature);
        for (int64_t v = 0; v < f->words; v++) row[v] = f->teacher[t * f->words + v];
        log_softmax(theirs, row, f->words, temperature);
        for (int64_t v = 0; v < f->words; v++)
            sums.divergence += temperature * temperature * exp(theirs[v]) * (theirs[v] - ours[v]);
    }
    return sums;
}

static double plain_loss(const fixture *f, const double *hidden, const double *table)
{
    const qz_head_sums s = plain_sums(f, hidden, table);
    return f->rule.cross_entropy / f->rule.cross_entropy_per * s.cross_entropy +
           f->rule.divergence / f->rule.divergence_per * s.divergence;
}

static double *widened(const fixture *f, const float *x, int64_t count)
{
    double *out = qz_arena_array(f->arena, double, (size_t)count);
    for (int64_t i = 0; i < count; i++) out[i] = x[i];
    return out;
}

/* got - 1 is factor times the derivative by x, which is hidden or table. */
static void check_gradient(const fixture *f, const double *hidden, const double *table, double *x, const float *got,
                           int64_t count, double factor)
{
    const double h = 1e-5;
    for (int64_t i = 0; i < count; i++) {
        const double middle = x[i];
        x[i] = middle + h;
        const double above = plain_loss(f, hidden, table);
        x[i] = middle - h;
        const double below = plain_loss(f, hidden, table), d = factor * (above - below) / (2 * h);
        x[i] = middle;
        cr_assert(fabs((double)got[i] - 1 - d) <= TOL_RULE_GRADIENT * 3, "number %d: %.9g, should be %.9g", (int)i,
                  (double)got[i] - 1, d);
    }
}

static void check_rule(fixture *f)
{
    double *hidden = widened(f, f->hidden, f->tokens * f->width), *table = widened(f, f->table, f->words * f->width);
    const qz_head_sums should = plain_sums(f, hidden, table);
    for (int i = 1; i < 7; i++) {
        const wanted w = {i & 1, i & 2, i & 4};
        const qz_head_sums sums = run(f, w, true, NULL);
        const bool both = !f->rule.teacher.logits || f->rule.cross_entropy != 0;
        if (both) cr_assert_float_eq(sums.cross_entropy, should.cross_entropy, 1e-5);
        cr_assert_float_eq(sums.divergence, should.divergence, 1e-5);
        if (w.hidden)
            check_gradient(f, hidden, table, hidden, f->dhidden, f->tokens * f->width, w.chain ? 2 : 1);
        else
            for (int64_t k = 0; k < f->tokens * f->width; k++) cr_assert(f->dhidden[k] == 1);
        if (w.table)
            check_gradient(f, hidden, table, table, f->dtable, f->words * f->width, 1);
        else
            for (int64_t k = 0; k < f->words * f->width; k++) cr_assert(f->dtable[k] == 1);
    }
}

Test(head, gradients_are_those_of_differences)
{
    fixture *f = fixture_new(TOKENS, WIDTH, WORDS);
    for (int i = 0; i < 16; i++) {
        const bool divergence = i & 1, both = i & 2;
        f->rule = (qz_head_rule){.labels = f->labels,
                                 .softcap = i & 4 ? 2.5f : 0,
                                 .cross_entropy = !divergence || both ? 0.75 : 0,
                                 .divergence = divergence ? 0.5 : 0,
                                 .temperature = i & 8 ? 2 : 1,
                                 .divergence_everywhere = i & 8,
                                 .cross_entropy_per = 5,
                                 .divergence_per = 3};
        if (divergence) f->rule.teacher = (qz_teacher){teacher_logits, f};
        check_rule(f);
    }
    qz_arena_free(f->arena);
}

Test(head, nothing_is_added_without_recording)
{
    fixture *f = fixture_new(TOKENS, WIDTH, WORDS);
    f->rule = (qz_head_rule){.labels = f->labels, .cross_entropy = 1, .cross_entropy_per = 1, .divergence_per = 1};
    const qz_head_sums recorded = run(f, (wanted){true, true, true}, true, NULL);
    const qz_head_sums judged = run(f, (wanted){true, true, true}, false, NULL);
    cr_assert(recorded.cross_entropy == judged.cross_entropy && judged.cross_entropy > 0);
    for (int i = 0; i < TOKENS * WIDTH; i++) cr_assert(f->dhidden[i] == 1);
    qz_arena_free(f->arena);
}

/* A vocabulary that leaves room for 64 tokens at a time: the same as those tokens one tile after another. */
Test(head, tiles)
{
    enum { TILE = 64, MANY = 2 * TILE + 3, NARROW = 4, LARGE = 70000 };
    fixture *f = fixture_new(MANY, NARROW, LARGE);
    size_t peak;
    f->rule = (qz_head_rule){
        .labels = f->labels, .softcap = 5, .cross_entropy = 1, .cross_entropy_per = 1, .divergence_per = 1};
    const qz_head_sums whole = run(f, (wanted){true, true, false}, true, &peak);
    float *dhidden = f->dhidden, *dtable = f->dtable, *added = qz_arena_calloc(f->arena, LARGE * NARROW * 4);
    double cross_entropy = 0;
    cr_assert(peak < (size_t)3 * TILE * LARGE * sizeof(float), "%zu", peak);
    f->dtable = qz_arena_calloc(f->arena, LARGE * NARROW * 4);
    for (int64_t first = 0; first < MANY; first += TILE) {
        fixture part = *f;
        part.tokens = MANY - first < TILE ? MANY - first : TILE;
        part.hidden += first * NARROW;
        part.rule.labels += first;
        part.dhidden = qz_arena_calloc(f->arena, TILE * NARROW * 4);
        cross_entropy += run(&part, (wanted){true, true, false}, true, NULL).cross_entropy;
        cr_assert(memcmp(part.dhidden, dhidden + first * NARROW, (size_t)(part.tokens * NARROW) * 4) == 0);
        for (int i = 0; i < LARGE * NARROW; i++) added[i] += f->dtable[i] - 1;
    }
    cr_assert_float_eq(cross_entropy, whole.cross_entropy, 1e-9 * cross_entropy);
    for (int i = 0; i < LARGE * NARROW; i++) cr_assert_float_eq(added[i], dtable[i] - 1, 1e-6 * (2 + fabs(dtable[i])));
    qz_arena_free(f->arena);
}
