/* qz_op_<name> of what training through a quantizer needs: checks, then the backend's slot. */
#include "kernels/checks.h"

/* One number for each piece of q, contiguous. */
static qz_status check_per_piece(qz_check *c, const char *name, const qz_tensor *x, const qz_qtensor *q)
{
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    QZ_TRY(qz_check_view(c, name, x, QZ_CHECK_TYPE(F32), NULL));
    if (qz_tensor_count(x) != pieces || !qz_tensor_is_contiguous(x))
        return QZ_FAIL(QZ_SHAPE, "%s: %s must be contiguous with one element for each of %lld pieces, it has %lld",
                       c->op, name, (long long)pieces, (long long)qz_tensor_count(x));
    return QZ_OK;
}

qz_status qz_op_fit_ranges(const qz_backend *backend, qz_qtensor *q, const qz_tensor *w)
{
    QZ_CHECK_BEGIN(fit_ranges)
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_grids(&c, q, w));
    if (q->permutation)
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "%s: q has a permutation of its inputs (GPTQ's act-order): ranges cannot be fitted anew, keep "
                       "the scales",
                       c.op);
    return backend->fit_ranges(q, w);
}

qz_status qz_op_fake_quant(const qz_backend *backend, const qz_tensor *y, const qz_tensor *w, const qz_qtensor *q)
{
    QZ_CHECK_BEGIN(fake_quant)
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_grids(&c, q, w));
    return backend->fake_quant(y, w, q);
}

qz_status qz_op_fake_quant_grad(const qz_backend *backend, const qz_tensor *dw, const qz_tensor *dscales,
                                const qz_tensor *doffsets, const qz_tensor *dy, const qz_tensor *w, const qz_qtensor *q,
                                qz_ste rule, float grad_scale)
{
    QZ_CHECK_BEGIN(fake_quant_grad)
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "dy", dy, QZ_CHECK_TYPE(F32), "N,K"));
    if (dw) QZ_TRY(qz_check_view(&c, "dw", dw, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_grids(&c, q, w));
    if (dscales) QZ_TRY(check_per_piece(&c, "dscales", dscales, q));
    if (doffsets) QZ_TRY(check_per_piece(&c, "doffsets", doffsets, q));
    if (doffsets && !q->zeros)
        return QZ_FAIL(QZ_ARG, "%s: doffsets are wanted, but q has no zeros: only asymmetric integer formats do", c.op);
    if ((dscales || doffsets) && q->scheme.double_quant)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: scales that are quantized themselves cannot be learned", c.op);
    return backend->fake_quant_grad(dw, dscales, doffsets, dy, w, q, rule, grad_scale);
}

static qz_status check_mask(qz_check *c, const qz_tensor *mask, const qz_tensor *x)
{
    const int64_t bytes = (qz_tensor_count(x) + 7) / 8;
    QZ_TRY(qz_check_view(c, "mask", mask, QZ_CHECK_TYPE(U8), "M"));
    if (mask->shape[0] < bytes)
        return QZ_FAIL(QZ_SHAPE, "%s: mask has %lld bytes, %lld are needed", c->op, (long long)mask->shape[0],
                       (long long)bytes);
    return QZ_OK;
}

qz_status qz_op_fake_quant_activations(const qz_backend *backend, const qz_tensor *y, const qz_tensor *mask,
                                       const qz_tensor *x, const qz_act_scheme *scheme, const qz_act_values *values)
{
    QZ_CHECK_BEGIN(fake_quant_activations)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,K"));
    if (mask) QZ_TRY(check_mask(&c, mask, x));
    QZ_TRY(qz_check_activations(&c, scheme, values));
    return backend->fake_quant_activations(y, mask, x, scheme, values);
}

qz_status qz_op_mask_grad(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *mask)
{
    QZ_CHECK_BEGIN(mask_grad)
    QZ_TRY(qz_check_view(&c, "dy", dy, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "dx", dx, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(check_mask(&c, mask, dy));
    return backend->mask_grad(dx, dy, mask);
}

qz_status qz_op_activation_scale_grad(const qz_backend *backend, double *dscale, const qz_tensor *dy,
                                      const qz_tensor *x, const qz_act_scheme *scheme, const qz_act_values *values,
                                      float grad_scale)
{
    QZ_CHECK_BEGIN(activation_scale_grad)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "dy", dy, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_activations(&c, scheme, values));
    if (scheme->mode != QZ_ACT_TENSOR)
        return QZ_FAIL(QZ_ARG, "%s: the scheme is dynamic, so there is no scale to learn", c.op);
    return backend->activation_scale_grad(dscale, dy, x, scheme, values, grad_scale);
}

/* `w` has N and K of what c knows already. */
static qz_status check_packed(qz_check *c, const qz_packed *w, int64_t n, int64_t k, const qz_tensor *room)
{
    if (!w->plain.data &&
        (!w->words || !(w->q.scales || (w->q.scheme.double_quant && w->q.scale_codes && w->q.second_scales))))
        return QZ_FAIL(QZ_ARG, "%s: w has no codes or no scales", c->op);
    if (w->q.rows != n || w->q.cols != k)
        return QZ_FAIL(QZ_SHAPE, "%s: w is (%lld, %lld), expected (%lld, %lld)", c->op, (long long)w->q.rows,
                       (long long)w->q.cols, (long long)n, (long long)k);
    return qz_check_view(c, "room", room, QZ_CHECK_TYPE(F32), "R,K");
}

qz_status qz_op_linear_packed(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_packed *w,
                              const qz_tensor *bias, bool accumulate, const qz_tensor *room)
{
    QZ_CHECK_BEGIN(linear_packed)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,N"));
    if (bias) QZ_TRY(qz_check_view(&c, "bias", bias, QZ_CHECK_TYPE(F32), "N"));
    QZ_TRY(check_packed(&c, w, y->shape[1], x->shape[1], room));
    return backend->linear_packed(y, x, w, bias, accumulate, room);
}

qz_status qz_op_linear_packed_grad_x(const qz_backend *backend, const qz_tensor *dx, const qz_tensor *dy,
                                     const qz_packed *w, bool accumulate, const qz_tensor *room)
{
    QZ_CHECK_BEGIN(linear_packed_grad_x)
    QZ_TRY(qz_check_view(&c, "dy", dy, QZ_CHECK_TYPE(F32), "T,N"));
    QZ_TRY(qz_check_view(&c, "dx", dx, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(check_packed(&c, w, dy->shape[1], dx->shape[1], room));
    return backend->linear_packed_grad_x(dx, dy, w, accumulate, room);
}
