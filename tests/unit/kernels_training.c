/* The operations of training at the edges, and what their wrappers refuse. kernels_backends.c compares the backends,
 * tests/grad the gradients with differences. */
#include <math.h>
#include <stdlib.h>

#include "kernels/kernels.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

static void for_backends(void (*check)(const qz_backend *backend))
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (backend->available() && backend->device == QZ_HOST) check(backend);
    }
}

/* Far from 0 the gates are steps: slope 1 or 0, never the product of 0 and infinity. */
static void check_far_gates(const qz_backend *backend)
{
    float gate[] = {0, -0.0f, 30, -30, -90, 1e4f, -1e4f, 1e30f, -1e30f, NAN};
    float one[10], dgate[10], dup[10];
    const float want[] = {0.5f, 0.5f, 1, 0, 0, 1, 0, 1, 0};
    const qz_tensor g = qz_tensor_2d(gate, QZ_F32, 1, 10), dg = qz_tensor_2d(dgate, QZ_F32, 1, 10);
    const qz_tensor du = qz_tensor_2d(dup, QZ_F32, 1, 10), ones = qz_tensor_2d(one, QZ_F32, 1, 10);
    for (int i = 0; i < 10; i++) one[i] = 1;
    for (int gelu = 0; gelu < 2; gelu++) {
        check_ok((gelu ? qz_op_geglu_grad : qz_op_swiglu_grad)(backend, &dg, &du, &ones, &g, &ones));
        for (int i = 0; i < 9; i++)
            cr_assert(fabsf(dgate[i] - want[i]) < 1e-6f, "%s, gelu %d, gate %g: %g", backend->plugin.name, gelu,
                      gate[i], dgate[i]);
        cr_assert(isnan(dgate[9]) && isnan(dup[9]));
        cr_assert(dup[7] == 1e30f && dup[8] == 0, "%s: %g %g", backend->plugin.name, dup[7], dup[8]);
    }
}

Test(kernels_training, gradients_of_far_gates)
{
    for_backends(check_far_gates);
}

/* Where the target is nearly sure, its gradient p - 1 is small, but not lost. */
static void check_sure_target(const qz_backend *backend)
{
    float z[] = {20, 0, 1, -1}, grad[4];
    double loss, rest = exp(-20.0) + exp(-19.0) + exp(-21.0);
    const int32_t target = 0;
    const qz_tensor logits = qz_tensor_2d(z, QZ_F32, 1, 4), g = qz_tensor_2d(grad, QZ_F32, 1, 4);
    const qz_tensor l = qz_tensor_1d(&loss, QZ_F64, 1);
    check_ok(qz_op_cross_entropy(backend, &l, &g, &logits, &target, 1, false));
    cr_assert(fabs(grad[0] + rest) < TOL_KERNEL_EXP * rest, "%s: %.9g, is %.9g", backend->plugin.name, grad[0], -rest);
    cr_assert(fabs(loss - rest) < TOL_KERNEL_EXP * rest, "%s: loss %.9g", backend->plugin.name, loss);
}

Test(kernels_training, cross_entropy_of_a_sure_target)
{
    for_backends(check_sure_target);
}

/* Large and infinite logits; rows that do not count are zero, and when accumulating stay as they are. */
static void check_entropy_edges(const qz_backend *backend)
{
    float z[] = {1e30f, 0, -INFINITY, 88, 88, 88, NAN, 1, 2}, grad[9];
    double loss[3];
    const int32_t target[] = {0, 1, -100};
    const qz_tensor logits = qz_tensor_2d(z, QZ_F32, 3, 3), g = qz_tensor_2d(grad, QZ_F32, 3, 3);
    const qz_tensor l = qz_tensor_1d(loss, QZ_F64, 3);
    const float want[] = {0, 0, 0, 1, -2, 1, 0, 0, 0};
    for (int i = 0; i < 9; i++) grad[i] = NAN;
    check_ok(qz_op_cross_entropy(backend, &l, &g, &logits, target, 3, false));
    cr_assert(loss[0] == 0 && fabs(loss[1] - log(3)) < 1e-12 && loss[2] == 0, "%g %g %g", loss[0], loss[1], loss[2]);
    for (int i = 0; i < 9; i++) cr_assert(fabsf(grad[i] - want[i]) < 1e-6f, "%d: %g", i, grad[i]);
    check_ok(qz_op_cross_entropy(backend, &l, &g, &logits, target, -3, true));
    for (int i = 0; i < 9; i++) cr_assert(fabsf(grad[i]) < 1e-6f, "%d: %g", i, grad[i]);
}

