/* See expert_pool.h. Why sums: the output error of the experts' linears is sum over e of tr(D_e G_e D_e^T), and one
 * factor per channel is folded into the norm for all of them; with the pooled G = sum G_e every expert's error counts,
 * also that of experts which got few tokens, whose own G_e says little. */
#include "calib/expert_pool.h"

int qz_expert_inputs(const qz_layer *layer, qz_stage stage)
{
    return stage < QZ_STAGE_GATE_UP ? 1 : layer->experts;
}

qz_status qz_expert_pool(qz_stats *out, const qz_transform_args *args, qz_stage stage, qz_arena *arena)
{
    const int inputs = qz_expert_inputs(args->layer, stage);
    const qz_stats *first = &args->stats[qz_input_of(stage, 0)];
    *out = *first;
    if (inputs == 1) return QZ_OK;
    const qz_stats_wants wants = {
        .reservoir = first->reservoir_capacity, .histogram = first->histogram != NULL, .no_gram = first->gram == NULL};
    QZ_TRY(qz_stats_new(out, first->k, wants, args->seed, (uint64_t)args->layer->index, arena));
    bool rescaled = false;
    for (int e = 0; e < inputs; e++) {
        qz_stats one = args->stats[qz_input_of(stage, e)];
        rescaled |= one.rescaled;
        one.rescaled = false; /* an earlier fold into the same norm divided the inputs of all experts alike */
        QZ_TRY(qz_stats_merge(out, &one, arena));
    }
    out->rescaled = rescaled;
    return QZ_OK;
}

void qz_expert_rescale(const qz_transform_args *args, qz_stage stage, const float *scale)
{
    for (int e = 0; e < qz_expert_inputs(args->layer, stage); e++)
        qz_stats_rescale(&args->stats[qz_input_of(stage, e)], scale);
}
