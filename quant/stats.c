/* See stats.h. */
#include "quant/stats.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"

uint64_t qz_stats_bytes(int64_t k, qz_stats_wants wants)
{
    const uint64_t c = (uint64_t)k;
    return (wants.no_gram ? 0 : c * c * sizeof(float)) + c * (sizeof(float) + sizeof(double)) +
           (uint64_t)wants.reservoir * c * sizeof(float) + (wants.histogram ? QZ_HISTOGRAM_BINS * sizeof(uint64_t) : 0);
}

qz_status qz_stats_new(qz_stats *out, int64_t k, qz_stats_wants wants, uint64_t seed, uint64_t stream, qz_arena *arena)
{
    *out = (qz_stats){.k = k, .reservoir_capacity = wants.reservoir};
    if (!wants.no_gram) out->gram = qz_arena_calloc(arena, qz_array_bytes((size_t)(k * k), sizeof *out->gram));
    out->absmax = qz_arena_calloc(arena, (size_t)k * sizeof *out->absmax);
    out->abssum = qz_arena_calloc(arena, (size_t)k * sizeof *out->abssum);
    if ((!out->gram && !wants.no_gram) || !out->absmax || !out->abssum) return qz_arena_failed(arena);
    if (wants.reservoir > 0) {
        out->reservoir = qz_arena_array(arena, float, (size_t)(wants.reservoir * k));
        if (!out->reservoir) return qz_arena_failed(arena);
    }
    if (wants.histogram) {
        out->histogram = qz_arena_calloc(arena, QZ_HISTOGRAM_BINS * sizeof *out->histogram);
        if (!out->histogram) return qz_arena_failed(arena);
    }
    qz_rng_seed(&out->rng, seed, stream);
    return QZ_OK;
}

/* Vitter's algorithm R: token i replaces a random row with probability capacity / (i + 1). */
static void sample_rows(qz_stats *s, const qz_tensor *x)
{
    for (int64_t t = 0; t < x->shape[0]; t++) {
        uint64_t seen = (uint64_t)(s->tokens + t), row = seen;
        if (s->reservoir_rows < s->reservoir_capacity)
            s->reservoir_rows++;
        else
            row = qz_rng_below(&s->rng, seen + 1);
        if (row < (uint64_t)s->reservoir_capacity)
            memcpy(s->reservoir + row * (uint64_t)s->k, qz_f32(x) + t * x->stride[0], (size_t)s->k * sizeof(float));
    }
}

qz_status qz_stats_add(qz_stats *s, const qz_backend *backend, const qz_tensor *x)
{
    qz_tensor gram = qz_tensor_2d(s->gram, QZ_F32, s->k, s->k);
    qz_tensor absmax = qz_tensor_1d(s->absmax, QZ_F32, s->k), abssum = qz_tensor_1d(s->abssum, QZ_F64, s->k);
    if (s->gram) QZ_TRY(qz_op_gram(backend, &gram, x));
    QZ_TRY(qz_op_channel_stats(backend, &absmax, &abssum, x));
    if (s->histogram) QZ_TRY(qz_op_histogram(backend, s->histogram, x));
    if (s->reservoir) sample_rows(s, x);
    s->tokens += x->shape[0];
    return QZ_OK;
}

static void add_sums(qz_stats *to, const qz_stats *from)
{
    for (int64_t i = 0; i < to->k; i++) {
        to->absmax[i] = from->absmax[i] > to->absmax[i] ? from->absmax[i] : to->absmax[i];
        to->abssum[i] += from->abssum[i];
    }
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < (to->gram ? to->k * to->k : 0); i++) to->gram[i] += from->gram[i];
    for (int i = 0; to->histogram && i < QZ_HISTOGRAM_BINS; i++) to->histogram[i] += from->histogram[i];
}

/* One of the rows that were not taken yet, at random. */
static int64_t take(int64_t *order, int64_t taken, int64_t rows, qz_rng *rng)
{
    const int64_t at = taken + (int64_t)qz_rng_below(rng, (uint64_t)(rows - taken)), row = order[at];
    order[at] = order[taken];
    return row;
}

/* A uniform sample of both streams: a row of either with the probability of the tokens that it still stands for. Equal
 * capacities leave each side with enough rows. */
