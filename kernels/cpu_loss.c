/* Cross entropy and the divergence from a teacher, with the gradients of the logits; rows in parallel.
 *
 * Cross entropy goes over a row three times: its largest, exp(z - largest) into the gradient with their sum, the
 * product with weight / sum; the row stays in a cache between them. The sums of a divergence are in double, since they
 * cancel; its gradient is in fp32. */
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

enum { LANES = 16, BLOCK = 1024, ROWS = 4 /* of one piece of work */ };

QZ_WIDE static void exp_row(float *out, const float *z, float max, int64_t count)
{
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++) out[i] = qz_fast_exp(z[i] - max);
}

QZ_WIDE static void scale_row(float *out, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++) out[i] *= factor;
}

QZ_WIDE static void add_exp_row(float *out, const float *z, float max, float factor, int64_t count)
{
    for (int64_t i = 0; i < count; i++) out[i] += qz_fast_exp(z[i] - max) * factor;
}

/* exp(z - max) into out; the sum. */
static double exp_into(float *out, const float *z, float max, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i += BLOCK) {
        const int64_t n = qz_min(BLOCK, count - i);
        exp_row(out + i, z + i, max, n);
        sum += qz_reduce_sum(out + i, n);
    }
    return sum;
}

/* What is added to the softmax's gradient at the target: with e = exp(z - max) there, e / sum - 1 without
 * cancellation. */
static float target_grad(double e, double sum, float weight)
{
    return (float)(weight * -((sum - e) / sum));
}

static double cross_entropy_row(float *grad, const float *z, int64_t count, int64_t target, float weight)
{
    const float max = qz_reduce_max(z, count);
    const double own = (double)z[target] - max, sum = exp_into(grad, z, max, count), e = (double)grad[target];
    scale_row(grad, (float)(weight / sum), count);
    grad[target] = target_grad(e, sum, weight);
    return log(sum) - own;
}

static double cross_entropy_row_added(float *grad, const float *z, int64_t count, int64_t target, float weight)
{
    const float max = qz_reduce_max(z, count), before = grad[target];
    const double own = (double)z[target] - max, sum = qz_reduce_exp(z, count, max);
    add_exp_row(grad, z, max, (float)(weight / sum), count);
    grad[target] = before + target_grad((double)qz_fast_exp(z[target] - max), sum, weight);
    return log(sum) - own;
}

static double no_loss(float *grad, int64_t count, bool accumulate)
{
    if (!accumulate) memset(grad, 0, (size_t)count * sizeof *grad);
    return 0;
}

qz_status qz_cpu_cross_entropy(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *logits,
                               const int32_t *target, float weight, bool accumulate)
{
    const int64_t tokens = logits->shape[0], count = logits->shape[1];
    QZ_PARALLEL_FOR for (int64_t first = 0; first < tokens; first += ROWS)
    {
        for (int64_t t = first; t < qz_min(first + ROWS, tokens); t++) {
            const float *z = qz_f32(logits) + t * logits->stride[0];
            float *out = qz_f32(grad) + t * grad->stride[0];
            qz_f64(loss)[t] = target[t] < 0 ? no_loss(out, count, accumulate)
                              : accumulate  ? cross_entropy_row_added(out, z, count, target[t], weight)
                                            : cross_entropy_row(out, z, count, target[t], weight);
        }
    }
    return QZ_OK;
}

/* ---- divergence ---- */

/* A row of each, their largest, and the sums over p = exp((a - max_a) / t), q = exp((b - max_b) / t); a is the
 * teacher's, b the student's. */
typedef struct pair {
    const float *a, *b;
    int64_t count;
    float max_a, max_b;
    double factor;                     /* 1 / temperature */
    double sum_a, sum_b, sum_weighted; /* p, q, p (log p - log q) */
} pair;

typedef struct lanes {
    double a[LANES], b[LANES], weighted[LANES];
} lanes;

static inline void add_element(lanes *s, int lane, double a, double b)
{
    const double p = qz_fast_exp_double(a);
    s->a[lane] += p;
    s->b[lane] += qz_fast_exp_double(b);
    s->weighted[lane] += qz_select_double(p == 0, 0, p * (a - b));
}

QZ_WIDE static void sum_pair(pair *r)
{
    lanes s = {{0}, {0}, {0}};
    const double max_a = (double)r->max_a, max_b = (double)r->max_b, factor = r->factor;
    const int64_t full = r->count - r->count % LANES;
    for (int64_t i = 0; i < full; i += LANES)
        for (int l = 0; l < LANES; l++)
            add_element(&s, l, ((double)r->a[i + l] - max_a) * factor, ((double)r->b[i + l] - max_b) * factor);
    for (int64_t i = full; i < r->count; i++)
        add_element(&s, (int)(i - full), ((double)r->a[i] - max_a) * factor, ((double)r->b[i] - max_b) * factor);
    for (int l = 0; l < LANES; l++) {
        r->sum_a += s.a[l];
        r->sum_b += s.b[l];
        r->sum_weighted += s.weighted[l];
    }
}

/* grad = keep * grad + scale_b q - scale_a p */
typedef void grad_row(float *grad, const float *a, const float *b, const pair *r, float scale_a, float scale_b);

QZ_WIDE static void divergence_grad(float *grad, const float *a, const float *b, const pair *r, float scale_a,
                                    float scale_b)
{
    const float max_a = r->max_a, max_b = r->max_b, factor = (float)r->factor;
    const int64_t count = r->count;
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++)
        grad[i] = qz_fast_exp((b[i] - max_b) * factor) * scale_b - qz_fast_exp((a[i] - max_a) * factor) * scale_a;
}

QZ_WIDE static void divergence_grad_added(float *grad, const float *a, const float *b, const pair *r, float scale_a,
                                          float scale_b)
{
    const float max_a = r->max_a, max_b = r->max_b, factor = (float)r->factor;
    const int64_t count = r->count;
    QZ_ELEMENTWISE
    for (int64_t i = 0; i < count; i++)
        grad[i] += qz_fast_exp((b[i] - max_b) * factor) * scale_b - qz_fast_exp((a[i] - max_a) * factor) * scale_a;
}

static double distill_row(float *grad, pair *r, double temperature, double weight, grad_row *row)
{
    r->max_a = qz_reduce_max(r->a, r->count);
    r->max_b = qz_reduce_max(r->b, r->count);
    sum_pair(r);
    row(grad, r->a, r->b, r, (float)(weight * temperature / r->sum_a), (float)(weight * temperature / r->sum_b));
    return temperature * temperature * (r->sum_weighted / r->sum_a - log(r->sum_a) + log(r->sum_b));
}

qz_status qz_cpu_distill(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *student,
                         const qz_tensor *teacher, const int32_t *target, float temperature, float weight,
                         bool accumulate)
{
    const int64_t tokens = student->shape[0];
    QZ_PARALLEL_FOR for (int64_t first = 0; first < tokens; first += ROWS)
    {
        for (int64_t t = first; t < qz_min(first + ROWS, tokens); t++) {
            float *out = qz_f32(grad) + t * grad->stride[0];
            pair r = {.a = qz_f32(teacher) + t * teacher->stride[0],
                      .b = qz_f32(student) + t * student->stride[0],
                      .count = student->shape[1],
                      .factor = 1 / (double)temperature};
            qz_f64(loss)[t] =
                target && target[t] < 0
                    ? no_loss(out, r.count, accumulate)
                    : distill_row(out, &r, temperature, weight, accumulate ? divergence_grad_added : divergence_grad);
        }
    }
    return QZ_OK;
}