Test(kernels_training, cross_entropy_at_the_edges)
{
    for_backends(check_entropy_edges);
}

/* A student equal to its teacher has nothing to learn; a teacher's entry of probability 0 counts nothing. */
static void check_divergence_edges(const qz_backend *backend)
{
    float a[] = {3, -INFINITY, 1, 5, 6, -70}, b[] = {3, 2, 1, 5, 6, -70}, grad[6];
    double loss[2];
    const qz_tensor teacher = qz_tensor_2d(a, QZ_F32, 2, 3), student = qz_tensor_2d(b, QZ_F32, 2, 3);
    const qz_tensor g = qz_tensor_2d(grad, QZ_F32, 2, 3), l = qz_tensor_1d(loss, QZ_F64, 2);
    check_ok(qz_op_distill(backend, &l, &g, &student, &teacher, NULL, 1, 1, false));
    const double sum = exp(3) + exp(2) + exp(1), kept = exp(3) + exp(1);
    cr_assert(fabs(loss[0] - log(sum / kept)) < 1e-12, "%s: %.17g", backend->plugin.name, loss[0]);
    cr_assert(fabs(grad[1] - exp(2) / sum) < 1e-7 && fabs(loss[1]) < 1e-15, "%g %g", grad[1], loss[1]);
    for (int i = 3; i < 6; i++) cr_assert(grad[i] == 0, "%s: %g", backend->plugin.name, grad[i]);
}

Test(kernels_training, distill_at_the_edges)
{
    for_backends(check_divergence_edges);
}

enum { DROPS = 100000 };

static void dropped(float *out, const qz_backend *backend, float p, uint64_t seed, uint64_t first, int count)
{
    for (int i = 0; i < count; i++) out[i] = 1;
    const qz_tensor x = qz_tensor_2d(out, QZ_F32, 1, count);
    check_ok(qz_op_dropout(backend, &x, &x, p, seed, first));
}

static int equal_places(const float *a, const float *b)
{
    int equal = 0;
    for (int i = 0; i < DROPS; i++) equal += (a[i] > 0) == (b[i] > 0);
    return equal;
}

/* The share, independence of neighbours in seed and place, and a part that equals that part of the whole. */
static void check_dropout(const qz_backend *backend)
{
    static float a[DROPS], b[DROPS];
    int kept = 0;
    dropped(a, backend, 0.25f, 7, 100, DROPS);
    for (int i = 0; i < DROPS; i++) {
        cr_assert(a[i] == 0 || a[i] == 1 / 0.75f, "%g", a[i]);
        kept += a[i] > 0;
    }
    cr_assert(abs(kept - 75000) < 600, "%d kept", kept); /* standard deviation 137 */
    dropped(b, backend, 0.25f, 7, 600, 1000);
    cr_assert(memcmp(b, a + 500, 1000 * sizeof *b) == 0);
    dropped(b, backend, 0.25f, 8, 100, DROPS);
    cr_assert(abs(equal_places(a, b) - 62500) < 700, "seeds: %d", equal_places(a, b));
    dropped(b, backend, 0.25f, 7, 101, DROPS);
    cr_assert(abs(equal_places(a, b) - 62500) < 700, "places: %d", equal_places(a, b));
    dropped(b, backend, 0, 7, 100, DROPS);
    for (int i = 0; i < DROPS; i++) cr_assert(b[i] == 1);
}

