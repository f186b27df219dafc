/* The four stages of a layer: their sum is the layer, taps see what flows, sequences and positions are kept apart. */
#include <math.h>

#include "model_folder.h"

enum { S = 2, L = 12 };

static void fill(const qz_tensor *x, uint32_t seed)
{
    for (int64_t i = 0; i < qz_tensor_count(x); i++) {
        seed = seed * 1664525u + 1013904223u;
        qz_f32(x)[i] = (float)(seed >> 8) / (1 << 24) - 0.5f;
    }
}

static bool same(const qz_tensor *a, const qz_tensor *b)
{
    return memcmp(a->data, b->data, (size_t)qz_tensor_count(a) * sizeof(float)) == 0;
}

static void run_stages(const opened *o, const qz_layer *layer, qz_batch batch, const qz_tensor *residual)
{
    int64_t tokens = batch.sequences * batch.length;
    qz_tensor carry = matrix(o->arena, tokens, qz_model_input_width(o->model, 0, QZ_STAGE_O));
    for (int s = 0; s < QZ_STAGES; s++) {
        qz_tensor x = matrix(o->arena, tokens, qz_model_input_width(o->model, 0, s));
        check_ok(qz_stage_input(o->model, layer, (qz_stage)s, batch, residual, &carry, &x));
        if (s == QZ_STAGE_GATE_UP) carry = matrix(o->arena, tokens, qz_model_input_width(o->model, 0, QZ_STAGE_DOWN));
        check_ok(qz_stage_apply(o->model, layer, (qz_stage)s, batch, &x, residual, &carry, o->arena));
    }
}

Test(decoder, stages_make_the_layer)
{
    opened o = open_model(golden_path("models/qwen2"));
    qz_layer layer;
    qz_tensor a = matrix(o.arena, S * L, 64), b = matrix(o.arena, S * L, 64), before = matrix(o.arena, S * L, 64);
    fill(&a, 1), fill(&b, 1), fill(&before, 1);
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
    run_stages(&o, &layer, (qz_batch){S, L}, &b);
    cr_assert(same(&a, &b) && !same(&a, &before));
    close_model(&o);
}

Test(decoder, sequences_do_not_see_each_other)
{
    opened o = open_model(golden_path("models/mistral"));
    qz_layer layer;
    qz_tensor both = matrix(o.arena, S * L, 64), one = matrix(o.arena, S * L, 64);
    fill(&both, 2), fill(&one, 2);
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &both, o.arena));
    for (int s = 0; s < S; s++) {
        qz_tensor part = qz_tensor_rows(&one, s * L, L);
        check_ok(qz_layer_forward(o.model, &layer, (qz_batch){1, L}, &part, o.arena));
    }
    for (int64_t i = 0; i < qz_tensor_count(&one); i++) cr_assert_float_eq(qz_f32(&one)[i], qz_f32(&both)[i], 1e-6);
    close_model(&o);
}

/* Changing token `changed` changes what comes out at `changed` and, in a window of w, up to changed + w - 1 only. */
static void check_reach(const char *folder, int64_t changed, int64_t window)
{
    opened o = open_model(golden_path(folder));
    qz_layer layer;
    qz_tensor a = matrix(o.arena, L, 64), b = matrix(o.arena, L, 64);
    fill(&a, 3), fill(&b, 3);
    qz_f32(&b)[changed * 64 + 5] += 1;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){1, L}, &a, o.arena));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){1, L}, &b, o.arena));
    for (int64_t t = 0; t < L; t++) {
        qz_tensor ra = qz_tensor_rows(&a, t, 1), rb = qz_tensor_rows(&b, t, 1);
        cr_assert(same(&ra, &rb) == (t < changed || t >= changed + window), "%s: token %d", folder, (int)t);
    }
    close_model(&o);
}

Test(decoder, causal_and_windowed)
{
    check_reach("models/llama", 4, L);
    check_reach("models/mistral", 4, 6);
}

/* ---- taps ---- */

typedef struct seen {
    int calls;
    char order[64];
    bool finite;
    float scale_key;
} seen;

