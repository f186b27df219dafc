/* See fold_points.h. */
#include "calib/fold_points.h"

#include <stdio.h>

#include "calib/expert_pool.h"
#include "calib/fold.h"

static const qz_fold_point points[] = {
    {QZ_STAGE_QKV, QZ_NORM_ATTENTION, QZ_ROLES, 0},
    {QZ_STAGE_O, -1, QZ_ROLE_V, 0},
    {QZ_STAGE_GATE_UP, QZ_NORM_MLP, QZ_ROLES, 0},
    {QZ_STAGE_DOWN, -1, QZ_ROLE_UP, 0},
};

/* Is the linear quantized that holds the producer's rows? */
static bool producer_is_quantized(const qz_transform_args *a, const qz_fold_point *p)
{
    for (int i = 0; i < a->layer->linears; i++) {
        const qz_linear_place *l = qz_model_linear(a->model, a->layer->index, i);
        const int role = (int)p->producer - (int)l->role;
        if (l->expert == p->expert && role >= 0 && role < l->roles) return a->plan[i].quantized;
    }
    return false;
}

static bool has_readers(const qz_transform_args *a, const qz_fold_point *p)
{
    for (int i = 0; i < a->layer->linears; i++)
        if (qz_fold_is_reader(a, p, i)) return true;
    return false;
}

qz_status qz_fold_each(const qz_transform_args *args, bool linears,
                       qz_status (*fn)(const qz_transform_args *args, const qz_fold_point *p, qz_arena *scratch),
                       qz_arena *scratch)
{
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        qz_fold_point p = points[i];
        const int times = p.norm >= 0 ? 1 : qz_expert_inputs(args->layer, p.stage);
        if (p.norm < 0 && !linears) continue;
        for (p.expert = 0; p.expert < times; p.expert++) {
            if (!has_readers(args, &p) || (p.norm < 0 && !producer_is_quantized(args, &p))) continue;
            qz_arena_mark mark = qz_arena_save(scratch);
            QZ_TRY(fn(args, &p, scratch));
            qz_arena_restore(scratch, mark);
        }
    }
    return QZ_OK;
}

bool qz_fold_is_reader(const qz_transform_args *args, const qz_fold_point *p, int i)
{
    const qz_linear *l = &args->layer->linear[i];
    return qz_input_stage(l->input) == p->stage && (p->norm >= 0 || l->expert == p->expert) && args->plan[i].quantized;
}

void qz_fold_name(char out[64], const qz_transform_args *args, const qz_fold_point *p)
{
    const qz_layer *layer = args->layer;
    int used = snprintf(out, 64, "layer %d %s", layer->index, qz_stage_name(p->stage));
    if (p->norm < 0 && qz_expert_inputs(layer, p->stage) > 1)
        snprintf(out + used, 64 - (size_t)used, " of expert %d", p->expert);
}

qz_status qz_fold_stats(qz_stats *out, const qz_transform_args *args, const qz_fold_point *p, qz_arena *arena)
{
    *out = args->stats[qz_input_of(p->stage, p->expert)];
    return p->norm >= 0 ? qz_expert_pool(out, args, p->stage, arena) : QZ_OK;
}

void qz_fold_apply(const qz_transform_args *args, const qz_fold_point *p, float *scale)
{
    const qz_model_config *c = qz_model_config_of(args->model);
    qz_stats *stats = &args->stats[qz_input_of(p->stage, p->expert)];
    if (p->norm >= 0) {
        qz_fold_norm(args->layer, p->norm, p->stage, scale, args->plain_type);
        qz_expert_rescale(args, p->stage, scale);
        return;
    }
    if (p->producer == QZ_ROLE_V)
        qz_fold_linear(args->layer, QZ_ROLE_V, QZ_ROLE_O, 0, scale, c->heads, c->kv_heads, c->head_dim);
    else
        qz_fold_linear(args->layer, QZ_ROLE_UP, QZ_ROLE_DOWN, p->expert, scale, 1, 1, stats->k);
    qz_stats_rescale(stats, scale);
}
