/* Training through a quantizer: for now what `ref` does. */
#include "kernels/tables.h"

qz_status qz_cpu_fit_ranges(qz_qtensor *q, const qz_tensor *w)
{
    return qz_ref_fit_ranges(q, w);
}

qz_status qz_cpu_fake_quant(const qz_tensor *y, const qz_tensor *w, const qz_qtensor *q)
{
    return qz_ref_fake_quant(y, w, q);
}

qz_status qz_cpu_fake_quant_grad(const qz_tensor *dw, const qz_tensor *dscales, const qz_tensor *doffsets,
                                 const qz_tensor *dy, const qz_tensor *w, const qz_qtensor *q, qz_ste rule,
                                 float grad_scale)
{
    return qz_ref_fake_quant_grad(dw, dscales, doffsets, dy, w, q, rule, grad_scale);
}

qz_status qz_cpu_fake_quant_activations(const qz_tensor *y, const qz_tensor *mask, const qz_tensor *x,
                                        const qz_act_scheme *scheme, const qz_act_values *values)
{
    return qz_ref_fake_quant_activations(y, mask, x, scheme, values);
}

qz_status qz_cpu_mask_grad(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *mask)
{
    return qz_ref_mask_grad(dx, dy, mask);
}

qz_status qz_cpu_activation_scale_grad(double *dscale, const qz_tensor *dy, const qz_tensor *x,
                                       const qz_act_scheme *scheme, const qz_act_values *values, float grad_scale)
{
    return qz_ref_activation_scale_grad(dscale, dy, x, scheme, values, grad_scale);
}

qz_status qz_cpu_linear_packed(const qz_tensor *y, const qz_tensor *x, const qz_packed *w, bool accumulate,
                               const qz_tensor *room)
{
    return qz_ref_linear_packed(y, x, w, accumulate, room);
}

qz_status qz_cpu_linear_packed_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_packed *w, bool accumulate,
                                      const qz_tensor *room)
{
    return qz_ref_linear_packed_grad_x(dx, dy, w, accumulate, room);
}
