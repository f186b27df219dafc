/* See target.h. Linears that read one input are handled together: they share the solver's factor, servers may want one
 * scale for them, and the scale of their input is judged by what all of them compute. */
#include "calib/target.h"

#include "calib/activation_scale.h"
#include "calib/choices.h"
#include "calib/fold.h"
#include "calib/identity.h"
#include "calib/kv_scale.h"
#include "calib/layer_error.h"
#include "calib/outside.h"
#include "calib/run.h"

qz_status qz_target_open(qz_target *t, const qz_calib_args *args, int number, qz_arena *scratch, qz_arena *shared)
{
    *t = (qz_target){.output = &args->output[number],
                     .model = args->model,
                     .progress = args->progress,
                     .scratch = scratch,
                     .shared = shared};
    const bool resume = args->resume && qz_journal_is_there(t->output->folder);
    QZ_TRY(qz_writer_new(&t->writer, args->model, t->output, resume, args->progress));
    return args->journal ? qz_identity_journal(&t->journal, &t->done, args, t->output, resume) : QZ_OK;
}

void qz_target_close(qz_target *t)
{
    qz_writer_free(t->writer);
    qz_journal_close(t->journal);
    t->writer = NULL;
    t->journal = NULL;
}

/* A layer may have two lines when a run was interrupted twice; they say the same, since bytes do not depend on that. */
static const qz_journal_layer *finished(const qz_target *t, int layer)
{
    const qz_journal_layer *found = NULL;
    for (size_t i = 0; i < qz_journal_layers(t->journal); i++)
        if (qz_journal_layer_at(t->journal, i)->layer == layer) found = qz_journal_layer_at(t->journal, i);
    return found;
}

static qz_status restore(qz_target *t, const qz_journal_layer *l, float *peak)
{
    for (size_t j = 0; j < l->tensors; j++) QZ_TRY(qz_writer_mark(t->writer, &l->tensor[j]));
    qz_journal_report(l, t->output->report);
    const double *seen = qz_journal_number_of(l, "peak");
    if (seen && *seen > *peak) *peak = (float)*seen;
    t->reported = qz_journal_mark_of(t->output->report);
    return QZ_OK;
}

qz_status qz_target_restore(qz_target *t, int layers, float *peak)
{
    for (int i = 0; i < layers; i++) {
        const qz_journal_layer *l = finished(t, i);
        if (!l) return QZ_FAIL(QZ_FORMAT, "%s/%s: layer %d is missing", t->output->folder, QZ_JOURNAL_NAME, i);
        QZ_TRY(restore(t, l, peak));
    }
    return QZ_OK;
}

qz_status qz_target_restore_embedding(qz_target *t, bool *done)
{
    float none = 0;
    const qz_journal_layer *l = t->journal ? finished(t, QZ_TARGET_EMBEDDING) : NULL;
    *done = l != NULL;
    return l ? restore(t, l, &none) : QZ_OK;
}

qz_status qz_target_commit(qz_target *t, int layer, float peak)
{
    if (!t->journal) return QZ_OK;
    qz_arena_mark mark = qz_arena_save(t->scratch);
    const qz_journal_number number = {"peak", peak};
    qz_journal_layer line = {.layer = layer, .number = &number, .numbers = 1};
    QZ_TRY(qz_journal_since(&line, t->output->report, t->reported, t->scratch));
    QZ_TRY(qz_writer_sync(t->writer, &line.tensor, &line.tensors, t->scratch));
    QZ_TRY(qz_journal_add(t->journal, &line));
    t->reported = qz_journal_mark_of(t->output->report);
    qz_arena_restore(t->scratch, mark);
    return QZ_OK;
}

qz_stats_wants qz_target_wants(const qz_calib_output *output)
{
    return (qz_stats_wants){.reservoir = QZ_RUN_RESERVOIR,
                            .histogram = (qz_choice_needs(output->recipe) & QZ_NEED_HISTOGRAM) != 0};
}

static const qz_export_linear *plan_of(const qz_target *t, int layer)
{
    return t->output->plan->linear + t->output->plan->first[layer];
}

/* ---- transforms ---- */

