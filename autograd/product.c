/* Products at the tape's precision: fp32, or with both factors rounded to BF16 as they are read (mixed precision;
 * Micikevicius et al. 2018). What is stored, and every sum, is fp32 either way. */
#include "autograd/tape.h"

qz_status qz_product(const qz_tape *t, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                     const qz_tensor *bias, bool accumulate)
{
    return t->bf16 ? qz_op_linear_bf16(t->backend, y, x, w, bias, accumulate)
                   : qz_op_linear(t->backend, y, x, w, bias, accumulate);
}

qz_status qz_product_grad_x(const qz_tape *t, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w,
                            bool accumulate)
{
    return t->bf16 ? qz_op_linear_grad_x_bf16(t->backend, dx, dy, w, accumulate)
                   : qz_op_linear_grad_x(t->backend, dx, dy, w, accumulate);
}

qz_status qz_product_grad_w(const qz_tape *t, const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    return t->bf16 ? qz_op_linear_grad_w_bf16(t->backend, dw, dy, x) : qz_op_linear_grad_w(t->backend, dw, dy, x);
}
