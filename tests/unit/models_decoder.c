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

/* ---- experts ---- */

enum { EXPERTS = 4 };

/* Tokens that each input of a layer was shown, and in which order the inputs came. */
typedef struct watched {
    int64_t tokens[2 + 2 * EXPERTS];
    int order[2 + 2 * EXPERTS], calls;
    float up_to; /* inputs of down are multiplied by it */
} watched;

static qz_status count(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    watched *w = context;
    if (point != QZ_POINT_INPUT) return QZ_OK;
    w->tokens[input] += x->shape[0];
    w->order[w->calls++] = input;
    for (int64_t i = 0; input > 1 && qz_input_stage(input) == QZ_STAGE_DOWN && i < qz_tensor_count(x); i++)
        qz_f32(x)[i] *= w->up_to;
    return QZ_OK;
}

Test(decoder, experts_get_their_tokens_in_order)
{
    opened o = open_model(golden_path("models/mixtral"));
    qz_layer layer;
    watched w = {.up_to = 1};
    qz_tensor a = matrix(o.arena, S * L, 64);
    fill(&a, 7);
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    layer.tap = (qz_tap){count, &w};
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
    int64_t all = 0;
    for (int e = 0; e < EXPERTS; e++) {
        cr_assert(w.tokens[2 + 2 * e] == w.tokens[3 + 2 * e]);
        all += w.tokens[2 + 2 * e];
    }
    cr_assert(all == 2 * S * L && w.tokens[0] == S * L && w.tokens[1] == S * L);
    for (int i = 1; i < w.calls; i++) cr_assert(w.order[i] > w.order[i - 1]);
    close_model(&o);
}

/* With a router of zeros all logits are equal, so the first two experts get everything. */
Test(decoder, experts_without_tokens_are_not_shown)
{
    opened o = open_model(golden_path("models/mixtral"));
    qz_layer layer;
    watched w = {.up_to = 1};
    qz_tensor a = matrix(o.arena, S * L, 64), b = matrix(o.arena, S * L, 64);
    fill(&a, 8), fill(&b, 8);
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    memset(layer.router.data, 0, (size_t)qz_tensor_count(&layer.router) * sizeof(float));
    layer.tap = (qz_tap){count, &w};
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
    cr_assert(w.calls == 6 && w.tokens[2] == S * L && w.tokens[4] == S * L && w.tokens[6] == 0 && w.tokens[8] == 0);
    w = (watched){.up_to = 1};
    layer.all_tokens = (const uint8_t[EXPERTS]){0, 0, 1, 0};
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &b, o.arena));
    cr_assert(w.calls == 8 && w.tokens[6] == S * L && w.tokens[7] == S * L && w.tokens[8] == 0);
    cr_assert(same(&a, &b));
    close_model(&o);
}

/* Observed, a layer with experts is left at the residual that the attention makes, and every tap was called. */
Test(decoder, observing_leaves_the_experts_share_out)
{
    static const char *const folders[] = {"models/mixtral", "models/qwen3_moe", "models/gemma2", "models/phi3"};
    for (int f = 0; f < 4; f++) {
        opened o = open_model(golden_path(folders[f]));
        qz_layer layer;
        watched w = {.up_to = 0}, v = {.up_to = 1};
        qz_tensor a = matrix(o.arena, S * L, 64), b = matrix(o.arena, S * L, 64);
        fill(&a, 9), fill(&b, 9);
        check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
        layer.tap = (qz_tap){count, &w}; /* the input of down is zero: nothing is added */
        check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
        layer.tap.context = &v;
        check_ok(qz_layer_observe(o.model, &layer, (qz_batch){S, L}, &b, o.arena));
        cr_assert(memcmp(w.tokens, v.tokens, sizeof w.tokens) == 0 && same(&a, &b), "%s", folders[f]);
        close_model(&o);
    }
}

Test(decoder, experts_do_not_run_stage_by_stage)
{
    opened o = open_model(golden_path("models/qwen3_moe"));
    qz_layer layer;
    qz_tensor x = matrix(o.arena, L, 64), carry = matrix(o.arena, L, 64);
    fill(&x, 10);
    check_ok(qz_model_layer(o.model, 1, &layer, o.arena));
    check_fails(QZ_ARG, "layer 1 has a router",
                qz_stage_apply(o.model, &layer, QZ_STAGE_GATE_UP, (qz_batch){1, L}, &x, NULL, &carry, o.arena));
    close_model(&o);
}

static qz_status spoil(void *context, const qz_layer *layer, int input, qz_point point, const qz_tensor *x)
{
    if (input == qz_input_of(QZ_STAGE_GATE_UP, *(int *)context) && point == QZ_POINT_INPUT)
        memset(x->data, 0, (size_t)qz_tensor_count(x) * sizeof(float));
    return QZ_OK;
}

/* What a tap does to the tokens of the first expert does not reach the router or the other experts. */
Test(decoder, taps_change_copies_of_an_experts_tokens)
{
    opened o = open_model(golden_path("models/mixtral"));
    qz_layer layer;
    qz_tensor a = matrix(o.arena, S * L, 64), b = matrix(o.arena, S * L, 64);
    fill(&a, 11), fill(&b, 11);
    int first = 0;
    check_ok(qz_model_layer(o.model, 0, &layer, o.arena));
    layer.tap = (qz_tap){spoil, &first};
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &a, o.arena));
    layer.tap = (qz_tap){NULL, NULL};
    const qz_tensor *down = &qz_layer_part(&layer, QZ_ROLE_DOWN, 0)->weight;
    memset(down->data, 0, (size_t)qz_tensor_count(down) * sizeof(float));
    check_ok(qz_layer_forward(o.model, &layer, (qz_batch){S, L}, &b, o.arena));
    cr_assert(same(&a, &b));
    close_model(&o);
}

/* ---- memory and arguments ---- */

Test(decoder, scratch_is_given_back_and_foretold)
{
    static const char *const folders[] = {"models/llama", "models/qwen2",     "models/qwen3",   "models/gemma2",
                                          "models/phi3",  "models/phi3_long", "models/mixtral", "models/qwen3_moe"};
    for (int f = 0; f < 8; f++) {
        opened o = open_model(golden_path(folders[f]));
        qz_layer layer;
        qz_arena *scratch;
        qz_batch batch = {40, 128};
        qz_tensor a = matrix(o.arena, 40 * 128, 64);
        fill(&a, 5);
        check_ok(qz_arena_new(&scratch, "scratch"));
        for (int i = 0; i < 2; i++) {
            check_ok(qz_model_layer(o.model, i, &layer, o.arena));
            check_ok(qz_layer_forward(o.model, &layer, batch, &a, scratch));
            cr_assert(qz_arena_used(scratch) == 0);
        }
        cr_assert(qz_arena_peak(scratch) <= qz_model_scratch_bytes(o.model, batch) + (1 << 20));
        cr_assert(qz_arena_peak(scratch) * 10 >= qz_model_scratch_bytes(o.model, batch) * 9);
        qz_arena_free(scratch);
        close_model(&o);
    }
}

static void fail_in(const char *folder)
{
    opened o = open_model(golden_path(folder));
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

Test(decoder, failing_allocations_leave_nothing)
{
    fail_in("models/qwen3");
    fail_in("models/mixtral");
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
