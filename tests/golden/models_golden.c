/* Hidden states and logits of every folder in golden/models, on every backend, against transformers in fp32.
 * A folder of a family that we do not know yet is listed as skipped. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/models.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fixture {
    char folder[512];
    qz_ckpt *ckpt;
    qz_model *model;
    qz_safetensors *expected;
    qz_batch batch;
    int32_t *ids; /* (sequences * length) */
    qz_arena *arena;
} fixture;

static const qz_stored *expected(const fixture *f, const char *name)
{
    const qz_stored *t = qz_safetensors_find(f->expected, name);
    cr_assert(t != NULL, "%s: expected.safetensors has no %s", f->folder, name);
    return t;
}

static void read_ids(fixture *f)
{
    const qz_stored *t = expected(f, "input_ids");
    f->batch = (qz_batch){t->view.shape[0], t->view.shape[1]};
    int64_t count = qz_tensor_count(&t->view);
    f->ids = qz_arena_alloc(f->arena, (size_t)count * sizeof *f->ids);
    for (int64_t i = 0; i < count; i++) {
        int64_t id;
        memcpy(&id, (const char *)t->view.data + i * 8, 8);
        f->ids[i] = (int32_t)id;
    }
}

/* max |ours - theirs| / rms(theirs) */
static void compare(const fixture *f, const char *name, const qz_tensor *ours)
{
    const qz_stored *t = expected(f, name);
    int64_t count = qz_tensor_count(ours);
    double square = 0, worst = 0;
    cr_assert(qz_tensor_count(&t->view) == count, "%s: %s", f->folder, name);
    for (int64_t i = 0; i < count; i++) {
        float theirs;
        memcpy(&theirs, (const char *)t->view.data + i * 4, 4);
        double d = fabs((double)qz_f32(ours)[i] - theirs);
        square += (double)theirs * theirs;
        if (!(d <= worst)) worst = d;
    }
    double rms = sqrt(square / (double)count);
    cr_assert(worst <= TOL_MODEL_F32 * rms, "%s: %s is off by %.3g of its rms", f->folder, name, worst / rms);
}

static qz_tensor new_matrix(const fixture *f, int64_t rows, int64_t cols)
{
    return qz_tensor_2d(qz_arena_calloc(f->arena, (size_t)(rows * cols) * 4), QZ_F32, rows, cols);
}

/* What the experts of a layer were shown. */
typedef struct shown {
    qz_tensor x;     /* (T, C), all tokens, when they were shown all */
    int64_t *tokens; /* [E] */
} shown;

static qz_status watch(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    shown *s = context;
    if (point != QZ_POINT_INPUT || input < QZ_STAGE_GATE_UP) return QZ_OK;
    s->tokens[qz_input_expert(input)] = x->shape[0];
    if (qz_input_stage(input) == QZ_STAGE_GATE_UP && s->x.data)
        memcpy(s->x.data, x->data, (size_t)qz_tensor_count(x) * sizeof(float));
    return QZ_OK;
}

/* Tokens whose `active` largest of `logits` (T, E) include expert e. */
static int64_t tokens_of(const qz_stored *logits, int64_t experts, int64_t active, int64_t e)
{
    int64_t found = 0;
    for (int64_t t = 0; t < qz_tensor_count(&logits->view) / experts; t++) {
        float row[64];
        int64_t above = 0;
        cr_assert(experts <= 64);
        memcpy(row, (const char *)logits->view.data + t * experts * 4, (size_t)experts * 4);
        for (int64_t i = 0; i < experts; i++) above += row[i] > row[e];
        found += above < active;
    }
    return found;
}

/* The router's logits are transformers', each expert gets the tokens that they say, and an expert that is shown all
 * tokens leaves the same residual behind. */
static void check_experts(const fixture *f, qz_layer *layer, const qz_tensor *before)
{
    const qz_model_config *c = qz_model_config_of(f->model);
    char name[32];
    snprintf(name, sizeof name, "router_logits.%d", layer->index);
    qz_tensor logits = new_matrix(f, before->shape[0], c->experts), again = new_matrix(f, before->shape[0], c->hidden);
    shown s = {.tokens = qz_arena_calloc(f->arena, (size_t)c->experts * sizeof *s.tokens)};
    uint8_t *all = qz_arena_calloc(f->arena, (size_t)c->experts);
    layer->tap = (qz_tap){watch, &s};
    memcpy(again.data, before->data, (size_t)qz_tensor_count(before) * 4);
    check_ok(qz_layer_forward(f->model, layer, f->batch, &again, f->arena));
    for (int e = 0; e < c->experts; e++)
        cr_assert(s.tokens[e] == tokens_of(expected(f, name), c->experts, c->active_experts, e), "%s: expert %d got %d",
                  f->folder, e, (int)s.tokens[e]);

    memset(all, 1, (size_t)c->experts);
    s.x = new_matrix(f, before->shape[0], c->hidden);
    layer->all_tokens = all;
    memcpy(again.data, before->data, (size_t)qz_tensor_count(before) * 4);
    check_ok(qz_layer_forward(f->model, layer, f->batch, &again, f->arena));
    for (int e = 0; e < c->experts; e++) cr_assert(s.tokens[e] == before->shape[0]);
    check_ok(qz_op_linear(qz_model_backend(f->model), &logits, &s.x, &layer->router, NULL, false));
    compare(f, name, &logits);
    snprintf(name, sizeof name, "hidden.%d", layer->index + 1);
    compare(f, name, &again);
}

