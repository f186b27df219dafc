/* Every gradient of kernels/ that works on rows (attention's and rounding's have files of their own) against
 * differences of the operation, written down here once more in double. A row of the table is an operation: what it
 * computes, and how its gradients are asked for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "testing/gradient.h"

enum { INPUTS = 3, MOST = 4096, ROWS = 9 };

/* Inputs and the weights of the results, as doubles that are exactly floats; T, C, N as the row says. */
typedef struct problem {
    const struct operation *op;
    int t, c, n;
    double in[INPUTS][MOST], weight[MOST];
    int32_t ids[ROWS];
    const qz_backend *backend;
} problem;

typedef struct operation {
    const char *name;
    /* The extents of input i (rows 1: a vector); false when there is none. */
    bool (*extents)(const problem *p, int i, int *rows, int *cols);
    double (*value)(const problem *p); /* sum of weight times result */
    void (*gradients)(const problem *p, float *grad[INPUTS]);
} operation;

/* ---- views of floats made from the doubles ---- */

static qz_tensor view(const double *x, int rows, int cols)
{
    float *data = malloc((size_t)rows * (size_t)cols * sizeof *data);
    for (int i = 0; i < rows * cols; i++) data[i] = (float)x[i];
    return qz_tensor_2d(data, QZ_F32, rows, cols);
}

static qz_tensor vector(const double *x, int count)
{
    qz_tensor t = view(x, 1, count);
    return qz_tensor_1d(t.data, QZ_F32, count);
}

/* ---- linear: x (T, C), w (N, C), bias (N) ---- */

static bool linear_extents(const problem *p, int i, int *rows, int *cols)
{
    *rows = i == 0 ? p->t : i == 1 ? p->n : 1;
    *cols = i == 2 ? p->n : p->c;
    return true;
}

static double linear_value(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < p->t; t++) {
        for (int n = 0; n < p->n; n++) {
            double y = p->in[2][n];
            for (int c = 0; c < p->c; c++) y += p->in[0][t * p->c + c] * p->in[1][n * p->c + c];
            sum += p->weight[t * p->n + n] * y;
        }
    }
    return sum;
}

static void linear_gradients(const problem *p, float *grad[INPUTS])
{
    qz_tensor dy = view(p->weight, p->t, p->n), x = view(p->in[0], p->t, p->c), w = view(p->in[1], p->n, p->c);
    qz_tensor dx = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c), dw = qz_tensor_2d(grad[1], QZ_F32, p->n, p->c);
    qz_tensor db = qz_tensor_1d(grad[2], QZ_F32, p->n);
    check_ok(qz_op_linear_grad_x(p->backend, &dx, &dy, &w, false));
    check_ok(qz_op_linear_grad_w(p->backend, &dw, &dy, &x));
    check_ok(qz_op_column_sums(p->backend, &db, &dy));
    free(dy.data), free(x.data), free(w.data);
}

/* ---- embedding: table (N, C), the ids repeat; times 3 ---- */

static bool embedding_extents(const problem *p, int i, int *rows, int *cols)
{
    *rows = p->n;
    *cols = p->c;
    return i == 0;
}

static double embedding_value(const problem *p)
{
    double sum = 0;
    for (int i = 0; i < p->t * p->c; i++) sum += p->weight[i] * 3 * p->in[0][p->ids[i / p->c] * p->c + i % p->c];
    return sum;
}

static void embedding_gradients(const problem *p, float *grad[INPUTS])
{
    qz_tensor dy = view(p->weight, p->t, p->c), table = qz_tensor_2d(grad[0], QZ_F32, p->n, p->c);
    check_ok(qz_op_embedding_grad(p->backend, &table, &dy, p->ids, 3));
    free(dy.data);
}

/* ---- rmsnorm: x (T, C), w (C), with the offset 1 ---- */

static bool norm_extents(const problem *p, int i, int *rows, int *cols)
{
    *rows = i == 0 ? p->t : 1;
    *cols = p->c;
    return i < 2;
}

static double norm_value(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < p->t; t++) {
        const double *x = p->in[0] + t * p->c;
        double squares = 0;
        for (int c = 0; c < p->c; c++) squares += x[c] * x[c];
        for (int c = 0; c < p->c; c++)
            sum += p->weight[t * p->c + c] * x[c] / sqrt(squares / p->c + 0.03125) * (1 + p->in[1][c]);
    }
    return sum;
}

static void norm_gradients(const problem *p, float *grad[INPUTS])
{
    qz_tensor dy = view(p->weight, p->t, p->c), x = view(p->in[0], p->t, p->c), w = vector(p->in[1], p->c);
    qz_tensor dx = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c), dw = qz_tensor_1d(grad[1], QZ_F32, p->c);
    check_ok(qz_op_rmsnorm_grad(p->backend, &dx, &dw, &dy, &x, &w, 0.03125f, 1, false));
    free(dy.data), free(x.data), free(w.data);
}

/* ---- elementwise, of two (T, C) or of one ---- */

static bool two_extents(const problem *p, int i, int *rows, int *cols)
{
    *rows = p->t;
    *cols = p->c;
    return i < 2;
}

