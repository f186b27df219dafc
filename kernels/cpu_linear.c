/* y = x w^T + bias in tiles of tokens by outputs over all inputs, each one product on one thread. Tiles depend on the
 * shape alone, so do the results. */
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/tables.h"

/* About square tiles large enough that packing costs little, small enough that a few cores find work. */
enum { TOKENS = 512, OUTPUTS = 512 };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

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
    const int64_t rows = ceil_div(tokens, TOKENS), cols = ceil_div(outputs, OUTPUTS);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < rows * cols; i++)
    {
        const int64_t t = i % rows * TOKENS, n = i / rows * OUTPUTS;
        const int64_t tn = tokens - t < TOKENS ? tokens - t : TOKENS,
                      nn = outputs - n < OUTPUTS ? outputs - n : OUTPUTS;
        const qz_tile out = {qz_f32(y) + t * y->stride[0] + n, y->stride[0]};
        if (bias) fill_bias(out, tn, nn, qz_f32(bias) + n, accumulate);
        qz_blas_nt(tn, nn, inputs, (qz_tile){qz_f32(x) + t * x->stride[0], x->stride[0]},
                   (qz_tile){qz_f32(w) + n * w->stride[0], w->stride[0]}, bias || accumulate ? 1 : 0, out);
    }
    return QZ_OK;
}
