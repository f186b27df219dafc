/* The wrappers (see ops.c) of the operations that training adds: gradients and losses. */
#include "kernels/checks.h"

#define F32 QZ_CHECK_TYPE(F32)

static qz_status check_linear(qz_check *c, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                              const qz_tensor *bias)
{
    QZ_TRY(qz_check_view(c, "x", x, F32, "T,K"));
    QZ_TRY(qz_check_view(c, "w", w, F32, "N,K"));
    QZ_TRY(qz_check_view(c, "y", y, F32, "T,N"));
    return bias ? qz_check_view(c, "bias", bias, F32, "N") : QZ_OK;
}

static qz_status check_grad_x(qz_check *c, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w)
{
    QZ_TRY(qz_check_view(c, "dy", dy, F32, "T,N"));
    QZ_TRY(qz_check_view(c, "w", w, F32, "N,K"));
    return qz_check_view(c, "dx", dx, F32, "T,K");
}

static qz_status check_grad_w(qz_check *c, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    QZ_TRY(qz_check_view(c, "dy", dy, F32, "T,N"));
    QZ_TRY(qz_check_view(c, "x", x, F32, "T,K"));
    return qz_check_view(c, "dw", dw, F32, "N,K");
}

qz_status qz_op_linear_grad_x(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w,
                              bool accumulate)
{
    QZ_CHECK_BEGIN(linear_grad_x)
    QZ_TRY(check_grad_x(&c, dx, dy, w));
    return backend->linear_grad_x(dx, dy, w, accumulate);
}

qz_status qz_op_linear_grad_w(const qz_backend *backend, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(linear_grad_w)
    QZ_TRY(check_grad_w(&c, dw, dy, x));
    return backend->linear_grad_w(dw, dy, x);
}

qz_status qz_op_linear_bf16(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                            const qz_tensor *bias, bool accumulate)
{
    QZ_CHECK_BEGIN(linear_bf16)
    QZ_TRY(check_linear(&c, y, x, w, bias));
    return backend->linear_bf16(y, x, w, bias, accumulate);
}

qz_status qz_op_linear_grad_x_bf16(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dy,
                                   const qz_tensor *w, bool accumulate)
{
    QZ_CHECK_BEGIN(linear_grad_x_bf16)
    QZ_TRY(check_grad_x(&c, dx, dy, w));
    return backend->linear_grad_x_bf16(dx, dy, w, accumulate);
}

qz_status qz_op_linear_grad_w_bf16(const qz_backend *backend, const qz_tensor *dw, const qz_tensor *dy,
                                   const qz_tensor *x)
{
    QZ_CHECK_BEGIN(linear_grad_w_bf16)
    QZ_TRY(check_grad_w(&c, dw, dy, x));
    return backend->linear_grad_w_bf16(dw, dy, x);
}

qz_status qz_op_column_sums(const qz_backend *backend, const qz_tensor *sums, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(column_sums)
    QZ_TRY(qz_check_view(&c, "x", x, F32, "T,N"));
    QZ_TRY(qz_check_view(&c, "sums", sums, F32, "N"));
    return backend->column_sums(sums, x);
}

qz_status qz_op_embedding_grad(const qz_backend *backend, const qz_tensor *dtable, const qz_tensor *dy,
                               const int32_t *ids, float factor)
{
    QZ_CHECK_BEGIN(embedding_grad)
    QZ_TRY(qz_check_view(&c, "dy", dy, F32, "T,C"));
    QZ_TRY(qz_check_view(&c, "dtable", dtable, F32, "V,C"));
    QZ_TRY(qz_check_indices(&c, "ids", ids, dy->shape[0], 0, dtable->shape[0], "the number of rows of dtable"));
    return backend->embedding_grad(dtable, dy, ids, factor);
}

qz_status qz_op_rmsnorm_grad(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dw, const qz_tensor *dy,
                             const qz_tensor *x, const qz_tensor *w, float eps, float weight_offset, bool accumulate)
{
    QZ_CHECK_BEGIN(rmsnorm_grad)
    QZ_TRY(qz_check_view(&c, "x", x, F32, "T,C"));
    QZ_TRY(qz_check_view(&c, "dy", dy, F32, "T,C"));
    QZ_TRY(qz_check_view(&c, "dx", dx, F32, "T,C"));
    QZ_TRY(qz_check_view(&c, "w", w, F32, "C"));
    if (dw) QZ_TRY(qz_check_view(&c, "dw", dw, F32, "C"));
    if (accumulate && dx->data == dy->data)
        return QZ_FAIL(QZ_ARG, "%s: dx is dy, so there is nothing to accumulate onto", c.op);
    return backend->rmsnorm_grad(dx, dw, dy, x, w, eps, weight_offset, accumulate);
}

static qz_status check_gated(qz_check *c, const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy,
                             const qz_tensor *gate, const qz_tensor *up)
{
    QZ_TRY(qz_check_view(c, "gate", gate, F32, "T,F"));
    QZ_TRY(qz_check_view(c, "up", up, F32, "T,F"));
    QZ_TRY(qz_check_view(c, "dy", dy, F32, "T,F"));
    QZ_TRY(qz_check_view(c, "dgate", dgate, F32, "T,F"));
    QZ_TRY(qz_check_view(c, "dup", dup, F32, "T,F"));
    if (dgate->data == dup->data) return QZ_FAIL(QZ_ARG, "%s: dgate and dup are the same memory", c->op);
    return QZ_OK;
}

