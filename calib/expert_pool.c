/* See expert_pool.h. Why sums: the output error of the experts' linears is sum over e of tr(D_e G_e D_e^T), and one
 * factor per channel is folded into the norm for all of them; with the pooled G = sum G_e every expert's error counts,
 * also that of experts which got few tokens, whose own G_e says little. */
#include "calib/expert_pool.h"

#include <string.h>

#include "base/parallel.h"

int qz_expert_inputs(const qz_layer *layer, qz_stage stage)
{
    return stage < QZ_STAGE_GATE_UP ? 1 : layer->experts;
}

static void add_gram(qz_stats *to, const qz_stats *from)
{
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < to->k; i++)
        for (int64_t j = 0; j < to->k; j++) to->gram[i * to->k + j] += from->gram[i * to->k + j];
}

static void add(qz_stats *to, const qz_stats *from, int64_t all_tokens)
{
    int64_t rows = all_tokens ? to->reservoir_capacity * from->tokens / all_tokens : 0;
    if (rows > from->reservoir_rows) rows = from->reservoir_rows;
    if (rows > to->reservoir_capacity - to->reservoir_rows) rows = to->reservoir_capacity - to->reservoir_rows;
    add_gram(to, from);
    for (int64_t k = 0; k < to->k; k++) {
        to->abssum[k] += from->abssum[k];
        if (from->absmax[k] > to->absmax[k]) to->absmax[k] = from->absmax[k];
    }
    if (rows > 0)
        memcpy(to->reservoir + to->reservoir_rows * to->k, from->reservoir, (size_t)(rows * to->k) * sizeof(float));
    to->reservoir_rows += rows;
    for (int i = 0; to->histogram && i < QZ_HISTOGRAM_BINS; i++) to->histogram[i] += from->histogram[i];
    to->tokens += from->tokens;
    to->rescaled |= from->rescaled;
}

qz_status qz_expert_pool(qz_stats *out, const qz_transform_args *args, qz_stage stage, qz_arena *arena)
{
    const int inputs = qz_expert_inputs(args->layer, stage);
    const qz_stats *first = &args->stats[qz_input_of(stage, 0)];
    int64_t tokens = 0;
    *out = *first;
    if (inputs == 1) return QZ_OK;
    const qz_stats_wants wants = {.reservoir = first->reservoir_capacity, .histogram = first->histogram != NULL};
    QZ_TRY(qz_stats_new(out, first->k, wants, 0, 0, arena));
    for (int e = 0; e < inputs; e++) tokens += args->stats[qz_input_of(stage, e)].tokens;
    for (int e = 0; e < inputs; e++) add(out, &args->stats[qz_input_of(stage, e)], tokens);
    return QZ_OK;
}

void qz_expert_rescale(const qz_transform_args *args, qz_stage stage, const float *scale)
{
    for (int e = 0; e < qz_expert_inputs(args->layer, stage); e++)
        qz_stats_rescale(&args->stats[qz_input_of(stage, e)], scale);
}
