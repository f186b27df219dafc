/* The two gradients of y = x w^T: dx = dy w in tiles of tokens by inputs, dw += dy^T x in tiles of the weight, each one
 * product over all that is summed, on one thread. Tiles depend on the shape alone, so do the results. */
#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"

enum { TOKENS = 2048, INPUTS = 1024, OUTPUTS = 1024, LEAST = 256, LEAST_WEIGHT = 128 };

qz_status qz_cpu_linear_grad_x(const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w, bool accumulate)
{
    const int64_t tokens = dx->shape[0], inputs = dx->shape[1];
    const qz_tiles g = qz_tiles_even(qz_tiles_of_product(tokens, inputs, TOKENS, INPUTS, LEAST), tokens, inputs);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < g.down * g.across; i++)
    {
        const int64_t t = i % g.down * g.rows, k = i / g.down * g.cols;
        qz_blas_nn(qz_min(g.rows, tokens - t), qz_min(g.cols, inputs - k), dy->shape[1],
                   (qz_tile){qz_f32(dy) + t * dy->stride[0], dy->stride[0]}, (qz_tile){qz_f32(w) + k, w->stride[0]},
                   accumulate ? 1 : 0, (qz_tile){qz_f32(dx) + t * dx->stride[0] + k, dx->stride[0]});
    }
    return QZ_OK;
}

qz_status qz_cpu_linear_grad_w(const qz_tensor *dw, const qz_tensor *dy, const qz_tensor *x)
{
    const int64_t outputs = dw->shape[0], inputs = dw->shape[1];
    const qz_tiles g =
        qz_tiles_even(qz_tiles_of_product(outputs, inputs, OUTPUTS, INPUTS, LEAST_WEIGHT), outputs, inputs);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < g.down * g.across; i++)
    {
        const int64_t n = i % g.down * g.rows, k = i / g.down * g.cols;
        qz_blas_tn(qz_min(g.rows, outputs - n), qz_min(g.cols, inputs - k), x->shape[0],
                   (qz_tile){qz_f32(dy) + n, dy->stride[0]}, (qz_tile){qz_f32(x) + k, x->stride[0]},
                   (qz_tile){qz_f32(dw) + n * dw->stride[0] + k, dw->stride[0]});
    }
    return QZ_OK;
}
