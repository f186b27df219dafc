/* The products of a linear layer and its gradients with factors rounded to BF16: which of the tensors is which factor.
 */
#include "base/parallel.h"
#include "kernels/cpu_gemm_bf16.h"
#include "kernels/cpu_tiles.h"

/* Element (i, p) in row i; or in row p. */
static qz_factor along(const qz_tensor *x)
{
    return (qz_factor){qz_f32(x), x->stride[0], false};
}

static qz_factor across(const qz_tensor *x)
{
    return (qz_factor){qz_f32(x), x->stride[0], true};
}

static qz_status product(const qz_tensor *c, qz_factor a, qz_factor b, int64_t k, bool add)
{
    const qz_gemm g = {c->shape[0], c->shape[1], k, a, b, {qz_f32(c), c->stride[0]}, add};
    qz_gemm_bf16(&g, qz_gemm_best());
    return QZ_OK;
}

static void start_bias(const qz_tensor *y, const float *bias, bool accumulate)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t t = 0; t < y->shape[0]; t++) {
        float *row = qz_f32(y) + t * y->stride[0];
        for (int64_t n = 0; n < y->shape[1]; n++) row[n] = accumulate ? row[n] + bias[n] : bias[n];
    }
}

qz_status qz_cpu_linear_bf16(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, const qz_tensor *bias,
                             bool accumulate)
{
    if (bias) start_bias(y, qz_f32(bias), accumulate);
    return product(y, along(x), along(w), x->shape[1], bias || accumulate);
}

qz_status qz_cpu_linear_grad_x_bf16(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w, bool accumulate)
{
    return product(dx, along(dy), across(w), dy->shape[1], accumulate);
}

qz_status qz_cpu_linear_grad_w_bf16(const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    return product(dw, across(dy), across(x), x->shape[0], true);
}