Test(kernels_training, dropout_keeps_its_share)
{
    for_backends(check_dropout);
}

/* Rows of one token are added in the order of the tokens: 1 is lost beside 1e8, or kept when that has gone. */
static void check_order(const qz_backend *backend)
{
    float dy[] = {1e8f, 1, 1, -1e8f, -1e8f, 1}, table[4] = {0};
    const int32_t ids[] = {1, 1, 1};
    const qz_tensor d = qz_tensor_2d(dy, QZ_F32, 3, 2), t = qz_tensor_2d(table, QZ_F32, 2, 2);
    check_ok(qz_op_embedding_grad(backend, &t, &d, ids, 1));
    cr_assert(table[0] == 0 && table[1] == 0 && table[2] == 0 && table[3] == -1e8f, "%g %g", table[2], table[3]);
}

Test(kernels_training, embedding_rows_are_added_in_order)
{
    for_backends(check_order);
}

Test(kernels_training, refusals)
{
    static float x[64];
    static double loss[8];
    const qz_backend *ref = qz_backend_at(0);
    qz_tensor a = qz_tensor_2d(x, QZ_F32, 3, 4), b = qz_tensor_2d(x + 16, QZ_F32, 3, 5), w = qz_tensor_1d(x, QZ_F32, 4);
    qz_tensor other = qz_tensor_2d(x + 32, QZ_F32, 3, 4), l = qz_tensor_1d(loss, QZ_F64, 3);
    int32_t ids[] = {0, 1, 4};
    check_fails(QZ_SHAPE, "linear_grad_w: dw (N,K) is (3, 4)", qz_op_linear_grad_w(ref, &a, &b, &other));
    check_fails(QZ_SHAPE, "linear_grad_x: w (N,K)", qz_op_linear_grad_x(ref, &a, &b, &other, false));
    check_fails(QZ_SHAPE, "column_sums: sums (N)", qz_op_column_sums(ref, &w, &b));
    check_fails(QZ_ARG, "ids[2] is 4", qz_op_embedding_grad(ref, &a, &other, ids, 1));
    check_fails(QZ_ARG, "dx is dy", qz_op_rmsnorm_grad(ref, &a, NULL, &a, &other, &w, 0, 0, true));
    check_fails(QZ_ARG, "dgate and dup are the same", qz_op_swiglu_grad(ref, &a, &a, &other, &other, &other));
    check_fails(QZ_ARG, "the cap is 0", qz_op_softcap_grad(ref, &a, &a, &a, 0));
    check_fails(QZ_SHAPE, "multiply: y is (3, 4), but x is (3, 5)", qz_op_multiply(ref, &a, &a, &b));
    check_fails(QZ_SHAPE, "add_scaled: y is (3, 4)", qz_op_add_scaled(ref, &a, &b, 1));
    check_fails(QZ_ARG, "the share to drop is 1", qz_op_dropout(ref, &a, &a, 1, 0, 0));
    check_fails(QZ_ARG, "the share to drop is nan", qz_op_dropout(ref, &a, &a, NAN, 0, 0));
    check_fails(QZ_ARG, "target[2] is 4", qz_op_cross_entropy(ref, &l, &a, &other, ids, 1, false));
    ids[2] = -1;
    check_fails(QZ_ARG, "grad is logits", qz_op_cross_entropy(ref, &l, &a, &a, ids, 1, true));
    check_fails(QZ_ARG, "grad is student", qz_op_distill(ref, &l, &a, &a, &other, NULL, 1, 1, true));
    check_fails(QZ_ARG, "the temperature is 0", qz_op_distill(ref, &l, &a, &a, &other, NULL, 0, 1, false));
    check_ok(qz_op_distill(ref, &l, &a, &a, &other, ids, 1, 1, false));
}
