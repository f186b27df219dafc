/* Fake quantization against torch: golden/train/op_lsq (learned steps), op_fake_linear (a linear with rounded weights
 * and activations) and op_pact, of which y and dx are ours too: values and the strict rule; its gradient by the clip
 * value leaves the error of rounding out, LSQ's does not. On every backend of the host. */
#include <math.h>
#include <stdio.h>

#include "testing/op_fixture.h"

static op_fixture open_fixture(const char *name, const qz_backend *backend)
{
    op_fixture f = {.name = name, .backend = backend};
    check_ok(qz_safetensors_open(&f.file, golden_path(name)));
    check_ok(qz_arena_new(&f.arena, "golden"));
    return f;
}

static void close_fixture(op_fixture *f)
{
    qz_arena_free(f->arena);
    qz_safetensors_close(f->file);
}

/* Largest distance of `got` from the stored tensor, over the largest of its values (`relative`) or as it is. */
static double distance(const op_fixture *f, const char *name, const float *got, bool relative)
{
    const qz_tensor want = fixture_input(f, name);
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < qz_tensor_count(&want); i++) {
        largest = fmax(largest, fabs((double)qz_f32(&want)[i]));
        worst = fmax(worst, fabs((double)qz_f32(&want)[i] - (double)got[i]));
    }
    return relative && largest > 0 ? worst / largest : worst;
}

static qz_tensor zeros_like(const op_fixture *f, const qz_tensor *x)
{
    qz_tensor t = *x;
    t.data = qz_arena_calloc(f->arena, (size_t)qz_tensor_count(x) * sizeof(float));
    cr_assert(t.data != NULL);
    return t;
}

static const struct {
    const char *name;
    qz_format format;
    bool is_signed;
    int high;
} kinds[] = {{"int2", QZ_FORMAT_INT2, true, 1},
             {"int4", QZ_FORMAT_INT4, true, 7},
             {"int8", QZ_FORMAT_INT8, true, 127},
             {"uint4", QZ_FORMAT_INT4, false, 15},
             {"uint8", QZ_FORMAT_INT8, false, 255}};

static const struct {
    const char *name;
    int rows, cols;
} cuts[] = {{"tensor", 0, 0}, {"channel", 1, 0}, {"group", 1, 32}};

/* The grids of kind and cut, with scales as stored in `scale` and zeros of 0 for unsigned ones. */
static qz_qtensor grids_of(const op_fixture *f, int kind, int cut, const qz_tensor *x, const char *scale)
{
    const qz_scheme s = {.format = kinds[kind].format,
                         .symmetric = kinds[kind].is_signed,
                         .piece_rows = cuts[cut].rows,
                         .piece_cols = cuts[cut].cols};
    const int64_t pieces = qz_scheme_pieces(&s, x->shape[0], x->shape[1]);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &s, x->shape[0], x->shape[1], f->arena));
    const qz_tensor scales = fixture_input(f, scale);
    cr_assert(qz_tensor_count(&scales) == pieces);
    memcpy(q.scales, scales.data, (size_t)pieces * sizeof(float));
    if (q.zeros) memset(q.zeros, 0, (size_t)pieces);
    return q;
}

static void check_lsq(const op_fixture *f, int kind, int cut)
{
    char name[4][64];
    static const char *parts[] = {"scale", "y", "dx", "dscale"};
    for (int i = 0; i < 4; i++) snprintf(name[i], 64, "%s.%s.%s", kinds[kind].name, cuts[cut].name, parts[i]);
    const qz_tensor x = fixture_input(f, "x"), dy = fixture_input(f, "dy");
    const qz_qtensor q = grids_of(f, kind, cut, &x, name[0]);
    const int64_t pieces = qz_scheme_pieces(&q.scheme, q.rows, q.cols);
    const double each = (double)(q.rows * q.cols) / (double)pieces;
    qz_tensor y = zeros_like(f, &x), dx = zeros_like(f, &x);
    qz_tensor dscales = qz_tensor_1d(qz_arena_calloc(f->arena, (size_t)pieces * 4), QZ_F32, pieces);
    check_ok(qz_op_fake_quant(f->backend, &y, &x, &q));
    check_ok(qz_op_fake_quant_grad(f->backend, &dx, &dscales, NULL, &dy, &x, &q, QZ_STE_LSQ,
                                   (float)(1 / sqrt(each * kinds[kind].high))));
    float largest = 0;
    for (int64_t i = 0; i < pieces; i++) largest = fmaxf(largest, q.scales[i]);
    cr_assert(distance(f, name[1], qz_f32(&y), false) <= TOL_LSQ_VALUE * largest, "%s: %g", name[1],
              distance(f, name[1], qz_f32(&y), false));
    /* torch divides dy by the scale and multiplies it again */
    cr_assert(distance(f, name[2], qz_f32(&dx), true) <= TOL_KERNEL_ROUNDING, "%s", name[2]);
    cr_assert(distance(f, name[3], qz_f32(&dscales), true) <= TOL_OP_F32, "%s: %g", name[3],
              distance(f, name[3], qz_f32(&dscales), true));
}

