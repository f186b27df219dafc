/* The decoder on a tape is the decoder: for every dense folder in golden/models each input of a linear, the keys, the
 * values, and the hidden states are those of qz_layer_forward bit for bit; the head's loss is the log probability; and
 * documents that share a window are what they are in windows of their own. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "testing/tape_weights.h"
#include "testing/tolerances.h"

enum { MOST_SEEN = 256 };

/* What was shown at the points of a pass, one after another. */
typedef struct seen {
    qz_arena *arena;
    int count;
    struct {
        int layer, input;
        qz_point point;
        int64_t numbers;
        float *data;
    } at[MOST_SEEN];
} seen;

typedef struct fixture {
    const char *name;
    qz_arena *arena;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_safetensors *expected;
    int32_t *ids;
    qz_batch batch;
    tape_weights *weights;
} fixture;

static void see(seen *s, int layer, int input, qz_point point, const qz_tensor *x)
{
    const int64_t numbers = qz_tensor_count(x);
    cr_assert(s->count < MOST_SEEN);
    s->at[s->count].layer = layer;
    s->at[s->count].input = input;
    s->at[s->count].point = point;
    s->at[s->count].numbers = numbers;
    s->at[s->count].data = qz_arena_array(s->arena, float, (size_t)numbers);
    memcpy(s->at[s->count++].data, x->data, (size_t)numbers * sizeof(float));
}

static qz_status see_tap(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    see(context, layer->index, input, point, x);
    return QZ_OK;
}

/* The weights' context and the points' are one. */
typedef struct watched {
    tape_weights *weights;
    seen *seen;
} watched;

static qz_status watched_linear(void *context, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var *residual,
                                qz_var **y)
{
    return tape_give_linear(((watched *)context)->weights, t, layer, role, x, residual, y);
}

static qz_status watched_plain(void *context, qz_tape *t, const char *name, qz_var **v)
{
    return tape_give_plain(((watched *)context)->weights, t, name, v);
}

static qz_status watched_point(void *context, qz_tape *t, int layer, int input, qz_point point, qz_var **x)
{
    seen *s = ((watched *)context)->seen;
    if (s) see(s, layer, input, point, qz_var_value(*x));
    return QZ_OK;
}

/* ---- the two passes ---- */

static qz_tensor matrix(qz_arena *arena, int64_t rows, int64_t cols)
{
    return qz_tensor_2d(qz_arena_calloc(arena, (size_t)(rows * cols) * sizeof(float)), QZ_F32, rows, cols);
}

static qz_tensor plain_hidden(const fixture *f, const int32_t *ids, qz_batch batch, seen *s)
{
    qz_tensor x = matrix(f->arena, batch.sequences * batch.length, qz_model_config_of(f->model)->hidden);
    check_ok(qz_model_embed(f->model, ids, &x));
    if (s) qz_model_set_tap(f->model, (qz_tap){see_tap, s});
    for (int i = 0; i < qz_model_config_of(f->model)->layers; i++)
        check_ok(qz_layer_forward(f->model, &f->weights->layer[i], batch, &x, f->arena));
    qz_model_set_tap(f->model, (qz_tap){NULL, NULL});
    check_ok(qz_model_final_norm(f->model, &x, &x));
    return x;
}

/* *cross_entropy: sum over the tokens of f->ids shifted by none, as the head of the tape has it. */
static qz_tensor tape_hidden(const fixture *f, const int32_t *ids, const int32_t *first, qz_batch batch, seen *s,
                             bool recompute, double *cross_entropy)
{
    watched w = {f->weights, s};
    const qz_tape_weights weights = {&w, watched_linear, watched_plain, watched_point, recompute};
    const qz_head_rule rule = {.labels = ids,
                               .softcap = (float)qz_model_config_of(f->model)->logit_softcap,
                               .cross_entropy = 1,
                               .cross_entropy_per = 1,
                               .divergence_per = 1};
    qz_head_sums sums;
    qz_tape *t;
    qz_var *hidden, *head;
    check_ok(qz_tape_new(&t, qz_model_backend(f->model), false));
    check_ok(qz_model_tape_forward(f->model, t, &weights, (qz_tape_batch){batch.sequences, batch.length, ids, first},
                                   &hidden, &head, f->arena));
    qz_tensor x = matrix(f->arena, batch.sequences * batch.length, qz_model_config_of(f->model)->hidden);
    memcpy(x.data, qz_var_value(hidden)->data, (size_t)qz_tensor_count(&x) * sizeof(float));
    check_ok(qz_ag_head(&sums, t, hidden, head, &rule));
    *cross_entropy = sums.cross_entropy;
    qz_tape_free(t);
    return x;
}

/* ---- comparisons ---- */

static bool same(const qz_tensor *a, const qz_tensor *b)
{
    return memcmp(a->data, b->data, (size_t)qz_tensor_count(a) * sizeof(float)) == 0;
}

static void same_points(const fixture *f, const seen *a, const seen *b)
{
    cr_assert(a->count == b->count && a->count > 0, "%s: %d and %d points", f->name, a->count, b->count);
    for (int i = 0; i < a->count; i++) {
        cr_assert(a->at[i].layer == b->at[i].layer && a->at[i].input == b->at[i].input &&
                      a->at[i].point == b->at[i].point && a->at[i].numbers == b->at[i].numbers,
                  "%s: point %d", f->name, i);
        cr_assert(memcmp(a->at[i].data, b->at[i].data, (size_t)a->at[i].numbers * sizeof(float)) == 0,
                  "%s: layer %d, input %d, point %d differs", f->name, a->at[i].layer, a->at[i].input,
                  (int)a->at[i].point);
    }
}