static qz_status merge_rows(qz_stats *to, const qz_stats *from, qz_arena *scratch)
{
    const int64_t k = to->k, capacity = to->reservoir_capacity, rows[2] = {to->reservoir_rows, from->reservoir_rows};
    int64_t left[2] = {to->tokens, from->tokens}, taken[2] = {0, 0}, kept = 0;
    float *copy = qz_arena_array(scratch, float, (size_t)(rows[0] * k));
    int64_t *order = qz_arena_array(scratch, int64_t, (size_t)(2 * capacity));
    if (!copy || !order) return qz_arena_failed(scratch);
    const float *source[2] = {copy, from->reservoir};
    memcpy(copy, to->reservoir, (size_t)(rows[0] * k) * sizeof *copy);
    for (int64_t i = 0; i < 2 * capacity; i++) order[i] = i % capacity;
    for (; kept < capacity && left[0] + left[1] > 0; kept++) {
        const int side = qz_rng_below(&to->rng, (uint64_t)(left[0] + left[1])) >= (uint64_t)left[0];
        const int64_t row = take(order + side * capacity, taken[side]++, rows[side], &to->rng);
        memcpy(to->reservoir + kept * k, source[side] + row * k, (size_t)k * sizeof *copy);
        left[side]--;
    }
    to->reservoir_rows = kept;
    return QZ_OK;
}

qz_status qz_stats_merge(qz_stats *to, const qz_stats *from, qz_arena *scratch)
{
    if (to->k != from->k)
        return QZ_FAIL(QZ_SHAPE, "statistics of %lld and of %lld channels do not merge", (long long)to->k,
                       (long long)from->k);
    if (!to->gram != !from->gram) return QZ_FAIL(QZ_ARG, "statistics with and without a Gram matrix do not merge");
    if (!to->histogram != !from->histogram || to->reservoir_capacity != from->reservoir_capacity)
        return QZ_FAIL(QZ_ARG,
                       "statistics merge when both keep a histogram or neither does, and as many rows (%lld, %lld)",
                       (long long)to->reservoir_capacity, (long long)from->reservoir_capacity);
    if (to->rescaled || from->rescaled)
        return QZ_FAIL(QZ_ARG, "statistics that a transform changed describe different inputs; merge before it");
    add_sums(to, from);
    if (to->reservoir) {
        qz_arena_mark mark = qz_arena_save(scratch);
        qz_status status = merge_rows(to, from, scratch);
        qz_arena_restore(scratch, mark);
        QZ_TRY(status);
    }
    to->tokens += from->tokens;
    return QZ_OK;
}

enum { BLOCK = 64 }; /* a tile of the mirror stays in the cache */

static void mirror(float *gram, int64_t k)
{
    QZ_PARALLEL_FOR
    for (int64_t i0 = 0; i0 < k; i0 += BLOCK)
        for (int64_t j0 = 0; j0 <= i0; j0 += BLOCK)
            for (int64_t i = i0; i < i0 + BLOCK && i < k; i++)
                for (int64_t j = j0; j < j0 + BLOCK && j < i; j++) gram[j * k + i] = gram[i * k + j];
}

qz_status qz_stats_finish(qz_stats *s)
{
    for (int64_t i = 0; i < s->k; i++)
        if ((s->gram && !isfinite(s->gram[i * s->k + i])) || !isfinite(s->absmax[i]) || !isfinite(s->abssum[i]))
            return QZ_FAIL(QZ_NUMERIC, "the statistics of channel %lld are not finite (largest |x| %g)", (long long)i,
                           s->absmax[i]);
    if (s->gram) mirror(s->gram, s->k);
    return QZ_OK;
}

qz_status qz_stats_copy(qz_stats *out, const qz_stats *s, qz_arena *arena)
{
    const size_t k = (size_t)s->k;
    const qz_stats_wants wants = {
        .reservoir = s->reservoir_capacity, .histogram = s->histogram != NULL, .no_gram = s->gram == NULL};
    QZ_TRY(qz_stats_new(out, s->k, wants, 0, 0, arena));
    if (s->gram) memcpy(out->gram, s->gram, k * k * sizeof *s->gram);
    memcpy(out->absmax, s->absmax, k * sizeof *s->absmax);
    memcpy(out->abssum, s->abssum, k * sizeof *s->abssum);
    if (s->reservoir) memcpy(out->reservoir, s->reservoir, (size_t)s->reservoir_rows * k * sizeof *s->reservoir);
    if (s->histogram) memcpy(out->histogram, s->histogram, QZ_HISTOGRAM_BINS * sizeof *s->histogram);
    out->tokens = s->tokens;
    out->reservoir_rows = s->reservoir_rows;
    out->rescaled = s->rescaled;
    out->rng = s->rng;
    out->divisor = s->divisor;
    return QZ_OK;
}

void qz_stats_rescale(qz_stats *s, const float *scale)
{
    const int64_t k = s->k;
    s->rescaled = true;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; s->gram && j < k; j++) s->gram[i * k + j] = s->gram[i * k + j] / (scale[i] * scale[j]);
        s->absmax[i] /= scale[i];
        s->abssum[i] /= (double)scale[i];
    }
    QZ_PARALLEL_FOR_STATIC
    for (int64_t r = 0; r < s->reservoir_rows; r++)
        for (int64_t j = 0; j < k; j++) s->reservoir[r * k + j] /= scale[j];
}