Test(kernels_golden_quantize, learned_steps)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available() || qz_backend_at(b)->device != QZ_HOST) continue;
        op_fixture f = open_fixture("train/op_lsq.safetensors", qz_backend_at(b));
        for (int kind = 0; kind < 5; kind++)
            for (int cut = 0; cut < 3; cut++) check_lsq(&f, kind, cut);
        close_fixture(&f);
    }
}

/* y = fq(x) fq(w)^T; dw through the rule, dx plain. */
static void check_fake_linear(const op_fixture *f, qz_ste rule, const char *prefix)
{
    char name[3][32];
    static const char *parts[] = {"y", "dw", "dx"};
    for (int i = 0; i < 3; i++) snprintf(name[i], 32, "%s.%s", prefix, parts[i]);
    const qz_tensor x = fixture_flat(fixture_input(f, "x")), w = fixture_input(f, "w");
    const qz_tensor dy = fixture_flat(fixture_input(f, "dy"));
    const qz_scheme scheme = {.format = QZ_FORMAT_INT4, .symmetric = true, .piece_rows = 1, .piece_cols = 32};
    const qz_act_scheme act = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127.5f};
    qz_tensor rx = zeros_like(f, &x), rw = zeros_like(f, &w), y = zeros_like(f, &dy);
    qz_tensor dx = zeros_like(f, &x), dw = zeros_like(f, &w);
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &scheme, w.shape[0], w.shape[1], f->arena));
    check_ok(qz_op_fit_ranges(f->backend, &q, &w));
    check_ok(qz_op_fake_quant(f->backend, &rw, &w, &q));
    check_ok(qz_op_fake_quant_activations(f->backend, &rx, NULL, &x, &act, NULL));
    check_ok(qz_op_linear(f->backend, &y, &rx, &rw, NULL, false));
    check_ok(qz_op_linear_grad_x(f->backend, &dx, &dy, &rw, false));
    check_ok(qz_op_linear_grad_w(f->backend, &dw, &dy, &rx));
    check_ok(qz_op_fake_quant_grad(f->backend, &dw, NULL, NULL, &dw, &w, &q, rule, 1));
    const float *got[] = {qz_f32(&y), qz_f32(&dw), qz_f32(&dx)};
    for (int i = 0; i < 3; i++)
        cr_assert(distance(f, name[i], got[i], true) <= TOL_FAKE_LINEAR, "%s on %s: %g", name[i],
                  f->backend->plugin.name, distance(f, name[i], got[i], true));
}

Test(kernels_golden_quantize, linear_with_both_quantizers)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available() || qz_backend_at(b)->device != QZ_HOST) continue;
        op_fixture f = open_fixture("train/op_fake_linear.safetensors", qz_backend_at(b));
        check_fake_linear(&f, QZ_STE_PASS, "identity");
        check_fake_linear(&f, QZ_STE_CLIP, "clipped");
        close_fixture(&f);
    }
}

/* scale = alpha / (2^b - 1), zero 0 */
static void check_pact(const op_fixture *f, int kind)
{
    char name[3][32];
    static const char *parts[] = {"alpha", "y", "dx"};
    for (int i = 0; i < 3; i++) snprintf(name[i], 32, "%s.%s", kinds[kind].name, parts[i]);
    const qz_tensor x = fixture_input(f, "x"), dy = fixture_input(f, "dy");
    qz_tensor y = zeros_like(f, &x), dx = zeros_like(f, &x);
    qz_qtensor q = grids_of(f, kind, 0, &x, name[0]);
    const float alpha = q.scales[0];
    q.scales[0] = alpha / (float)kinds[kind].high;
    check_ok(qz_op_fake_quant(f->backend, &y, &x, &q));
    check_ok(qz_op_fake_quant_grad(f->backend, &dx, NULL, NULL, &dy, &x, &q, QZ_STE_LSQ, 1));
    cr_assert(distance(f, name[1], qz_f32(&y), false) <= TOL_FAKE_LINEAR * alpha, "%s: %g", name[1],
              distance(f, name[1], qz_f32(&y), false));
    cr_assert(distance(f, name[2], qz_f32(&dx), false) == 0, "%s", name[2]);
}

Test(kernels_golden_quantize, clip_value)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available() || qz_backend_at(b)->device != QZ_HOST) continue;
        op_fixture f = open_fixture("train/op_pact.safetensors", qz_backend_at(b));
        check_pact(&f, 3);
        check_pact(&f, 4);
        close_fixture(&f);
    }
}
