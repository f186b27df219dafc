/* Cross entropy and the divergence from a teacher with the gradients of the logits, plainly, in double and rounded
 * once. */
#include <math.h>
#include <string.h>

#include "kernels/tables.h"

/* A row of logits by a factor: its largest, and log sum exp less that. */
typedef struct row {
    const float *z;
    double factor, max, log_sum;
} row;

static row row_of(const qz_tensor *logits, int64_t t, double factor)
{
    row r = {.z = qz_f32(logits) + t * logits->stride[0], .factor = factor};
    const int64_t count = logits->shape[1];
    double max = (double)r.z[0], sum = 0;
    for (int64_t v = 1; v < count; v++) max = r.z[v] > max ? r.z[v] : max;
    for (int64_t v = 0; v < count; v++) sum += exp((r.z[v] - max) * factor);
    r.max = max;
    r.log_sum = log(sum);
    return r;
}

static double log_softmax(const row *r, int64_t v)
{
    return (r->z[v] - r->max) * r->factor - r->log_sum;
}

static void no_loss(double *loss, float *grad, int64_t count, bool accumulate)
{
    *loss = 0;
    if (!accumulate) memset(grad, 0, (size_t)count * sizeof *grad);
}

qz_status qz_ref_cross_entropy(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *logits,
                               const int32_t *target, float weight, bool accumulate)
{
    const int64_t count = logits->shape[1];
    for (int64_t t = 0; t < logits->shape[0]; t++) {
        float *out = qz_f32(grad) + t * grad->stride[0];
        if (target[t] < 0) {
            no_loss(qz_f64(loss) + t, out, count, accumulate);
            continue;
        }
        const row r = row_of(logits, t, 1);
        qz_f64(loss)[t] = -log_softmax(&r, target[t]);
        for (int64_t v = 0; v < count; v++) {
            const double d = weight * (exp(log_softmax(&r, v)) - (v == target[t]));
            out[v] = (float)((accumulate ? out[v] : 0) + d);
        }
    }
    return QZ_OK;
}

static double divergence(const row *teacher, const row *student, int64_t count)
{
    double sum = 0;
    for (int64_t v = 0; v < count; v++) {
        const double p = exp(log_softmax(teacher, v));
        if (p > 0) sum += p * (log_softmax(teacher, v) - log_softmax(student, v));
    }
    return sum;
}

qz_status qz_ref_distill(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *student,
                         const qz_tensor *teacher, const int32_t *target, float temperature, float weight,
                         bool accumulate)
{
    const int64_t count = student->shape[1];
    const double factor = 1 / (double)temperature;
    for (int64_t t = 0; t < student->shape[0]; t++) {
        float *out = qz_f32(grad) + t * grad->stride[0];
        if (target && target[t] < 0) {
            no_loss(qz_f64(loss) + t, out, count, accumulate);
            continue;
        }
        const row p = row_of(teacher, t, factor), q = row_of(student, t, factor);
        qz_f64(loss)[t] = (double)temperature * temperature * divergence(&p, &q, count);
        for (int64_t v = 0; v < count; v++) {
            const double d = (double)weight * temperature * (exp(log_softmax(&q, v)) - exp(log_softmax(&p, v)));
            out[v] = (float)((accumulate ? out[v] : 0) + d);
        }
    }
    return QZ_OK;
}
