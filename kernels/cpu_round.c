/* Rounding of activations and of cached heads: pieces of rows in parallel, the functions of numeric/actgrid.h in loops
 * that vectorize; and the counts of a histogram, in tables on the stack that are added up at the end of each piece.
 * Counts are integers, so the order does not matter. */
#include <stdatomic.h>

#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_values.h"
#include "kernels/cpu_wide.h"
#include "numeric/actgrid.h"

/* Runs of `piece` elements, each with a scale of its own. */
static void round_dynamic(float *y, const float *x, int64_t count, int64_t piece, const qz_act_scheme *s)
{
    for (int64_t i = 0; i < count; i += piece) {
        float lo, hi;
        const int64_t length = qz_min(piece, count - i);
        qz_values_range(&lo, &hi, x + i, length);
        qz_values_activation(y + i, x + i, length, qz_act_values_of(lo, hi, *s), s->format);
    }
}

qz_status qz_cpu_round_activations(const qz_tensor *y, const qz_tensor *x, const qz_act_scheme *scheme,
                                   const qz_act_values *values)
{
    const int64_t rows = x->shape[0], cols = x->shape[1], each = cols < QZ_PIECE ? QZ_PIECE / cols : 1;
    const int64_t piece = scheme->mode == QZ_ACT_GROUP ? scheme->group : cols;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        for (int64_t t = first; t < qz_min(first + each, rows); t++) {
            float *out = qz_f32(y) + t * y->stride[0];
            const float *in = qz_f32(x) + t * x->stride[0];
            if (scheme->mode == QZ_ACT_TENSOR)
                qz_values_activation(out, in, cols, *values, scheme->format);
            else
                round_dynamic(out, in, cols, piece, scheme);
        }
    }
    return QZ_OK;
}

qz_status qz_cpu_round_heads(const qz_tensor *y, const qz_tensor *x, const qz_tensor *scale, qz_format format)
{
    const int64_t tokens = x->shape[0], heads = x->shape[1], size = x->shape[2];
    const int64_t each = heads * size < QZ_PIECE ? QZ_PIECE / (heads * size) : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < tokens; first += each)
    {
        for (int64_t t = first; t < qz_min(first + each, tokens); t++) {
            for (int64_t h = 0; h < heads; h++)
                qz_values_activation(qz_f32(y) + t * y->stride[0] + h * y->stride[1],
                                     qz_f32(x) + t * x->stride[0] + h * x->stride[1], size,
                                     (qz_act_values){qz_f32(scale)[h], 0}, format);
        }
    }
    return QZ_OK;
}

enum { COUNTED = 1 << 18 }; /* elements a table is filled with before it is added to the counts */

static void add_counts(_Atomic uint64_t *to, const uint32_t *from)
{
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++)
        if (from[i]) atomic_fetch_add_explicit(to + i, from[i], memory_order_relaxed);
}

qz_status qz_cpu_histogram(uint64_t *counts, const qz_tensor *x)
{
    const int64_t rows = x->shape[0], cols = x->shape[1], each = cols < COUNTED ? COUNTED / cols : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        uint32_t table[QZ_HISTOGRAM_BINS] = {0};
        for (int64_t t = first; t < qz_min(first + each, rows); t++) {
            const float *row = qz_f32(x) + t * x->stride[0];
            for (int64_t k = 0; k < cols; k++) table[qz_bits_from_float(row[k]) >> QZ_HISTOGRAM_SHIFT]++;
        }
        add_counts((_Atomic uint64_t *)counts, table);
    }
    return QZ_OK;
}