static void run_layers(const fixture *f, const qz_tensor *residual)
{
    char name[32];
    qz_tensor before = new_matrix(f, residual->shape[0], residual->shape[1]);
    for (int i = 0; i < qz_model_config_of(f->model)->layers; i++) {
        qz_layer layer;
        check_ok(qz_model_layer(f->model, i, &layer, f->arena));
        memcpy(before.data, residual->data, (size_t)qz_tensor_count(residual) * 4);
        check_ok(qz_layer_forward(f->model, &layer, f->batch, residual, f->arena));
        if (layer.router_name) check_experts(f, &layer, &before);
        snprintf(name, sizeof name, "hidden.%d", i + 1);
        compare(f, name, residual);
    }
}

static void check_log_prob(const fixture *f, const qz_tensor *hidden, const qz_tensor *logits)
{
    int64_t tokens = hidden->shape[0], vocabulary = logits->shape[1];
    qz_tensor lp = qz_tensor_1d(qz_arena_calloc(f->arena, (size_t)tokens * 8), QZ_F64, tokens);
    check_ok(qz_model_log_prob(f->model, hidden, f->ids, &lp, f->arena));
    for (int64_t t = 0; t < tokens; t++) {
        const float *row = qz_f32(logits) + t * vocabulary;
        double sum = 0;
        for (int64_t v = 0; v < vocabulary; v++) sum += exp((double)row[v]);
        cr_assert_float_eq(((double *)lp.data)[t], row[f->ids[t]] - log(sum), 1e-6);
    }
}

static void check_model(const fixture *f)
{
    const qz_model_config *c = qz_model_config_of(f->model);
    int64_t tokens = f->batch.sequences * f->batch.length;
    qz_tensor residual = new_matrix(f, tokens, c->hidden), logits = new_matrix(f, tokens, c->vocabulary);
    check_ok(qz_model_embed(f->model, f->ids, &residual));
    compare(f, "hidden.0", &residual);
    run_layers(f, &residual);
    check_ok(qz_model_final_norm(f->model, &residual, &residual));
    compare(f, "hidden.norm", &residual);
    check_ok(qz_model_logits(f->model, &residual, &logits, f->arena));
    compare(f, "logits", &logits);
    check_log_prob(f, &residual, &logits);
}

/* False when the family is not known; any other failure fails the test. */
static bool open_fixture(fixture *f, const char *name, const qz_backend *backend)
{
    char path[600];
    const char *architecture = "?";
    snprintf(f->folder, sizeof f->folder, "%s/%s", golden_path("models"), name);
    snprintf(path, sizeof path, "%s/expected.safetensors", f->folder);
    check_ok(qz_arena_new(&f->arena, "test"));
    check_ok(qz_safetensors_open(&f->expected, path));
    check_ok(qz_ckpt_open(&f->ckpt, f->folder));
    qz_status status = qz_model_open(&f->model, f->ckpt, backend, NULL);
    if (status == QZ_OK) {
        read_ids(f);
        return true;
    }
    const qz_json_node *config = qz_json_root(qz_ckpt_config(f->ckpt));
    cr_assert(status == QZ_UNSUPPORTED && strstr(qz_error_message(), "architectures[0]"), "%s", qz_error_message());
    check_ok(qz_json_string(qz_json_get(config, "model_type"), "model_type", &architecture));
    printf("skipped: %s (family not known yet)\n", architecture);
    return false;
}

static void close_fixture(fixture *f)
{
    qz_model_close(f->model);
    qz_ckpt_close(f->ckpt);
    qz_safetensors_close(f->expected);
    qz_arena_free(f->arena);
}

/* How many folders were compared. */
static int check_folder(const qz_backend *backend)
{
    struct dirent **entries;
    int checked = 0, n = scandir(golden_path("models"), &entries, NULL, alphasort);
    cr_assert(n >= 0, "%s", golden_path("models"));
    for (int i = 0; i < n; i++) {
        fixture f = {.folder = ""};
        if (entries[i]->d_name[0] != '.') {
            if (open_fixture(&f, entries[i]->d_name, backend)) {
                check_model(&f);
                checked++;
            }
            close_fixture(&f);
        }
        free(entries[i]);
    }
    free(entries);
    return checked;
}

Test(golden_models, every_backend_agrees_with_transformers)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available()) {
            printf("skipped: backend %s (not available here)\n", backend->plugin.name);
            continue;
        }
        int checked = check_folder(backend);
        printf("%s: %d models\n", backend->plugin.name, checked);
        cr_assert(checked > 0);
    }
}
