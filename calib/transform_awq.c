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
#include "calib/fold_points.h"

static const qz_option options[] = {
    QZ_OPTION_INT("grid", 20, 2, 200, "points of the search over the exponent of the activation means"),
    QZ_OPTION_BOOL("weight_means", true, "also try the variant divided by the weight means"),
    QZ_OPTION_END,
};

static void report(const qz_transform_args *a, const qz_fold_point *p, const qz_search_result *r)
{
    char where[64];
    qz_fold_name(where, a, p);
    qz_report_add(a->report, "awq", where, "exponent", r->exponent, "");
    qz_report_add(a->report, "awq", where, "weight_means", r->used_weight_means, "");
    qz_report_add(a->report, "awq", where, "loss_ratio", r->identity_loss > 0 ? r->loss / r->identity_loss : 1, "");
}

static void find_readers(qz_search_args *s, qz_search_weight *weight, const qz_transform_args *a,
                         const qz_fold_point *p)
{
    for (int i = 0; i < a->layer->linears; i++) {
        if (!qz_fold_is_reader(a, p, i)) continue;
        weight[s->weights] = a->ranges[i];
        weight[s->weights++].weight = a->layer->linear[i].weight;
        s->scheme = a->plan[i].scheme;
    }
    s->weight = weight;
}

static qz_status apply_at(const qz_transform_args *a, const qz_fold_point *p, qz_arena *scratch)
{
    const qz_model_config *c = qz_model_config_of(a->model);
    const bool tied = p->producer == QZ_ROLE_V;
    qz_stats stats;
    QZ_TRY(qz_fold_stats(&stats, a, p, scratch));
    if (stats.tokens == 0) return QZ_OK; /* an expert of which nothing is known */
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
    find_readers(&search, weight, a, p);
    QZ_TRY_CTX(qz_scale_search(&found, &search, scratch), "layer %d, %s", a->layer->index, qz_stage_name(p->stage));
    report(a, p, &found);
    if (!found.kept_identity) qz_fold_apply(a, p, found.scale);
    return QZ_OK;
}

static qz_status apply(const qz_transform_args *a, qz_arena *scratch)
{
    return qz_fold_each(a, true, apply_at, scratch);
}

const qz_transform qz_transform_awq = {
    .plugin = {"awq",
               "scales input channels by a searched power of their mean activation, folded into norms and neighbours",
               "Lin et al. 2023, eq. 4-5", options},
    .needs = QZ_NEED_GRAM | QZ_NEED_ABSMEAN | QZ_NEED_RESERVOIR,
    .apply = apply,
};