/* What is not quantized is used as it will be stored, so that the layers that follow see what the server will see. */
static void round_plain(const qz_target *t, const qz_layer *layer)
{
    const qz_dtype type = t->output->plan->plain_type;
    for (int i = 0; i < QZ_NORMS; i++) qz_round_stored(&layer->norm[i], type);
    qz_round_stored(&layer->q_norm, type);
    qz_round_stored(&layer->k_norm, type);
    qz_round_stored(&layer->router, type);
    for (int i = 0; i < layer->linears; i++) {
        qz_round_stored(&layer->linear[i].bias, type);
        if (!plan_of(t, layer->index)[i].quantized) qz_round_stored(&layer->linear[i].weight, type);
    }
}

static qz_status transform(const qz_target *t, qz_layer *layer, qz_stats *stats, qz_arena *arena)
{
    const qz_recipe *recipe = t->output->recipe;
    qz_search_weight *ranges = qz_arena_array(arena, qz_search_weight, (size_t)layer->linears);
    if (!ranges) return qz_arena_failed(arena);
    for (int i = 0; i < layer->linears; i++)
        ranges[i] = qz_choice_range(qz_choice_weights(recipe, layer->linear[i].module), layer->linear[i].role);
    for (int i = 0; i < recipe->transforms; i++) {
        const qz_choice *choice = &recipe->transform[i];
        qz_transform_args args = {
            .model = t->model,
            .layer = layer,
            .stats = stats,
            .plan = plan_of(t, layer->index),
            .ranges = ranges,
            .plain_type = t->output->plan->plain_type,
            .options = &choice->options,
            .report = t->output->report,
            .seed = recipe->calibration.seed,
        };
        QZ_TRY(qz_transform_at((size_t)choice->index)->apply(&args, t->scratch));
    }
    return QZ_OK;
}

/* ---- codes ---- */

enum { MOST_OF_AN_INPUT = 3 }; /* q, k and v */

/* The linears of one input that are quantized. */
typedef struct input_set {
    const qz_export_linear *plan; /* of the layer */
    int count;
    int number[MOST_OF_AN_INPUT]; /* in the layer */
    qz_solve_args args[MOST_OF_AN_INPUT];
    qz_qtensor given[MOST_OF_AN_INPUT], q[MOST_OF_AN_INPUT];
} input_set;

static qz_solve_args args_of(const qz_target *t, const qz_linear *linear, const qz_export_linear *l,
                             const qz_stats *stats)
{
    const qz_recipe_weights *weights = qz_choice_weights(t->output->recipe, l->module);
    const qz_search_weight range = qz_choice_range(weights, linear->role);
    return (qz_solve_args){
        .backend = qz_model_backend(t->model),
        .weight = linear->weight,
        .stats = stats,
        .scheme = l->scheme,
        .range = range.range,
        .range_options = range.range_options,
        .solver_options = weights->solver.options,
        .may_fall_back = weights->fall_back,
    };
}

static bool is_per_tensor(const qz_scheme *s)
{
    return s->piece_rows == 0 && s->piece_cols == 0 && s->flat == 0;
}

/* A fused set has one scale for the whole tensor: servers keep one, and would round the other parts again. */
static qz_status share_scale(const qz_target *t, input_set *set)
{
    float most = 0;
    if (set->count < 2 || !is_per_tensor(&set->args[0].scheme)) return QZ_OK;
    for (int i = 0; i < set->count; i++) {
        qz_solve_args *a = &set->args[i];
        QZ_TRY(qz_qtensor_alloc(&set->given[i], &a->scheme, 1, 1, t->scratch));
        set->given[i].rows = a->weight.shape[0];
        set->given[i].cols = a->weight.shape[1];
        QZ_TRY(a->range->choose(&set->given[i], a->backend, &a->weight, a->stats, &a->range_options));
        if (set->given[i].scales[0] > most) most = set->given[i].scales[0];
    }
    for (int i = 0; i < set->count; i++) {
        set->given[i].scales[0] = most;
        set->args[i].given = &set->given[i];
    }
    return QZ_OK;
}

static void report_solved(const qz_target *t, const char *module, double error, const qz_solve_info *info)
{
    qz_report *report = t->output->report;
    qz_report_add(report, "linear", module, "relative_output_error", error, "");
    if (info->damping > 0) qz_report_add(report, "linear", module, "damping", info->damping, "");
    if (info->dead_channels) qz_report_add(report, "linear", module, "dead_channels", (double)info->dead_channels, "");
    if (info->rows_kept) qz_report_add(report, "linear", module, "rows_kept", (double)info->rows_kept, "");
    if (!info->fell_back) return;
    qz_report_text(report, "linear", module, "solver", "rtn");
    qz_report_note(report, QZ_WARN, "%s: the solver failed, and rounding took its place as on_failure says", module);
}

