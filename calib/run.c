/* The main loop: one layer at a time, look, transform, quantize, write, move on. See calib.h for the order and why. */
#include <stdio.h>

#include "calib/fold.h"
#include "calib/gather.h"
#include "calib/layer_error.h"
#include "calib/run.h"
#include "calib/writer.h"

typedef struct run {
    const qz_calib_args *args;
    const qz_recipe *recipe;
    const qz_model *model;
    qz_writer *writer;
    qz_stream stream;
    float peak;      /* largest |activation| */
    qz_arena *data;  /* the stream: lives as long as the run */
    qz_arena *layer; /* weights, statistics and codes of one layer */
    qz_arena *scratch;
} run;

static const qz_export_linear *plan_of(const run *r, int layer)
{
    return r->args->plan->linear + r->args->plan->first[layer];
}

static qz_status stats_new(const run *r, int layer, qz_stats **stats)
{
    const int inputs = qz_model_inputs(r->model, layer);
    *stats = qz_arena_array(r->layer, qz_stats, (size_t)inputs);
    if (!*stats) return qz_arena_failed(r->layer);
    for (int i = 0; i < inputs; i++)
        QZ_TRY(qz_stats_new(&(*stats)[i], qz_model_input_width(r->model, layer, i),
                            (qz_stats_wants){.reservoir = QZ_RUN_RESERVOIR}, r->recipe->calibration.seed,
                            (uint64_t)(layer * inputs + i), r->layer));
    return QZ_OK;
}

/* What is not quantized is used as it will be stored, so that the layers that follow see what the server will see. */
static void round_plain(const run *r, const qz_layer *layer)
{
    const qz_dtype type = r->args->plan->plain_type;
    for (int i = 0; i < QZ_NORMS; i++) qz_round_stored(&layer->norm[i], type);
    qz_round_stored(&layer->q_norm, type);
    qz_round_stored(&layer->k_norm, type);
    qz_round_stored(&layer->router, type);
    for (int i = 0; i < layer->linears; i++) {
        qz_round_stored(&layer->linear[i].bias, type);
        if (!plan_of(r, layer->index)[i].quantized) qz_round_stored(&layer->linear[i].weight, type);
    }
}

/* The published AWQ leaves q and k out of the clip search: their outputs meet in a product, where a clipped outlier
 * costs more than the error of either output says. A range says itself what takes its place there. */
static qz_search_weight range_of(const run *r, qz_role role)
{
    const qz_choice *choice = &r->recipe->weights.range;
    const qz_range *range = qz_range_at((size_t)choice->index);
    bool product = role == QZ_ROLE_Q || role == QZ_ROLE_K;
    if (!product || !range->for_products) return (qz_search_weight){.range = range, .range_options = choice->options};
    range = range->for_products;
    return (qz_search_weight){.range = range, .range_options = qz_options_default(range->plugin.options)};
}

static qz_status transform(const run *r, qz_layer *layer, qz_stats *stats)
{
    qz_search_weight *ranges = qz_arena_array(r->layer, qz_search_weight, (size_t)layer->linears);
    if (!ranges) return qz_arena_failed(r->layer);
    for (int i = 0; i < layer->linears; i++) ranges[i] = range_of(r, layer->linear[i].role);
    for (int i = 0; i < r->recipe->transforms; i++) {
        const qz_choice *choice = &r->recipe->transform[i];
        qz_transform_args args = {
            .model = r->model,
            .layer = layer,
            .stats = stats,
            .plan = plan_of(r, layer->index),
            .ranges = ranges,
            .plain_type = r->args->plan->plain_type,
            .options = &choice->options,
            .report = r->args->report,
            .seed = r->recipe->calibration.seed,
        };
        QZ_TRY(qz_transform_at((size_t)choice->index)->apply(&args, r->scratch));
    }
    round_plain(r, layer);
    return QZ_OK;
}

/* Chooses codes, writes them, and leaves the dequantized values in the linear's weight for the layers that follow. */
static qz_status quantize(const run *r, const qz_linear *linear, const qz_export_linear *l, const qz_stats *stats)
{
    const qz_recipe *recipe = r->recipe;
    const qz_search_weight range = range_of(r, linear->role);
    qz_solve_args args = {
        .backend = qz_model_backend(r->model),
        .weight = linear->weight,
        .stats = stats,
        .scheme = l->scheme,
        .range = range.range,
        .range_options = range.range_options,
        .solver_options = recipe->weights.solver.options,
    };
    qz_qtensor q;
    qz_solve_info info;
    double error;
    QZ_TRY_CTX(qz_solver_at((size_t)recipe->weights.solver.index)->solve(&q, &info, &args, r->scratch), "%s",
               l->module);
    QZ_TRY(qz_layer_error(&error, args.backend, &linear->weight, &q, stats, r->scratch));
    qz_report_add(r->args->report, "linear", l->module, "relative_output_error", error, "");
    QZ_TRY(qz_writer_linear(r->writer, l, linear, &q, r->scratch));
    qz_qtensor_dequantize(qz_f32(&linear->weight), &q, 0, l->n);
    return QZ_OK;
}

