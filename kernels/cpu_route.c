/* Mixture of experts: rows of tokens by the plain functions of ref_route.c, some at a time. */
#include "base/parallel.h"
#include "kernels/cpu_tiles.h"

enum { TOKENS = 64 };

qz_status qz_cpu_route(int32_t *expert, const qz_tensor *weight, const qz_tensor *logits, bool normalize)
{
    const int64_t tokens = weight->shape[0], active = weight->shape[1];
    QZ_PARALLEL_FOR for (int64_t t = 0; t < tokens; t += TOKENS)
    {
        const int64_t count = qz_min(TOKENS, tokens - t);
        const qz_tensor w = qz_tensor_rows(weight, t, count), l = qz_tensor_rows(logits, t, count);
        qz_ref_route(expert + t * active, &w, &l, normalize);
    }
    return QZ_OK;
}

qz_status qz_cpu_add_rows(const qz_tensor *y, const qz_tensor *x, const int32_t *rows, const qz_tensor *weight)
{
    QZ_PARALLEL_FOR for (int64_t i = 0; i < x->shape[0]; i += TOKENS)
    {
        const int64_t count = qz_min(TOKENS, x->shape[0] - i);
        const qz_tensor some = qz_tensor_rows(x, i, count), w = qz_tensor_rows(weight, i, count);
        qz_ref_add_rows(y, &some, rows + i, &w);
    }
    return QZ_OK;
}