qz_status qz_op_swiglu_grad(const qz_backend *backend, const qz_tensor *dgate, const qz_tensor *dup,
                            const qz_tensor *dy, const qz_tensor *gate, const qz_tensor *up)
{
    QZ_CHECK_BEGIN(swiglu_grad)
    QZ_TRY(check_gated(&c, dgate, dup, dy, gate, up));
    return backend->swiglu_grad(dgate, dup, dy, gate, up);
}

qz_status qz_op_geglu_grad(const qz_backend *backend, const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy,
                           const qz_tensor *gate, const qz_tensor *up)
{
    QZ_CHECK_BEGIN(geglu_grad)
    QZ_TRY(check_gated(&c, dgate, dup, dy, gate, up));
    return backend->geglu_grad(dgate, dup, dy, gate, up);
}

qz_status qz_op_softcap_grad(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *y,
                             float cap)
{
    QZ_CHECK_BEGIN(softcap_grad)
    QZ_TRY(qz_check_view(&c, "y", y, F32, "T,F"));
    QZ_TRY(qz_check_view(&c, "dy", dy, F32, "T,F"));
    QZ_TRY(qz_check_view(&c, "dx", dx, F32, "T,F"));
    if (!qz_check_positive(cap)) return QZ_FAIL(QZ_ARG, "%s: the cap is %g, must be finite and above 0", c.op, cap);
    return backend->softcap_grad(dx, dy, y, cap);
}

qz_status qz_op_multiply(const qz_backend *backend, const qz_tensor *y, const qz_tensor *a, const qz_tensor *b)
{
    QZ_CHECK_BEGIN(multiply)
    QZ_TRY(qz_check_view(&c, "a", a, F32, NULL));
    QZ_TRY(qz_check_view(&c, "b", b, F32, NULL));
    QZ_TRY(qz_check_view(&c, "y", y, F32, NULL));
    QZ_TRY(qz_check_same_shape(&c, y, a));
    QZ_TRY(qz_check_same_shape(&c, y, b));
    return backend->multiply(y, a, b);
}

qz_status qz_op_add_scaled(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float factor)
{
    QZ_CHECK_BEGIN(add_scaled)
    QZ_TRY(qz_check_view(&c, "x", x, F32, NULL));
    QZ_TRY(qz_check_view(&c, "y", y, F32, NULL));
    QZ_TRY(qz_check_same_shape(&c, y, x));
    return backend->add_scaled(y, x, factor);
}

qz_status qz_op_dropout(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float p, uint64_t seed,
                        uint64_t first)
{
    QZ_CHECK_BEGIN(dropout)
    QZ_TRY(qz_check_view(&c, "x", x, F32, "T,C"));
    QZ_TRY(qz_check_view(&c, "y", y, F32, "T,C"));
    if (!(p >= 0 && p < 1)) return QZ_FAIL(QZ_ARG, "%s: the share to drop is %g, must be in [0, 1)", c.op, p);
    return backend->dropout(y, x, p, seed, first);
}

static qz_status check_loss(qz_check *c, const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *logits,
                            const char *name, bool accumulate)
{
    QZ_TRY(qz_check_view(c, name, logits, F32, "T,V"));
    QZ_TRY(qz_check_view(c, "grad", grad, F32, "T,V"));
    QZ_TRY(qz_check_view(c, "loss", loss, QZ_CHECK_TYPE(F64), "T"));
    if (accumulate && grad->data == logits->data)
        return QZ_FAIL(QZ_ARG, "%s: grad is %s, so there is nothing to accumulate onto", c->op, name);
    return QZ_OK;
}

qz_status qz_op_cross_entropy(const qz_backend *backend, const qz_tensor *loss, const qz_tensor *grad,
                              const qz_tensor *logits, const int32_t *target, float weight, bool accumulate)
{
    QZ_CHECK_BEGIN(cross_entropy)
    QZ_TRY(check_loss(&c, loss, grad, logits, "logits", accumulate));
    QZ_TRY(qz_check_indices(&c, "target", target, logits->shape[0], INT32_MIN, logits->shape[1], "a row of logits"));
    return backend->cross_entropy(loss, grad, logits, target, weight, accumulate);
}

qz_status qz_op_distill(const qz_backend *backend, const qz_tensor *loss, const qz_tensor *grad,
                        const qz_tensor *student, const qz_tensor *teacher, const int32_t *target, float temperature,
                        float weight, bool accumulate)
{
    QZ_CHECK_BEGIN(distill)
    QZ_TRY(check_loss(&c, loss, grad, student, "student", accumulate));
    QZ_TRY(qz_check_view(&c, "teacher", teacher, F32, "T,V"));
    if (target)
        QZ_TRY(
            qz_check_indices(&c, "target", target, student->shape[0], INT32_MIN, student->shape[1], "a row of logits"));
    if (!qz_check_positive(temperature))
        return QZ_FAIL(QZ_ARG, "%s: the temperature is %g, must be finite and above 0", c.op, temperature);
    return backend->distill(loss, grad, student, teacher, target, temperature, weight, accumulate);
}
