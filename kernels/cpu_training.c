/* Slots of `cpu` that are still those of `ref`. */
#include "kernels/tables.h"

qz_status qz_cpu_linear_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w, bool accumulate)
{
    return qz_ref_linear_grad_x(dx, dy, w, accumulate);
}

qz_status qz_cpu_linear_grad_w(const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    return qz_ref_linear_grad_w(dw, dy, x);
}

qz_status qz_cpu_column_sums(const qz_tensor *sums, const qz_tensor *x)
{
    return qz_ref_column_sums(sums, x);
}

qz_status qz_cpu_embedding_grad(const qz_tensor *dtable, const qz_tensor *dy, const int32_t *ids, float factor)
{
    return qz_ref_embedding_grad(dtable, dy, ids, factor);
}

qz_status qz_cpu_rmsnorm_grad(const qz_tensor *dx, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x,
                              const qz_tensor *w, float eps, float weight_offset, bool accumulate)
{
    return qz_ref_rmsnorm_grad(dx, dw, dy, x, w, eps, weight_offset, accumulate);
}

qz_status qz_cpu_swiglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                             const qz_tensor *up)
{
    return qz_ref_swiglu_grad(dgate, dup, dy, gate, up);
}

qz_status qz_cpu_geglu_grad(const qz_tensor *dgate, const qz_tensor *dup, const qz_tensor *dy, const qz_tensor *gate,
                            const qz_tensor *up)
{
    return qz_ref_geglu_grad(dgate, dup, dy, gate, up);
}

qz_status qz_cpu_softcap_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *y, float cap)
{
    return qz_ref_softcap_grad(dx, dy, y, cap);
}

qz_status qz_cpu_multiply(const qz_tensor *y, const qz_tensor *a, const qz_tensor *b)
{
    return qz_ref_multiply(y, a, b);
}

qz_status qz_cpu_add_scaled(const qz_tensor *y, const qz_tensor *x, float factor)
{
    return qz_ref_add_scaled(y, x, factor);
}

qz_status qz_cpu_dropout(const qz_tensor *y, const qz_tensor *x, float p, uint64_t seed, uint64_t first)
{
    return qz_ref_dropout(y, x, p, seed, first);
}

qz_status qz_cpu_cross_entropy(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *logits,
                               const int32_t *target, float weight, bool accumulate)
{
    return qz_ref_cross_entropy(loss, grad, logits, target, weight, accumulate);
}

qz_status qz_cpu_distill(const qz_tensor *loss, const qz_tensor *grad, const qz_tensor *student,
                         const qz_tensor *teacher, const int32_t *target, float temperature, float weight,
                         bool accumulate)
{
    return qz_ref_distill(loss, grad, student, teacher, target, temperature, weight, accumulate);
}

qz_status qz_cpu_adamw(const qz_tensor *p, const qz_tensor *m, const qz_tensor *v, const qz_tensor *g,
                       const qz_adamw *how)
{
    return qz_ref_adamw(p, m, v, g, how);
}

qz_status qz_cpu_adamw_8bit(const qz_tensor *p, const qz_tensor *m, const qz_tensor *m_absmax, const qz_tensor *v,
                            const qz_tensor *v_absmax, const qz_tensor *g, const qz_adamw *how)
{
    return qz_ref_adamw_8bit(p, m, m_absmax, v, v_absmax, g, how);
}

qz_status qz_cpu_square_sum(double *sum, const qz_tensor *x)
{
    return qz_ref_square_sum(sum, x);
}