static void check_loss(const fixture *f, const qz_tensor *hidden, double cross_entropy)
{
    double sum = 0, *data = qz_arena_array(f->arena, double, (size_t)hidden->shape[0]);
    const qz_tensor log_prob = qz_tensor_1d(data, QZ_F64, hidden->shape[0]);
    check_ok(qz_model_log_prob(f->model, hidden, f->ids, &log_prob, f->arena));
    for (int64_t i = 0; i < hidden->shape[0]; i++) sum -= data[i];
    cr_assert(fabs(sum - cross_entropy) <= TOL_SUM_F32 * sum, "%s: %.9g, %.9g", f->name, sum, cross_entropy);
}

static void check_whole(const fixture *f)
{
    double loss, again;
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "seen")); /* the other one is the decoder's scratch */
    seen *a = qz_arena_calloc(arena, sizeof *a), *b = qz_arena_calloc(arena, sizeof *b);
    a->arena = b->arena = arena;
    const qz_tensor plain = plain_hidden(f, f->ids, f->batch, a);
    const qz_tensor taped = tape_hidden(f, f->ids, NULL, f->batch, b, false, &loss);
    same_points(f, a, b);
    qz_arena_free(arena);
    cr_assert(same(&plain, &taped), "%s: hidden states differ", f->name);
    check_loss(f, &taped, loss);
    const qz_tensor in_segments = tape_hidden(f, f->ids, NULL, f->batch, NULL, true, &again);
    cr_assert(same(&plain, &in_segments) && again == loss, "%s: in segments", f->name);
}

/* Every row cut into documents of 5, 1 and the rest: each as it is alone. */
static void check_documents(const fixture *f)
{
    const int64_t length = f->batch.length, starts[] = {0, 5, 6, length}; /* phi3_long: the last one is long */
    const int64_t width = qz_model_config_of(f->model)->hidden;
    int32_t *first = qz_arena_array(f->arena, int32_t, (size_t)(f->batch.sequences * length));
    double loss;
    for (int64_t i = 0; i < f->batch.sequences * length; i++)
        first[i] = (int32_t)(i % length < 5 ? 0 : i % length < 6 ? 5 : 6);
    const qz_tensor packed = tape_hidden(f, f->ids, first, f->batch, NULL, false, &loss);
    double worst = 0, square = 0;
    for (int64_t d = 0; d < 3 * f->batch.sequences; d++) {
        const int64_t at = d / 3 * length + starts[d % 3], count = starts[d % 3 + 1] - starts[d % 3];
        const qz_tensor alone = plain_hidden(f, f->ids + at, (qz_batch){1, count}, NULL);
        for (int64_t i = 0; i < count * width; i++) {
            worst = fmax(worst, fabs((double)(qz_f32(&alone)[i] - qz_f32(&packed)[at * width + i])));
            square += (double)qz_f32(&alone)[i] * (double)qz_f32(&alone)[i];
        }
    }
    const double rms = sqrt(square / (double)qz_tensor_count(&packed));
    cr_assert(worst <= TOL_MODEL_F32 * rms, "%s: documents in one window are off by %.3g of the rms", f->name,
              worst / rms);
}

static void read_ids(fixture *f)
{
    const qz_stored *t = qz_safetensors_find(f->expected, "input_ids");
    f->batch = (qz_batch){t->view.shape[0], t->view.shape[1]};
    f->ids = qz_arena_array(f->arena, int32_t, (size_t)qz_tensor_count(&t->view));
    for (int64_t i = 0; i < qz_tensor_count(&t->view); i++) {
        int64_t id;
        memcpy(&id, (const char *)t->view.data + i * 8, 8);
        f->ids[i] = (int32_t)id;
    }
}

static void check_refused(const fixture *f)
{
    const qz_tape_weights none = {0};
    qz_tape *t;
    qz_var *hidden, *head;
    check_ok(qz_tape_new(&t, qz_model_backend(f->model), false));
    check_fails(
        QZ_UNSUPPORTED, "experts",
        qz_model_tape_forward(f->model, t, &none, (qz_tape_batch){1, 4, f->ids, NULL}, &hidden, &head, f->arena));
    qz_tape_free(t);
}

/* 1 when the family is dense and was compared. */
static int check_folder(const char *name, const qz_backend *backend)
{
    char path[600];
    fixture f = {.name = name};
    snprintf(path, sizeof path, "%s/%s", golden_path("models"), name);
    check_ok(qz_arena_new(&f.arena, "test"));
    check_ok(qz_ckpt_open(&f.ckpt, path));
    snprintf(path, sizeof path, "%s/%s/expected.safetensors", golden_path("models"), name);
    check_ok(qz_safetensors_open(&f.expected, path));
    check_ok(qz_model_open(&f.model, f.ckpt, backend, NULL));
    const bool dense = qz_model_config_of(f.model)->experts == 0;
    read_ids(&f);
    if (dense) {
        f.weights = tape_weights_new(f.model, f.arena);
        check_whole(&f);
        check_documents(&f);
    } else {
        check_refused(&f);
    }
    qz_model_close(f.model);
    qz_safetensors_close(f.expected);
    qz_ckpt_close(f.ckpt);
    qz_arena_free(f.arena);
    return dense;
}

static int check_folders(const qz_backend *backend)
{
    struct dirent **entries;
    const int n = scandir(golden_path("models"), &entries, NULL, alphasort);
    int checked = 0;
    cr_assert(n >= 0);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') checked += check_folder(entries[i]->d_name, backend);
        free(entries[i]);
    }
    free(entries);
    return checked;
}

Test(tape_forward, is_the_decoder)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available()) continue;
        const int checked = check_folders(qz_backend_at(b));
        printf("%s: %d dense models\n", qz_backend_at(b)->plugin.name, checked);
        cr_assert(checked > 0);
    }
}