static qz_status quantize_layer(const run *r, qz_layer *layer, qz_stats *stats)
{
    for (int i = 0; i < layer->linears; i++) {
        const qz_export_linear *l = &plan_of(r, layer->index)[i];
        const qz_linear *linear = &layer->linear[i];
        qz_arena_mark mark = qz_arena_save(r->scratch);
        if (l->quantized)
            QZ_TRY(quantize(r, linear, l, &stats[linear->input]));
        else
            QZ_TRY(qz_writer_linear(r->writer, l, linear, NULL, r->scratch));
        qz_arena_restore(r->scratch, mark);
        QZ_TRY(qz_progress_step(r->args->progress, 0, ""));
    }
    for (int i = 0; i < QZ_NORMS; i++)
        if (layer->norm_name[i]) QZ_TRY(qz_writer_plain(r->writer, layer->norm_name[i], &layer->norm[i], r->scratch));
    if (!layer->router_name) return QZ_OK;
    return qz_writer_plain(r->writer, layer->router_name, &layer->router, r->scratch);
}

/* Progress counts windows: a layer sees all of them twice, and the work in between counts as once more. */
enum { PASSES = 3 };

static qz_status run_layer(run *r, int index)
{
    qz_layer layer;
    qz_stats *stats;
    qz_progress *progress = r->args->progress;
    int64_t layers = qz_model_config_of(r->model)->layers;
    char item[64];
    snprintf(item, sizeof item, "layer %d of %lld", index + 1, (long long)layers);
    QZ_TRY(qz_progress_step(progress, 0, item));

    qz_progress_section(progress, "calibrate");
    QZ_TRY(qz_model_layer(r->model, index, &layer, r->layer));
    QZ_TRY(stats_new(r, index, &stats));
    QZ_TRY(qz_gather(stats, &r->peak, &r->stream, &layer, progress, r->scratch));

    qz_progress_section(progress, "transform");
    QZ_TRY(transform(r, &layer, stats));

    qz_progress_section(progress, "quantize");
    QZ_TRY(quantize_layer(r, &layer, stats));
    QZ_TRY(qz_progress_step(progress, (uint64_t)r->stream.windows, ""));

    qz_progress_section(progress, "propagate");
    if (index + 1 < layers)
        QZ_TRY(qz_advance(&r->peak, &r->stream, &layer, progress, r->scratch)); /* nobody reads the last output */
    qz_arena_reset(r->layer);
    return QZ_OK;
}

/* float16 ends at 65504; servers run in it when config.json says so. */
static void warn_of_range(const run *r)
{
    qz_report_add(r->args->report, "calibration", "", "largest_activation", r->peak, "");
    if (r->args->plan->plain_type == QZ_F16 && r->peak > 65504.0f / 4)
        qz_report_note(
            r->args->report, QZ_WARN,
            "activations reach %.0f, near float16's limit of 65504: a server that runs this checkpoint in float16 "
            "may overflow; consider export.dtype \"bfloat16\"",
            r->peak);
}

static qz_status run_all(run *r)
{
    const qz_calib_args *a = r->args;
    QZ_TRY(qz_arena_new(&r->data, "stream"));
    QZ_TRY(qz_arena_new(&r->layer, "layer"));
    QZ_TRY(qz_arena_new(&r->scratch, "scratch"));
    QZ_TRY(qz_writer_new(&r->writer, a));
    QZ_TRY(qz_stream_new(&r->stream, r->model, a->windows, r->recipe->calibration.activations, a->plan->plain_type,
                         r->data));
    int layers = (int)qz_model_config_of(r->model)->layers;
    qz_progress_begin(a->progress, "layers", (uint64_t)(layers * PASSES - 1) * (uint64_t)r->stream.windows);
    for (int i = 0; i < layers; i++) QZ_TRY(run_layer(r, i));
    qz_progress_end(a->progress);
    warn_of_range(r);
    qz_arena_reset(r->data);
    qz_progress_begin(a->progress, "write", 1);
    QZ_TRY(qz_writer_finish(r->writer, r->scratch));
    qz_progress_end(a->progress);
    return QZ_OK;
}

qz_status qz_calib_run(const qz_calib_args *args)
{
    run r = {.args = args, .recipe = args->recipe, .model = args->model};
    qz_status status = run_all(&r);
    qz_writer_free(r.writer);
    qz_arena_free(r.scratch);
    qz_arena_free(r.layer);
    qz_arena_free(r.data);
    return status;
}
