/* Forward values of golden/ops on every backend of the host. */
#include "testing/op_fixture.h"

static void run_rmsnorm(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x")),
              w = fixture_input(f, "w");
    const float offset = strncmp(f->name, "rmsnorm_gemma", 13) == 0 ? 1 : 0;
    check_ok(qz_op_rmsnorm(f->backend, &y, &x, &w, (float)fixture_parameter(f, "eps", 1e-6), offset));
    fixture_check(f, "y", &all);
}

static void run_swiglu(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), gate = fixture_flat(fixture_input(f, "gate")),
              up = fixture_flat(fixture_input(f, "up"));
    check_ok(qz_op_swiglu(f->backend, &y, &gate, &up));
    fixture_check(f, "y", &all);
}

static void run_geglu(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), gate = fixture_flat(fixture_input(f, "gate")),
              up = fixture_flat(fixture_input(f, "up"));
    check_ok(qz_op_geglu(f->backend, &y, &gate, &up));
    fixture_check(f, "y", &all);
}

static void run_softcap(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x"));
    const double cap = fixture_parameter(f, "cap", 0);
    cr_assert(cap > 0, "%s has no cap", f->name);
    check_ok(qz_op_softcap(f->backend, &y, &x, (float)cap));
    fixture_check(f, "y", &all);
}

static void run_linear(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x")),
              w = fixture_input(f, "w"), b = {0};
    const bool bias = qz_safetensors_find(f->file, "b") != NULL;
    if (bias) b = fixture_input(f, "b");
    check_ok(qz_op_linear(f->backend, &y, &x, &w, bias ? &b : NULL, false));
    fixture_check(f, "y", &all);
}

static void run_embedding(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), w = fixture_input(f, "w");
    check_ok(qz_op_embedding(f->backend, &y, &w, fixture_indices(f, "ids")));
    fixture_check(f, "y", &all);
}

/* (B, H, T, D) seen as (B, T, H, D) */
static qz_tensor by_token(qz_tensor t)
{
    qz_tensor out = t;
    cr_assert(t.ndim == 4);
    for (int i = 0; i < 2; i++) {
        out.shape[1 + i] = t.shape[2 - i];
        out.stride[1 + i] = t.stride[2 - i];
    }
    return out;
}

static void run_sdpa(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = by_token(all);
    qz_tensor q = by_token(fixture_input(f, "q")), k = by_token(fixture_input(f, "k")),
              v = by_token(fixture_input(f, "v"));
    const double scale = fixture_parameter(f, "scale", 1 / sqrt((double)q.shape[3]));
    const qz_attention how = {.scale = (float)scale,
                              .window = (int64_t)fixture_parameter(f, "window", 0),
                              .softcap = (float)fixture_parameter(f, "cap", 0)};
    check_ok(qz_op_attention(f->backend, &y, NULL, &q, &k, &v, &how));
    fixture_check(f, "y", &all);
}

static void run_rope(const op_fixture *f)
{
    qz_tensor x = fixture_input(f, "x"), heads = by_token(x);
    const int64_t tokens = heads.shape[1], half = heads.shape[3] / 2;
    const int first = (int)fixture_parameter(f, "positions", 0); /* "0..8" */
    float *cosines = qz_arena_array(f->arena, float, (size_t)(tokens * half));
    float *sines = qz_arena_array(f->arena, float, (size_t)(tokens * half));
    int32_t *rows = qz_arena_array(f->arena, int32_t, (size_t)tokens);
    for (int64_t i = 0; i < tokens * half; i++) {
        const double angle =
            (double)(first + i / half) * pow(fixture_parameter(f, "theta", 1e4), -(double)(i % half) / (double)half);
        cosines[i] = (float)cos(angle);
        sines[i] = (float)sin(angle);
        rows[i / half] = (int32_t)(i / half);
    }
    qz_tensor c = qz_tensor_2d(cosines, QZ_F32, tokens, half), s = qz_tensor_2d(sines, QZ_F32, tokens, half);
    for (int64_t b = 0; b < heads.shape[0]; b++) {
        qz_tensor one = qz_tensor_3d((float *)x.data + b * heads.stride[0], QZ_F32, tokens, heads.shape[2], 2 * half);
        one.stride[0] = heads.stride[1];
        one.stride[1] = heads.stride[2];
        check_ok(qz_op_rope(f->backend, &one, &c, &s, rows, false));
    }
    fixture_check(f, "y", &x);
}

static const fixture_op operations[] = {
    {"rmsnorm", run_rmsnorm}, {"swiglu", run_swiglu},       {"linear", run_linear}, {"geglu_tanh", run_geglu},
    {"softcap", run_softcap}, {"embedding", run_embedding}, {"sdpa", run_sdpa},     {"rope_apply", run_rope}};

Test(kernels_golden, forward_values)
{
    fixture_run_all(operations, sizeof operations / sizeof *operations);
}
