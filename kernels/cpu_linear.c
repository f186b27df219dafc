/* y = x w^T + bias in tiles of tokens by outputs over all inputs, each one product on one thread. Tiles depend on the
 * shape alone, so do the results. */
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"

enum { TOKENS = 2048, OUTPUTS = 1024, LEAST = 256 };

static void fill_bias(qz_tile y, int64_t rows, int64_t cols, const float *bias, bool accumulate)
{
    for (int64_t t = 0; t < rows; t++) {
        float *out = y.data + t * y.stride;
        if (!accumulate)
            memcpy(out, bias, (size_t)cols * sizeof *out);
        else
            for (int64_t n = 0; n < cols; n++) out[n] += bias[n];
    }
}

qz_status qz_cpu_linear(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, const qz_tensor *bias,
                        bool accumulate)
{
    const int64_t tokens = y->shape[0], outputs = y->shape[1], inputs = x->shape[1];
    const qz_tiles g = qz_tiles_of_product(tokens, outputs, TOKENS, OUTPUTS, LEAST);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < g.down * g.across; i++)
    {
        const int64_t t = i % g.down * g.rows, n = i / g.down * g.cols;
        const int64_t tn = qz_min(g.rows, tokens - t), nn = qz_min(g.cols, outputs - n);
        const qz_tile out = {qz_f32(y) + t * y->stride[0] + n, y->stride[0]};
        if (bias) fill_bias(out, tn, nn, qz_f32(bias) + n, accumulate);
        qz_blas_nt(tn, nn, inputs, (qz_tile){qz_f32(x) + t * x->stride[0], x->stride[0]},
                   (qz_tile){qz_f32(w) + n * w->stride[0], w->stride[0]}, bias || accumulate ? 1 : 0, out);
    }
    return QZ_OK;
}
