/* SmoothQuant: moves what is hard to round from activations into weights (Xiao et al. 2023, "SmoothQuant: Accurate and
 * Efficient Post-Training Quantization for Large Language Models", eq. 4).
 *
 * Folds a layer, each with a strength alpha of its own when that is searched:
 *     attention norm -> q k v      MLP norm -> gate up      v -> o      up -> down
 * The paper has the first two; the others are an option, off because factors fitted to the largest values of short
 * calibration texts leave a static scale no room there (docs/methods.md has the figures). The search compares, on
 * sampled tokens, what the linears would really compute with weight and input rounded (smoothquant.c), for alpha = 0.3,
 * 0.4 .. 0.9, for the two neighbours 0.05 beside the best of these, and for no factor at all, which stays when nothing
 * is better. A fixed alpha is folded as asked. Where a
 * producer is left unquantized a linear's rows are not divided: its stored type would round every weight of the row.
 * Under grouped queries the channels of o that come from one v head share a factor. Behind a norm the linears of all
 * experts share one fold. */
#include "base/parallel.h"
#include "calib/activation_scale.h"
#include "calib/fold_points.h"
#include "calib/smoothquant.h"

static const qz_option options[] = {
    QZ_OPTION_NUMBER("alpha", 0.8, 0, 1, "strength: 0 evens out the weights, 1 the activations"),
    QZ_OPTION_BOOL("search", false, "choose alpha for each fold by the error of the outputs, instead of `alpha`"),
    QZ_OPTION_BOOL("linears", false, "also fold v into o and up into down"),
    QZ_OPTION_END,
};

enum { FIRST = 6, LAST = 19, COARSE = 2 }; /* alpha = i / 20 */

/* One input with what reads it. */
typedef struct mapping {
    const qz_transform_args *args;
    const qz_fold_point *point;
    qz_stats stats; /* behind a norm those of all experts together */
    qz_smoothing_linear *linear;
    qz_smoothing smoothing;
    float *absmax_x, *absmax_w, *scale; /* (K) */
    char where[64];
} mapping;

/* ---- maxima ---- */

/* out[j] = max over all readers of |w_j|. */
static void weight_maxima(float *out, const qz_smoothing *s)
{
    const int64_t k = s->stats->k;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t j0 = 0; j0 < k; j0 += 64) {
        const int64_t end = j0 + 64 < k ? j0 + 64 : k;
        for (int64_t j = j0; j < end; j++) out[j] = 0;
        for (int i = 0; i < s->linears; i++) {
            const float *w = qz_f32(&s->linear[i].weight);
            for (int64_t n = 0; n < s->linear[i].weight.shape[0]; n++)
                for (int64_t j = j0; j < end; j++) {
                    const float size = w[n * k + j] < 0 ? -w[n * k + j] : w[n * k + j];
                    out[j] = size > out[j] ? size : out[j];
                }
        }
    }
}

/* The channels of the query heads that read one v head get the largest of theirs. */
static void tie_heads(float *x, const qz_model_config *c)
{
    const int64_t shared = c->heads / c->kv_heads, size = c->head_dim;
    for (int64_t g = 0; g < c->kv_heads; g++)
        for (int64_t d = 0; d < size; d++) {
            float *first = x + g * shared * size + d, most = 0;
            for (int64_t h = 0; h < shared; h++) most = first[h * size] > most ? first[h * size] : most;
            for (int64_t h = 0; h < shared; h++) first[h * size] = most;
        }
}

/* ---- one mapping ---- */

static qz_status collect(mapping *m, const qz_transform_args *a, const qz_fold_point *p, qz_arena *scratch)
{
    *m = (mapping){.args = a, .point = p};
    m->linear = qz_arena_array(scratch, qz_smoothing_linear, (size_t)a->layer->linears);
    if (!m->linear) return qz_arena_failed(scratch);
    m->smoothing = (qz_smoothing){.backend = qz_model_backend(a->model), .stats = &m->stats, .linear = m->linear};
    for (int i = 0; i < a->layer->linears; i++) {
        if (!qz_fold_is_reader(a, p, i)) continue;
        m->linear[m->smoothing.linears++] = (qz_smoothing_linear){a->layer->linear[i].weight, a->plan[i].scheme};
        m->smoothing.activation = a->plan[i].activation;
    }
    qz_fold_name(m->where, a, p);
    return qz_fold_stats(&m->stats, a, p, scratch);
}

static qz_status find_maxima(mapping *m, qz_arena *scratch)
{
    const int64_t k = m->stats.k;
    float *data = qz_arena_array(scratch, float, (size_t)(3 * k));
    if (!data) return qz_arena_failed(scratch);
    m->absmax_x = data, m->absmax_w = data + k, m->scale = data + 2 * k;
    for (int64_t j = 0; j < k; j++) m->absmax_x[j] = m->stats.absmax[j];
    weight_maxima(m->absmax_w, &m->smoothing);
    if (m->point->producer != QZ_ROLE_V) return QZ_OK;
    tie_heads(m->absmax_x, qz_model_config_of(m->args->model));
    tie_heads(m->absmax_w, qz_model_config_of(m->args->model));
    return QZ_OK;
}

