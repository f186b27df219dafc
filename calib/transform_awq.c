/* AWQ: activation-aware weight scaling (Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression
 * and Acceleration", section 3.2).
 *
 * Four folds a layer, each with its own search over s (quant/scale_search.c):
 *     attention norm -> q k v      MLP norm -> gate up      v -> o      up -> down
 * In a layer with experts, the MLP norm has one search over gate and up of all experts, on the statistics of all
 * (expert_pool.h), and up -> down one for each expert; the router's columns take the norm's factors, too.
 * Under grouped queries the heads that read one v head share its rows, so their channels of o share s; published
 * implementations skip that fold. A producer row divided by s changes only its own quantization scale, so the two
 * linear -> linear folds cost their producer nothing. Where the producer is left unquantized they are left out: its
 * stored type would round every weight of the row. */
#include <stdio.h>

#include "calib/calib.h"
#include "calib/expert_pool.h"
#include "calib/fold.h"

static const qz_option options[] = {
    QZ_OPTION_INT("grid", 20, 2, 200, "points of the search over the exponent of the activation means"),
    QZ_OPTION_BOOL("weight_means", true, "also try the variant divided by the weight means"),
    QZ_OPTION_END,
};

/* Where the factors of a stage's input go. */
typedef struct fold_point {
    qz_stage stage;
    int norm;         /* of layer->norm, or -1 */
    qz_role producer; /* when norm is -1 */
} fold_point;

static const fold_point points[] = {
    {QZ_STAGE_QKV, QZ_NORM_ATTENTION, QZ_ROLES},
    {QZ_STAGE_O, -1, QZ_ROLE_V},
    {QZ_STAGE_GATE_UP, QZ_NORM_MLP, QZ_ROLES},
    {QZ_STAGE_DOWN, -1, QZ_ROLE_UP},
};

static void report(const qz_transform_args *a, const fold_point *p, int expert, const qz_search_result *r)
{
    char where[64];
    int used = snprintf(where, sizeof where, "layer %d %s", a->layer->index, qz_stage_name(p->stage));
    if (p->norm < 0 && qz_expert_inputs(a->layer, p->stage) > 1)
        snprintf(where + used, sizeof where - (size_t)used, " of expert %d", expert);
    qz_report_add(a->report, "awq", where, "exponent", r->exponent, "");
    qz_report_add(a->report, "awq", where, "weight_means", r->used_weight_means, "");
    qz_report_add(a->report, "awq", where, "loss_ratio", r->identity_loss > 0 ? r->loss / r->identity_loss : 1, "");
}

/* Is the linear quantized that holds the producer's rows? */
static bool producer_is_quantized(const qz_transform_args *a, qz_role producer, int expert)
{
    for (int i = 0; i < a->layer->linears; i++) {
        const qz_linear_place *l = qz_model_linear(a->model, a->layer->index, i);
        const int role = (int)producer - (int)l->role;
        if (l->expert == expert && role >= 0 && role < l->roles) return a->plan[i].quantized;
    }
    return false;
}

/* Quantized linears that read what is scaled: those of one expert, or behind a norm those of all. */
static void find_readers(qz_search_args *s, qz_search_weight *weight, const qz_transform_args *a, const fold_point *p,
                         int expert)
{
    for (int i = 0; i < a->layer->linears; i++) {
        const qz_linear *l = &a->layer->linear[i];
        if (qz_input_stage(l->input) != p->stage || (p->norm < 0 && l->expert != expert) || !a->plan[i].quantized)
            continue;
        weight[s->weights] = a->ranges[i];
        weight[s->weights++].weight = l->weight;
        s->scheme = a->plan[i].scheme;
    }
    s->weight = weight;
}

static void fold(const qz_transform_args *a, const fold_point *p, int expert, float *scale)
{
    const qz_model_config *c = qz_model_config_of(a->model);
    qz_stats *stats = &a->stats[qz_input_of(p->stage, expert)];
    if (p->norm >= 0) {
        qz_fold_norm(a->layer, p->norm, p->stage, scale, a->plain_type);
        qz_expert_rescale(a, p->stage, scale);
        return;
    }
    if (p->producer == QZ_ROLE_V)
        qz_fold_linear(a->layer, QZ_ROLE_V, QZ_ROLE_O, 0, scale, c->heads, c->kv_heads, c->head_dim);
    else
        qz_fold_linear(a->layer, QZ_ROLE_UP, QZ_ROLE_DOWN, expert, scale, 1, 1, stats->k);
    qz_stats_rescale(stats, scale);
}

static qz_status apply_at(const qz_transform_args *a, const fold_point *p, int expert, qz_arena *scratch)
{
    const qz_model_config *c = qz_model_config_of(a->model);
    const bool tied = p->producer == QZ_ROLE_V;
    qz_stats stats = a->stats[qz_input_of(p->stage, expert)];
    qz_search_args search = {
        .backend = qz_model_backend(a->model),
        .stats = &stats,
        .grid = (int)qz_options_int(a->options, "grid"),
        .weight_means = qz_options_bool(a->options, "weight_means"),
        .tie_heads = tied ? c->heads : 0,
        .tie_groups = tied ? c->kv_heads : 0,
        .tie_size = tied ? c->head_dim : 0,
        .seed = a->seed,
    };
    qz_search_weight *weight = qz_arena_array(scratch, qz_search_weight, (size_t)a->layer->linears);
    qz_search_result found = {.scale = qz_arena_array(scratch, float, (size_t)stats.k)};
    if (!weight || !found.scale) return qz_arena_failed(scratch);
    find_readers(&search, weight, a, p, expert);
    if (!search.weights || (p->norm < 0 && !producer_is_quantized(a, p->producer, expert))) return QZ_OK;
    if (p->norm >= 0) QZ_TRY(qz_expert_pool(&stats, a, p->stage, scratch));
    if (stats.tokens == 0) return QZ_OK; /* an expert of which nothing is known */
    QZ_TRY_CTX(qz_scale_search(&found, &search, scratch), "layer %d, %s", a->layer->index, qz_stage_name(p->stage));
    report(a, p, expert, &found);
    if (!found.kept_identity) fold(a, p, expert, found.scale);
    return QZ_OK;
}

static qz_status apply(const qz_transform_args *a, qz_arena *scratch)
{
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        const int times = points[i].norm >= 0 ? 1 : qz_expert_inputs(a->layer, points[i].stage);
        for (int expert = 0; expert < times; expert++) {
            qz_arena_mark mark = qz_arena_save(scratch);
            QZ_TRY(apply_at(a, &points[i], expert, scratch));
            qz_arena_restore(scratch, mark);
        }
    }
    return QZ_OK;
}

const qz_transform qz_transform_awq = {
    .plugin = {"awq",
               "scales input channels by a searched power of their mean activation, folded into norms and neighbours",
               "Lin et al. 2023, eq. 4-5", options},
    .needs = QZ_NEED_GRAM | QZ_NEED_ABSMEAN | QZ_NEED_RESERVOIR,
    .apply = apply,
};