static qz_status solve(const qz_target *t, input_set *set, int i, const char *module, qz_solve_shared *shared)
{
    const qz_recipe_weights *weights = qz_choice_weights(t->output->recipe, module);
    qz_solve_args *a = &set->args[i];
    qz_solve_info info;
    double error;
    a->shared = shared;
    QZ_TRY_CTX(qz_solver_at((size_t)weights->solver.index)->solve(&set->q[i], &info, a, t->scratch), "%s", module);
    QZ_TRY(qz_layer_error(&error, a->backend, &a->weight, &set->q[i], a->stats, t->scratch));
    report_solved(t, module, error, &info);
    return qz_progress_step(t->progress, 0, "");
}

static void collect(const qz_target *t, input_set *set, const qz_export_linear *plan, const qz_layer *layer, int input,
                    const qz_stats *stats)
{
    *set = (input_set){.plan = plan};
    for (int i = 0; i < layer->linears; i++) {
        if (layer->linear[i].input != input || !plan[i].quantized) continue;
        set->args[set->count] = args_of(t, &layer->linear[i], &plan[i], stats);
        set->number[set->count++] = i;
    }
}

/* Writes the linears of an input; their values become those of the codes. */
static qz_status write_set(const qz_target *t, const input_set *set, const qz_layer *layer, const qz_act_values *act)
{
    for (int i = 0; i < set->count; i++) {
        const qz_linear *linear = &layer->linear[set->number[i]];
        const qz_export_linear *l = &set->plan[set->number[i]];
        QZ_TRY(qz_writer_linear(t->writer, l, linear, &set->q[i], act, t->scratch));
        qz_qtensor_dequantize(qz_f32(&linear->weight), &set->q[i], 0, l->n);
        if (!qz_writer_keeps_codes(t->writer)) qz_round_stored(&linear->weight, t->output->plan->plain_type);
    }
    return QZ_OK;
}

/* The static scale of an input: judged by what the quantized linears that read it compute. */
static qz_status scale_input(const qz_target *t, const input_set *set, const qz_layer *layer,
                             qz_eval_input_rounding *served)
{
    const qz_recipe_weights *weights;
    const qz_recipe_activations *activations;
    qz_activation_reader reader[MOST_OF_AN_INPUT];
    qz_activation_choice choice;
    if (served->scheme.mode != QZ_ACT_TENSOR) return QZ_OK;
    for (int i = 0; i < set->count; i++)
        reader[i] = (qz_activation_reader){layer->linear[set->number[i]].module, set->args[i].weight, &set->q[i]};
    (void)qz_recipe_module(t->output->recipe, reader[0].module, &weights, &activations);
    const qz_activation_args args = {.backend = qz_model_backend(t->model),
                                     .stats = set->args[0].stats,
                                     .scheme = served->scheme,
                                     .observer = activations->observer.index,
                                     .options = activations->observer.options,
                                     .reader = reader,
                                     .readers = set->count,
                                     .report = t->output->report};
    QZ_TRY_CTX(qz_activation_scale(&choice, &args, t->scratch), "%s", reader[0].module);
    served->values = choice.values;
    return QZ_OK;
}

static qz_status quantize_input(const qz_target *t, const qz_export_linear *plan, const qz_layer *layer, int input,
                                const qz_stats *stats, qz_eval_input_rounding *served)
{
    input_set set;
    qz_solve_shared shared = {.arena = t->shared};
    collect(t, &set, plan, layer, input, stats);
    if (!set.count) return QZ_OK;
    QZ_TRY(share_scale(t, &set));
    for (int i = 0; i < set.count; i++) QZ_TRY(solve(t, &set, i, layer->linear[set.number[i]].module, &shared));
    served->scheme = plan[set.number[0]].activation;
    QZ_TRY(scale_input(t, &set, layer, served));
    QZ_TRY(write_set(t, &set, layer, &served->values));
    qz_arena_reset(t->shared);
    return QZ_OK;
}

/* ---- the cache ---- */