/* Where no factor makes a static scale hold, but a scale for each token would without any, the override is proposed:
 * what is left after a strong factor is the error of the weights, which a later look at the input does not see. */
static qz_status propose(const mapping *m, double least, qz_arena *scratch)
{
    double dynamic;
    qz_smoothing s = m->smoothing;
    if (s.activation.mode != QZ_ACT_TENSOR || !qz_activation_needs_dynamic(least, 0)) return QZ_OK;
    s.activation.mode = QZ_ACT_TOKEN;
    QZ_TRY(qz_smoothing_error(&dynamic, &s, NULL, scratch));
    if (!qz_activation_needs_dynamic(least, dynamic)) return QZ_OK;
    for (int i = 0; i < m->args->layer->linears; i++) {
        const qz_linear *l = &m->args->layer->linear[i];
        if (qz_input_stage(l->input) == m->point->stage && (m->point->norm >= 0 || l->expert == m->point->expert))
            qz_activation_report_need(m->args->report, l->module);
    }
    return QZ_OK;
}

static void use_alpha(mapping *m, int i)
{
    qz_smoothquant_scales(m->scale, m->absmax_x, m->absmax_w, m->stats.k, i / 20.0);
}

typedef struct best {
    int alpha; /* -1: none yet */
    double error;
} best;

static qz_status try_alpha(best *b, mapping *m, int i, qz_arena *scratch)
{
    double error;
    if (i < FIRST || i > LAST) return QZ_OK;
    use_alpha(m, i);
    QZ_TRY(qz_smoothing_error(&error, &m->smoothing, m->scale, scratch));
    if (b->alpha < 0 || error < b->error) *b = (best){i, error};
    return QZ_OK;
}

/* Coarse, then the two neighbours. */
static qz_status find_alpha(best *b, mapping *m, qz_arena *scratch)
{
    *b = (best){.alpha = -1};
    for (int i = FIRST; i <= LAST; i += COARSE) QZ_TRY(try_alpha(b, m, i, scratch));
    const int middle = b->alpha;
    QZ_TRY(try_alpha(b, m, middle - 1, scratch));
    return try_alpha(b, m, middle + 1, scratch);
}

/* Leaves the best factors in m->scale; false when none is better than no factor. */
static qz_status search(mapping *m, bool *found, qz_arena *scratch)
{
    double identity;
    best b;
    if (!m->stats.reservoir_rows)
        return QZ_FAIL(QZ_ARG, "smoothquant's search needs sampled rows, which these statistics lack; give `alpha`");
    QZ_TRY(qz_smoothing_begin(&m->smoothing, scratch));
    QZ_TRY(qz_smoothing_error(&identity, &m->smoothing, NULL, scratch));
    QZ_TRY(find_alpha(&b, m, scratch));
    *found = b.error < identity;
    if (*found) use_alpha(m, b.alpha);
    if (*found) qz_report_add(m->args->report, "smoothquant", m->where, "alpha", b.alpha / 20.0, "");
    qz_report_add(m->args->report, "smoothquant", m->where, "error_before", identity, "");
    qz_report_add(m->args->report, "smoothquant", m->where, "error", *found ? b.error : identity, "");
    return propose(m, *found ? b.error : identity, scratch);
}

static qz_status choose(mapping *m, bool *found, qz_arena *scratch)
{
    QZ_TRY(find_maxima(m, scratch));
    if (qz_options_bool(m->args->options, "search")) return search(m, found, scratch);
    const double alpha = qz_options_number(m->args->options, "alpha");
    qz_smoothquant_scales(m->scale, m->absmax_x, m->absmax_w, m->stats.k, alpha);
    qz_report_add(m->args->report, "smoothquant", m->where, "alpha", alpha, "");
    *found = true;
    return QZ_OK;
}

static qz_status apply_at(const qz_transform_args *a, const qz_fold_point *p, qz_arena *scratch)
{
    mapping m;
    bool found = false;
    QZ_TRY(collect(&m, a, p, scratch));
    if (m.stats.tokens == 0) return QZ_OK; /* an expert of which nothing is known */
    QZ_TRY_CTX(choose(&m, &found, scratch), "%s", m.where);
    if (found) qz_fold_apply(a, p, m.scale);
    return QZ_OK;
}

static qz_status apply(const qz_transform_args *a, qz_arena *scratch)
{
    return qz_fold_each(a, qz_options_bool(a->options, "linears"), apply_at, scratch);
}

const qz_transform qz_transform_smoothquant = {
    .plugin = {"smoothquant", "moves outliers of the activations into the weights, by a fixed or searched strength",
               "Xiao et al. 2023, eq. 4", options},
    .needs = QZ_NEED_ABSMAX | QZ_NEED_RESERVOIR,
    .apply = apply,
};
