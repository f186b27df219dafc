/* Attention and the rotary embedding of golden/ops, forwards and backwards, on every backend of the host. */
#include "testing/op_fixture.h"

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

static qz_tensor sums(const op_fixture *f, const qz_tensor *q)
{
    float *data = qz_arena_array(f->arena, float, (size_t)(q->shape[0] * q->shape[1] * q->shape[2]));
    cr_assert(data != NULL);
    return qz_tensor_3d(data, QZ_F32, q->shape[0], q->shape[1], q->shape[2]);
}

static void run_sdpa(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = by_token(all), dy = by_token(fixture_input(f, "dy"));
    qz_tensor q = by_token(fixture_input(f, "q")), k = by_token(fixture_input(f, "k"));
    qz_tensor v = by_token(fixture_input(f, "v")), lse = sums(f, &q), delta = sums(f, &q);
    qz_tensor grad_q = fixture_output(f, "dq"), grad_k = fixture_output(f, "dk"), grad_v = fixture_output(f, "dv");
    qz_tensor dq = by_token(grad_q), dk = by_token(grad_k), dv = by_token(grad_v);
    const double scale = fixture_parameter(f, "scale", 1 / sqrt((double)q.shape[3]));
    const qz_attention how = {.scale = (float)scale,
                              .window = (int64_t)fixture_parameter(f, "window", 0),
                              .softcap = (float)fixture_parameter(f, "cap", 0)};
    check_ok(qz_op_attention(f->backend, &y, &lse, &q, &k, &v, &how));
    check_ok(qz_op_attention_grad(f->backend, &dq, &dk, &dv, &delta, &dy, &y, &lse, &q, &k, &v, &how));
    fixture_check(f, "y", &all);
    fixture_check(f, "dq", &grad_q);
    fixture_check(f, "dk", &grad_k);
    fixture_check(f, "dv", &grad_v);
}

/* Tables of the positions, and of each token its row. */
typedef struct angles {
    qz_tensor cos, sin;
    int32_t *rows;
} angles;

static angles angles_of(const op_fixture *f, int64_t tokens, int64_t half)
{
    const int first = (int)fixture_parameter(f, "positions", 0); /* "0..8" */
    angles a = {.rows = qz_arena_array(f->arena, int32_t, (size_t)tokens)};
    a.cos = qz_tensor_2d(qz_arena_array(f->arena, float, (size_t)(tokens * half)), QZ_F32, tokens, half);
    a.sin = qz_tensor_2d(qz_arena_array(f->arena, float, (size_t)(tokens * half)), QZ_F32, tokens, half);
    for (int64_t i = 0; i < tokens * half; i++) {
        const double angle =
            (double)(first + i / half) * pow(fixture_parameter(f, "theta", 1e4), -(double)(i % half) / (double)half);
        qz_f32(&a.cos)[i] = (float)cos(angle);
        qz_f32(&a.sin)[i] = (float)sin(angle);
        a.rows[i / half] = (int32_t)(i / half);
    }
    return a;
}

static void rotate(const op_fixture *f, const char *result, const char *input, bool inverse)
{
    qz_tensor x = fixture_input(f, input), heads = by_token(x);
    const angles a = angles_of(f, heads.shape[1], heads.shape[3] / 2);
    for (int64_t b = 0; b < heads.shape[0]; b++) {
        qz_tensor one =
            qz_tensor_3d((float *)x.data + b * heads.stride[0], QZ_F32, heads.shape[1], heads.shape[2], heads.shape[3]);
        one.stride[0] = heads.stride[1];
        one.stride[1] = heads.stride[2];
        check_ok(qz_op_rope(f->backend, &one, &a.cos, &a.sin, a.rows, inverse));
    }
    fixture_check(f, result, &x);
}

static void run_rope(const op_fixture *f)
{
    rotate(f, "y", "x", false);
    rotate(f, "dx", "dy", true);
}

static const fixture_op operations[] = {{"sdpa", run_sdpa}, {"rope_apply", run_rope}};

Test(kernels_golden_attention, values_and_gradients)
{
    fixture_run_all(operations, sizeof operations / sizeof *operations);
}