static qz_status scale_cache(const qz_target *t, const qz_layer *layer, const qz_layer_stats *stats,
                             qz_eval_layer_rounding *served, qz_arena *arena)
{
    const qz_export_plan *plan = t->output->plan;
    const qz_choice *observer = &t->output->recipe->kv_cache.observer;
    float *key = qz_arena_array(arena, float, (size_t)plan->kv_heads);
    float *value = qz_arena_array(arena, float, (size_t)plan->kv_heads);
    if (!key || !value) return qz_arena_failed(arena);
    const qz_kv_args args = {.backend = qz_model_backend(t->model),
                             .scheme = plan->kv,
                             .observer = observer->index,
                             .options = observer->options,
                             .module = plan->attention[layer->index],
                             .key = &stats->kv[0],
                             .value = &stats->kv[1],
                             .kv_heads = plan->kv_heads,
                             .report = t->output->report};
    QZ_TRY_CTX(qz_kv_scales(key, value, &args, t->scratch), "%s", args.module);
    served->kv = plan->kv;
    served->key = key;
    served->value = value;
    return qz_writer_kv(t->writer, layer->index, &(qz_kv_values){key, value});
}

static qz_status served_new(qz_target *t, const qz_layer *layer, qz_eval_layer_rounding *served, qz_arena *arena)
{
    const int inputs = qz_model_inputs(t->model, layer->index);
    t->input = qz_arena_calloc(arena, (size_t)inputs * sizeof *t->input);
    if (!t->input) return qz_arena_failed(arena);
    *served = (qz_eval_layer_rounding){.backend = qz_model_backend(t->model), .inputs = inputs, .input = t->input};
    return QZ_OK;
}

qz_status qz_target_begin(qz_target *t, qz_layer *layer, qz_stats *stats, qz_eval_layer_rounding *served,
                          qz_arena *arena)
{
    QZ_TRY(served_new(t, layer, served, arena));
    qz_progress_section(t->progress, "transform");
    if (stats) QZ_TRY(transform(t, layer, stats, arena));
    round_plain(t, layer);
    return QZ_OK;
}

qz_status qz_target_input(qz_target *t, const qz_layer *layer, int input, const qz_stats *stats)
{
    qz_arena_mark mark = qz_arena_save(t->scratch);
    qz_progress_section(t->progress, "quantize");
    QZ_TRY(quantize_input(t, plan_of(t, layer->index), layer, input, stats, &t->input[input]));
    qz_arena_restore(t->scratch, mark);
    return QZ_OK;
}

/* What stays plain. */
qz_status qz_target_end(qz_target *t, const qz_layer *layer)
{
    const qz_export_linear *plan = plan_of(t, layer->index);
    for (int i = 0; i < layer->linears; i++)
        if (!plan[i].quantized)
            QZ_TRY(qz_writer_linear(t->writer, &plan[i], &layer->linear[i], NULL, NULL, t->scratch));
    for (int i = 0; i < QZ_NORMS; i++)
        if (layer->norm_name[i]) QZ_TRY(qz_writer_plain(t->writer, layer->norm_name[i], &layer->norm[i], t->scratch));
    if (!layer->router_name) return QZ_OK;
    return qz_writer_plain(t->writer, layer->router_name, &layer->router, t->scratch);
}

qz_status qz_target_layer(qz_target *t, qz_layer *layer, const qz_layer_stats *stats, qz_eval_layer_rounding *served,
                          qz_arena *arena)
{
    QZ_TRY(qz_target_begin(t, layer, stats->input, served, arena));
    for (int i = 0; i < served->inputs; i++) QZ_TRY(qz_target_input(t, layer, i, &stats->input[i]));
    if (t->output->plan->kv.wanted) QZ_TRY(scale_cache(t, layer, stats, served, arena));
    return qz_target_end(t, layer);
}

qz_status qz_target_outside(qz_target *t, qz_end end, const qz_linear *linear, const qz_stats *stats)
{
    qz_eval_input_rounding served = {0};
    qz_linear own = *linear;
    const qz_dtype plain = t->output->plan->plain_type;
    const qz_layer alone = {.linears = 1, .linear = &own};
    const qz_export_linear *plan = qz_outside_planned(t->output->plan, t->model, end);
    if (!plan) return QZ_OK;
    qz_arena_mark mark = qz_arena_save(t->scratch);
    qz_progress_section(t->progress, "quantize");
    if (plan->quantized) {
        QZ_TRY(quantize_input(t, plan, &alone, 0, stats, &served));
    } else {
        qz_round_stored(&own.weight, plain);
        QZ_TRY(qz_writer_linear(t->writer, plan, &own, NULL, NULL, t->scratch));
    }
    qz_arena_restore(t->scratch, mark);
    return QZ_OK;
}

qz_status qz_target_finish(qz_target *t)
{
    QZ_TRY(qz_activation_propose(t->output->report, t->scratch));
    return qz_writer_finish(t->writer, t->scratch);
}