static qz_status watch(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    seen *s = context;
    cr_assert(layer->index == 1);
    cr_assert(x->ndim == (point == QZ_POINT_INPUT ? 2 : 3));
    cr_assert(x->shape[0] == S * L && (point == QZ_POINT_INPUT || (x->shape[1] == 2 && x->shape[2] == 32)));
    s->order[s->calls++] = point == QZ_POINT_INPUT ? "ABCD"[input] : point == QZ_POINT_KEY ? 'k' : 'v';
    if (point == QZ_POINT_KEY)
        for (int64_t i = 0; i < qz_tensor_count(x); i++) qz_f32(x)[i] *= s->scale_key;
    return QZ_OK;
}

static qz_status refuse(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    return input == (int)QZ_STAGE_DOWN ? QZ_FAIL(QZ_NUMERIC, "%s", (const char *)context) : QZ_OK;
}

Test(decoder, taps_see_and_change)
{
    opened o = open_model(golden_path("models/qwen3"));
    qz_layer layer;
    qz_tensor a = matrix(o.arena, S * L, 64), b = matrix(o.arena, S * L, 64), c = matrix(o.arena, S * L, 64);
    seen s = {.scale_key = 1};
    fill(&a, 4), fill(&b, 4), fill(&c, 4);
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
    qz_model_set_tap(o.model, (qz_tap){watch, &s});
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &b, o.arena));
    cr_assert_str_eq(s.order, "AkvBCD");
    cr_assert(same(&a, &b));
    s = (seen){.scale_key = 0.5f};
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &c, o.arena));
    cr_assert(!same(&a, &c));
    qz_model_set_tap(o.model, (qz_tap){refuse, (char[]){"tapped"}});
    check_fails(QZ_NUMERIC, "tapped", qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &c, o.arena));
    close_model(&o);
}

/* ---- memory and arguments ---- */

Test(decoder, scratch_is_given_back_and_foretold)
{
    static const char *const folders[] = {"models/llama", "models/qwen2", "models/qwen3"};
    for (int f = 0; f < 3; f++) {
        opened o = open_model(golden_path(folders[f]));
        qz_layer layer;
        qz_arena *scratch;
        qz_batch batch = {40, 128};
        qz_tensor a = matrix(o.arena, 40 * 128, 64);
        fill(&a, 5);
        check_ok(qz_arena_new(&scratch, "scratch"));
        check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
        check_ok(qz_layer_forward(o.model, &layer, batch, &a, scratch));
        cr_assert(qz_arena_used(scratch) == 0);
        cr_assert(qz_arena_peak(scratch) <= qz_model_scratch_bytes(o.model, batch) + (1 << 20));
        cr_assert(qz_arena_peak(scratch) * 10 >= qz_model_scratch_bytes(o.model, batch) * 9);
        qz_arena_free(scratch);
        close_model(&o);
    }
}

Test(decoder, failing_allocations_leave_nothing)
{
    opened o = open_model(golden_path("models/qwen3"));
    qz_layer layer;
    qz_arena *scratch;
    qz_tensor a = matrix(o.arena, S * L, 64);
    check_ok(qz_arena_new(&scratch, "scratch"));
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    fill(&a, 6);
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "scratch", qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, scratch));
    cr_assert(qz_arena_used(scratch) == 0);
    qz_alloc_fail_at(0);
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, scratch));
    qz_arena_free(scratch);
    close_model(&o);
}

Test(decoder, wrong_arguments_are_told)
{
    opened o = open_model(golden_path("models/llama"));
    qz_layer layer;
    qz_tensor x = matrix(o.arena, 257, 64), wide = matrix(o.arena, 257, 128);
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    check_fails(QZ_ARG, "max_position_embeddings of the model is 256",
                qz_layer_forward(o.model, &layer, (qz_batch){1, 257}, &x, o.arena));
    check_fails(QZ_ARG, "batch", qz_layer_forward(o.model, &layer, (qz_batch){0, 8}, &x, o.arena));
    check_fails(QZ_SHAPE, "residual must be", qz_layer_forward(o.model, &layer, (qz_batch){1, 256}, &x, o.arena));
    check_fails(QZ_SHAPE, "x must be",
                qz_stage_input(o.model, &layer, QZ_STAGE_QKV, (qz_batch){1, 257}, &x, NULL, &wide));
    check_fails(QZ_SHAPE, "carry must be",
                qz_stage_apply(o.model, &layer, QZ_STAGE_GATE_UP, (qz_batch){1, 256},
                               &(qz_tensor){x.data, QZ_F32, QZ_HOST, 2, {256, 64}, {64, 1}}, NULL, &x, o.arena));
    close_model(&o);
}