static bool one_extents(const problem *p, int i, int *rows, int *cols)
{
    return two_extents(p, i, rows, cols) && i == 0;
}

static double sum_of(const problem *p, double (*f)(double a, double b))
{
    double sum = 0;
    for (int i = 0; i < p->t * p->c; i++) sum += p->weight[i] * f(p->in[0][i], p->in[1][i]);
    return sum;
}

static double silu_times(double gate, double up)
{
    return gate / (1 + exp(-gate)) * up;
}

static double gelu_times(double gate, double up)
{
    return gate / 2 * (1 + tanh(0.79788456080286535588 * (gate + 0.044715 * gate * gate * gate))) * up;
}

static double product(double a, double b)
{
    return a * b;
}

static double capped(double x, double b)
{
    (void)b;
    return 0.75 * tanh(x / 0.75);
}

static double swiglu_value(const problem *p)
{
    return sum_of(p, silu_times);
}

static double geglu_value(const problem *p)
{
    return sum_of(p, gelu_times);
}

static double multiply_value(const problem *p)
{
    return sum_of(p, product);
}

static double softcap_value(const problem *p)
{
    return sum_of(p, capped);
}

typedef qz_status gated_grad(const qz_backend *backend, const qz_tensor *dgate, const qz_tensor *dup,
                             const qz_tensor *dy, const qz_tensor *gate, const qz_tensor *up);

static void gated_gradients(const problem *p, float *grad[INPUTS], gated_grad *op)
{
    qz_tensor dy = view(p->weight, p->t, p->c), a = view(p->in[0], p->t, p->c), b = view(p->in[1], p->t, p->c);
    qz_tensor da = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c), db = qz_tensor_2d(grad[1], QZ_F32, p->t, p->c);
    check_ok(op(p->backend, &da, &db, &dy, &a, &b));
    free(dy.data), free(a.data), free(b.data);
}

static void swiglu_gradients(const problem *p, float *grad[INPUTS])
{
    gated_gradients(p, grad, qz_op_swiglu_grad);
}

static void geglu_gradients(const problem *p, float *grad[INPUTS])
{
    gated_gradients(p, grad, qz_op_geglu_grad);
}

static qz_status multiply_grad(const qz_backend *backend, const qz_tensor *da, const qz_tensor *db, const qz_tensor *dy,
                               const qz_tensor *a, const qz_tensor *b)
{
    QZ_TRY(qz_op_multiply(backend, da, dy, b));
    return qz_op_multiply(backend, db, dy, a);
}

static void multiply_gradients(const problem *p, float *grad[INPUTS])
{
    gated_gradients(p, grad, multiply_grad);
}

static void softcap_gradients(const problem *p, float *grad[INPUTS])
{
    qz_tensor dy = view(p->weight, p->t, p->c), x = view(p->in[0], p->t, p->c);
    qz_tensor dx = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c);
    check_ok(qz_op_softcap(p->backend, &x, &x, 0.75f));
    check_ok(qz_op_softcap_grad(p->backend, &dx, &dy, &x, 0.75f));
    free(dy.data), free(x.data);
}

/* ---- dropout: which elements are kept is seen on ones ---- */

static double dropout_value(const problem *p)
{
    double ones[MOST], sum = 0;
    for (int i = 0; i < p->t * p->c; i++) ones[i] = 1;
    qz_tensor kept = view(ones, p->t, p->c);
    check_ok(qz_op_dropout(p->backend, &kept, &kept, 0.5f, 3, 4));
    for (int i = 0; i < p->t * p->c; i++) sum += ((float *)kept.data)[i] > 0 ? p->weight[i] * p->in[0][i] / 0.5 : 0;
    free(kept.data);
    return sum;
}

static void dropout_gradients(const problem *p, float *grad[INPUTS])
{
    qz_tensor dy = view(p->weight, p->t, p->c), dx = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c);
    check_ok(qz_op_dropout(p->backend, &dx, &dy, 0.5f, 3, 4));
    free(dy.data);
}

/* ---- losses: logits (T, C), times 0.625; the last row of several does not count ---- */

static int counted(const problem *p)
{
    return p->t > 1 ? p->t - 1 : 1;
}

static double log_softmax(const double *z, int count, int at, double temperature)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += exp(z[i] / temperature);
    return z[at] / temperature - log(sum);
}

static double cross_entropy_value(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < counted(p); t++) sum -= log_softmax(p->in[0] + t * p->c, p->c, p->ids[t] % p->c, 1);
    return 0.625 * sum;
}

static void targets_of(const problem *p, int32_t target[ROWS])
{
    for (int t = 0; t < p->t; t++) target[t] = t < counted(p) ? p->ids[t] % p->c : -100;
}

/* The loss itself is compared as well. */
static void check_loss(const problem *p, const double loss[ROWS], double want)
{
    double sum = 0;
    for (int t = 0; t < p->t; t++) sum += 0.625 * loss[t];
    cr_assert(fabs(sum - want) <= TOL_KERNEL_SUM * fabs(want), "%s: loss %.9g, is %.9g", p->op->name, sum, want);
}

static void cross_entropy_gradients(const problem *p, float *grad[INPUTS])
{
    double losses[ROWS];
    int32_t target[ROWS];
    qz_tensor z = view(p->in[0], p->t, p->c), dz = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c);
    qz_tensor loss = qz_tensor_1d(losses, QZ_F64, p->t);
    targets_of(p, target);
    check_ok(qz_op_cross_entropy(p->backend, &loss, &dz, &z, target, 0.625f, false));
    check_loss(p, losses, cross_entropy_value(p));
    free(z.data);
}

/* The teacher's logits are the weights of the results; temperature 1.5. */
static double distill_value(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < counted(p); t++) {
        const double *student = p->in[0] + t * p->c, *teacher = p->weight + t * p->c;
        for (int c = 0; c < p->c; c++) {
            const double log_p = log_softmax(teacher, p->c, c, 1.5);
            sum += exp(log_p) * (log_p - log_softmax(student, p->c, c, 1.5));
        }
    }
    return 0.625 * 1.5 * 1.5 * sum;
}

static void distill_gradients(const problem *p, float *grad[INPUTS])
{
    double losses[ROWS];
    int32_t target[ROWS];
    qz_tensor student = view(p->in[0], p->t, p->c), teacher = view(p->weight, p->t, p->c);
    qz_tensor ds = qz_tensor_2d(grad[0], QZ_F32, p->t, p->c), loss = qz_tensor_1d(losses, QZ_F64, p->t);
    targets_of(p, target);
    check_ok(qz_op_distill(p->backend, &loss, &ds, &student, &teacher, target, 1.5f, 0.625f, false));
    check_loss(p, losses, distill_value(p));
    free(student.data), free(teacher.data);
}

/* ---- the table, and all of it ---- */

static const operation operations[] = {
    {"linear", linear_extents, linear_value, linear_gradients},
    {"embedding", embedding_extents, embedding_value, embedding_gradients},
    {"rmsnorm", norm_extents, norm_value, norm_gradients},
    {"swiglu", two_extents, swiglu_value, swiglu_gradients},
    {"geglu", two_extents, geglu_value, geglu_gradients},
    {"softcap", one_extents, softcap_value, softcap_gradients},
    {"multiply", two_extents, multiply_value, multiply_gradients},
    {"dropout", one_extents, dropout_value, dropout_gradients},
    {"cross_entropy", one_extents, cross_entropy_value, cross_entropy_gradients},
    {"distill", one_extents, distill_value, distill_gradients},
};

static const struct {
    int t, c, n;
} shapes[] = {{1, 2, 3}, {5, 19, 7}, {9, 33, 35}};

static double value(const void *context)
{
    const problem *p = context;
    return p->op->value(p);
}

/* Of about 1, so that no gradient vanishes; floats. */
static void fill(problem *p, uint64_t seed)
{
    qz_rng rng;
    qz_rng_seed(&rng, 23, seed);
    for (int i = 0; i < INPUTS; i++)
        for (int j = 0; j < MOST; j++) p->in[i][j] = (float)qz_rng_normal(&rng);
    for (int j = 0; j < MOST; j++) p->weight[j] = (float)qz_rng_normal(&rng);
    for (int t = 0; t < ROWS; t++) p->ids[t] = t < 2 ? 1 : (int32_t)qz_rng_below(&rng, (uint64_t)p->n);
}

static void check_operation(problem *p)
{
    static float grad[INPUTS][MOST];
    float *grads[INPUTS] = {grad[0], grad[1], grad[2]};
    int rows, cols;
    memset(grad, 0, sizeof grad);
    p->op->gradients(p, grads);
    for (int i = 0; i < INPUTS && p->op->extents(p, i, &rows, &cols); i++) {
        char name[96];
        snprintf(name, sizeof name, "%s on %s, T %d, input %d", p->op->name, p->backend->plugin.name, p->t, i);
        gradient_check(name, value, p, p->in[i], grad[i], rows * cols);
    }
}

Test(kernels_gradients, are_those_of_the_operations)
{
    static problem p;
    for (size_t b = 0; b < qz_backends()->count; b++) {
        p.backend = qz_backend_at(b);
        if (!p.backend->available() || p.backend->device != QZ_HOST) continue;
        for (size_t o = 0; o < sizeof operations / sizeof *operations; o++) {
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                p.op = &operations[o];
                p.t = shapes[s].t, p.c = shapes[s].c, p.n = shapes[s].n;
                fill(&p, o * 16 + s);
                check_operation(&p);
            }
        }
    }
}

/* The check itself: a gradient that is wrong in one element is found. */
static double cube(const void *context)
{
    const double *x = context;
    return x[0] * x[0] * x[0] + 2 * x[1];
}

Test(kernels_gradients, difference_of_a_cube)
{
    double x[2] = {1.5, -4};
    cr_assert(fabs(gradient_difference(cube, x, x, 1e-3) - 6.75) < 1e-10);
    cr_assert(fabs(gradient_difference(cube, x, x + 1, 1e-3) - 2) < 1e-10);
    cr_assert(x[0] == 1.5 && x[1] == -4);
}
