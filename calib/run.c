/* The main loop: one layer at a time, look, then for each output transform, quantize and write, and move on. See
 * calib.h for the order and why. */
#include <stdio.h>

#include "calib/look.h"
#include "calib/outside.h"
#include "calib/run.h"
#include "calib/stagewise.h"
#include "calib/target.h"

typedef struct run {
    const qz_calib_args *args;
    const qz_recipe *recipe; /* of the first output: what concerns calibration is the same in all */
    const qz_model *model;
    qz_target target[QZ_RECIPE_OUTPUTS];
    bool quantized;       /* the stream is that of the quantized layers */
    bool stagewise;       /* a layer is looked at in stages, between which it is quantized */
    qz_stats_wants wants; /* of linear inputs */
    bool kv;              /* keys and values are looked at too */
    bool head;            /* so is the output head's input */
    qz_stream stream;
    int done;        /* layers that an earlier run has finished, for every output */
    void *kept;      /* what a stage leaves for the next, of all samples; NULL unless stagewise */
    float peak;      /* largest |activation| */
    qz_arena *data;  /* the stream: lives as long as the run */
    qz_arena *layer; /* weights, statistics and codes of one layer */
    qz_arena *scratch, *shared;
} run;

static const qz_recipe *recipe_of(const qz_calib_args *a)
{
    return a->recipe ? a->recipe : a->output[0].recipe;
}

bool qz_calib_propagates_quantized(const qz_calib_args *a)
{
    return a->outputs == 1 && !a->read && !a->original && recipe_of(a)->calibration.propagate != QZ_PROPAGATE_ORIGINAL;
}

bool qz_calib_is_stagewise(const qz_calib_args *a)
{
    return qz_calib_propagates_quantized(a) && qz_stagewise_fits(&a->output[0], a->model);
}

static qz_status check_propagation(const qz_calib_args *a)
{
    if (recipe_of(a)->calibration.propagate != QZ_PROPAGATE_QUANTIZED || qz_calib_propagates_quantized(a)) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "calibration.propagate: found \"quantized\", but %s; set it to \"original\" or leave it out",
                   a->outputs > 1 ? "several outputs are made from one pass over the original model"
                                  : "a statistics file describes the original model");
}

static int layers_of(const run *r)
{
    return (int)qz_model_config_of(r->model)->layers;
}

/* Does anybody read the layer's output? */
static bool is_read(const run *r, int layer)
{
    return layer + 1 < layers_of(r) || r->head;
}

static qz_look_args look_args(const run *r, bool move_on)
{
    qz_progress_section(r->args->progress, "calibrate");
    return (qz_look_args){.run = r->args,
                          .recipe = r->recipe,
                          .wants = r->wants,
                          .kv = r->kv,
                          .stream = &r->stream,
                          .move_on = move_on,
                          .arena = r->layer,
                          .scratch = r->scratch};
}

/* One pass over the text: statistics of the layer as it is; and the stream moves on where it follows the original. */
static qz_status look(run *r, const qz_layer *layer, qz_layer_stats *stats)
{
    const qz_look_args args = look_args(r, !r->quantized && is_read(r, layer->index));
    return qz_look(stats, &r->peak, &args, layer);
}

/* ---- outputs ---- */

/* Every output begins with the model's own weights; statistics are shared until a transform changes them, so all but
 * the last work on a copy where their recipe has one. */
static qz_status stats_for(const run *r, int number, int layer, const qz_layer_stats *stats, qz_layer_stats *out)
{
    *out = *stats;
    if (number + 1 == r->args->outputs || !r->args->output[number].recipe->transforms) return QZ_OK;
    const int inputs = qz_model_inputs(r->model, layer);
    out->input = qz_arena_array(r->layer, qz_stats, (size_t)inputs);
    if (!out->input) return qz_arena_failed(r->layer);
    for (int i = 0; i < inputs; i++) QZ_TRY(qz_stats_copy(&out->input[i], &stats->input[i], r->layer));
    return QZ_OK;
}

static qz_status make_outputs(run *r, qz_layer *layer, const qz_layer_stats *stats, qz_eval_layer_rounding *served)
{
    for (int i = 0; i < r->args->outputs; i++) {
        qz_layer_stats own;
        qz_arena_mark mark = qz_arena_save(r->layer);
        if (i > 0) QZ_TRY(qz_model_layer(r->model, layer->index, layer, r->layer));
        QZ_TRY(stats_for(r, i, layer->index, stats, &own));
        QZ_TRY(qz_target_layer(&r->target[i], layer, &own, served, r->layer));
        if (i > 0) qz_arena_restore(r->layer, mark);
    }
    return QZ_OK;
}

/* Progress counts windows: a layer sees all of them once or twice, and the work in between counts as once more. The
 * second time is left out of the last layer unless the head, which sees them once, is looked at. */
static uint64_t passes(const run *r)
{
    const int of_layer = r->stagewise ? r->recipe->transforms ? 5 : 4 : r->quantized ? 3 : 2;
    const int head = r->head ? 1 : r->quantized ? -1 : 0;
    return (uint64_t)(layers_of(r) * of_layer + head);
}

static qz_status run_stages(run *r, qz_layer *layer)
{
    qz_layer_stats looked = {0};
    if (r->recipe->transforms) QZ_TRY(look(r, layer, &looked));
    const qz_stagewise s = {.target = &r->target[0],
                            .stream = &r->stream,
                            .last = !is_read(r, layer->index),
                            .wants = r->wants,
                            .seed = r->recipe->calibration.seed,
                            .kept = r->kept,
                            .layer = r->layer,
                            .scratch = r->scratch};
    return qz_stagewise_layer(&s, &r->peak, layer, looked.input);
}

/* Looks at the layer as it is, makes every output, and moves on. */
static qz_status run_whole(run *r, qz_layer *layer)
{
    qz_layer_stats stats;
    qz_eval_layer_rounding served = {0};
    qz_progress *progress = r->args->progress;
    QZ_TRY(look(r, layer, &stats));
    QZ_TRY(make_outputs(r, layer, &stats, &served));
    QZ_TRY(qz_progress_step(progress, (uint64_t)r->stream.windows, ""));
    if (!r->quantized || !is_read(r, layer->index)) return QZ_OK;
    qz_progress_section(progress, "propagate");
    layer->tap = qz_eval_layer_tap(&served);
    return qz_advance(&r->peak, &r->stream, layer, progress, r->scratch);
}

static qz_status run_layer(run *r, int index)
{
    qz_layer layer;
    char item[64];
    snprintf(item, sizeof item, "layer %d of %lld", index + 1, (long long)qz_model_config_of(r->model)->layers);
    QZ_TRY(qz_progress_step(r->args->progress, 0, item));
    QZ_TRY(qz_model_layer(r->model, index, &layer, r->layer));
    QZ_TRY(r->stagewise ? run_stages(r, &layer) : run_whole(r, &layer));
    for (int i = 0; i < r->args->outputs; i++) QZ_TRY(qz_target_commit(&r->target[i], index, r->peak));
    qz_arena_reset(r->layer);
    return QZ_OK;
}

/* ---- outside the layers ---- */

/* Not where the source's head is quantized and all outputs leave it plain. */
static bool head_is_looked_at(const run *r)
{
    bool wanted = r->args->write != NULL;
    for (int i = 0; i < r->args->outputs; i++) {
        const qz_export_linear *l = qz_outside_planned(r->args->output[i].plan, r->model, QZ_END_HEAD);
        wanted |= l && l->quantized;
    }
    return wanted;
}

/* The input of the head is the final norm of the last layer's output. */
static qz_status run_head(run *r)
{
    qz_stats stats = {0};
    qz_linear linear;
    const qz_look_args args = look_args(r, false);
    QZ_TRY(qz_progress_step(r->args->progress, 0, "output head"));
    if (head_is_looked_at(r)) QZ_TRY(qz_look_head(&stats, &args));
    for (int i = 0; i < r->args->outputs; i++) {
        qz_arena_mark mark = qz_arena_save(r->layer);
        if (qz_outside_planned(r->args->output[i].plan, r->model, QZ_END_HEAD)) {
            QZ_TRY(qz_model_end(r->model, QZ_END_HEAD, &linear, r->layer));
            QZ_TRY(qz_target_outside(&r->target[i], QZ_END_HEAD, &linear, &stats));
        }
        qz_arena_restore(r->layer, mark);
        QZ_TRY(qz_target_commit(&r->target[i], layers_of(r), r->peak));
    }
    qz_arena_reset(r->layer);
    return QZ_OK;
}

/* What an interrupted run has written. */
static qz_status read_embedding(const run *r, const char *folder, const qz_linear *table)
{
    qz_ckpt *ckpt;
    QZ_TRY(qz_ckpt_open_unfinished(&ckpt, folder));
    qz_status status = qz_ckpt_read_weight(ckpt, table->module, table->weight.shape[0], table->weight.shape[1],
                                           qz_f32(&table->weight), r->scratch);
    qz_ckpt_close(ckpt);
    return status;
}

static qz_status make_embedding(run *r, int number, qz_linear *table)
{
    qz_stats even;
    bool done;
    qz_target *t = &r->target[number];
    QZ_TRY(qz_target_restore_embedding(t, &done));
    if (done) return r->quantized ? read_embedding(r, t->output->folder, table) : QZ_OK;
    QZ_TRY(qz_outside_even(&even, qz_model_config_of(r->model)->hidden, r->layer));
    QZ_TRY(qz_target_outside(t, QZ_END_EMBEDDING, table, &even));
    return qz_target_commit(t, QZ_TARGET_EMBEDDING, 0);
}

/* Before the stream, which begins with them. `table` is left without data where the stream reads the model's. */
static qz_status run_embeddings(run *r, qz_linear *table)
{
    *table = (qz_linear){0};
    for (int i = 0; i < r->args->outputs; i++) {
        if (!qz_outside_planned(r->args->output[i].plan, r->model, QZ_END_EMBEDDING)) continue;
        qz_arena_reset(r->layer);
        QZ_TRY(qz_model_end(r->model, QZ_END_EMBEDDING, table, r->layer));
        QZ_TRY(make_embedding(r, i, table));
    }
    if (!r->quantized) *table = (qz_linear){0};
    return QZ_OK;
}

/* ---- going on after an interruption ---- */

/* The stream through layers that are finished: as the model has them, or as the checkpoint has them. */
static qz_status pass_layers(run *r, const qz_model *m, const qz_eval_rounding *rounding)
{
    qz_progress_section(r->args->progress, "resume");
    for (int i = 0; i < r->done && i < layers_of(r) && is_read(r, i); i++) {
        qz_layer layer;
        QZ_TRY(qz_model_layer(m, i, &layer, r->layer));
        if (rounding) layer.tap = qz_eval_layer_tap(&rounding->layer[i]);
        QZ_TRY(qz_advance(&r->peak, &r->stream, &layer, r->args->progress, r->scratch));
        qz_arena_reset(r->layer);
    }
    return QZ_OK;
}

static qz_status pass_written(run *r, qz_model *written)
{
    qz_eval_rounding rounding;
    QZ_TRY(qz_eval_rounding_read(&rounding, written, r->data));
    return pass_layers(r, written, &rounding);
}

static qz_status pass_unfinished(run *r, const qz_calib_output *o)
{
    qz_ckpt *ckpt;
    qz_model *written;
    const char *const *others = qz_pattern_list(&o->recipe->output_as.pass_through, r->data);
    if (!others) return qz_arena_failed(r->data);
    QZ_TRY(qz_ckpt_open_unfinished(&ckpt, o->folder));
    qz_status status = qz_model_open(&written, ckpt, qz_model_backend(r->model), others);
    if (status == QZ_OK) {
        status = pass_written(r, written);
        qz_model_close(written);
    }
    qz_ckpt_close(ckpt);
    return status;
}

/* The head comes after the layers as one more. */
static int steps(const run *r)
{
    return layers_of(r) + (r->head ? 1 : 0);
}

/* Layers that every output has are not made again; one that only some have is, with the same result. */
static qz_status resume(run *r)
{
    for (int i = 0; i < r->args->outputs; i++)
        if (i == 0 || r->target[i].done < r->done) r->done = r->target[i].done;
    for (int i = 0; i < r->args->outputs; i++) QZ_TRY(qz_target_restore(&r->target[i], r->done, &r->peak));
    if (r->done == 0 || r->done == steps(r) || r->stream.windows == 0) return QZ_OK;
    return r->quantized ? pass_unfinished(r, &r->args->output[0]) : pass_layers(r, r->model, NULL);
}

/* float16 ends at 65504; servers run in it when config.json says so. */
static void warn_of_range(const run *r, const qz_calib_output *o)
{
    qz_report_add(o->report, "calibration", "", "largest_activation", r->peak, "");
    if (o->plan->plain_type == QZ_F16 && r->peak > 65504.0f / 4)
        qz_report_note(
            o->report, QZ_WARN,
            "activations reach %.0f, near float16's limit of 65504: a server that runs this checkpoint in float16 "
            "may overflow; consider export.dtype \"bfloat16\"",
            r->peak);
}

/* Everything that an output or the statistics file needs. */
static void collect_wants(run *r)
{
    const qz_calib_args *a = r->args;
    if (a->write) r->wants = (qz_stats_wants){.reservoir = QZ_RUN_RESERVOIR, .histogram = true};
    r->kv = a->write != NULL;
    r->head = a->write && qz_look_keeps_head(r->recipe, r->model);
    for (int i = 0; i < a->outputs; i++) {
        const qz_stats_wants wants = qz_target_wants(&a->output[i]);
        if (wants.reservoir > r->wants.reservoir) r->wants.reservoir = wants.reservoir;
        r->wants.histogram |= wants.histogram;
        r->kv |= a->output[i].plan->kv.wanted;
        r->head |= qz_outside_planned(a->output[i].plan, r->model, QZ_END_HEAD) != NULL;
    }
}

/* Once for all layers: fresh pages cost a fault and a clearing each. */
static qz_status keep_room(run *r, const qz_windows *w)
{
    if (!r->stagewise) return QZ_OK;
    const uint64_t bytes = qz_stagewise_bytes(r->model, w->count * w->length, r->recipe->calibration.activations);
    r->kept = qz_arena_alloc(r->data, (size_t)bytes);
    return r->kept ? QZ_OK : qz_arena_failed(r->data);
}

static qz_status begin(run *r)
{
    const qz_calib_args *a = r->args;
    static const qz_windows none;
    QZ_TRY(check_propagation(a));
    QZ_TRY(qz_arena_new(&r->data, "stream"));
    QZ_TRY(qz_arena_new(&r->layer, "layer"));
    QZ_TRY(qz_arena_new(&r->scratch, "scratch"));
    QZ_TRY(qz_arena_new(&r->shared, "factor"));
    r->quantized = qz_calib_propagates_quantized(a);
    r->stagewise = qz_calib_is_stagewise(a);
    collect_wants(r);
    for (int i = 0; i < a->outputs; i++) QZ_TRY(qz_target_open(&r->target[i], a, i, r->scratch, r->shared));
    double peak = 0;
    if (a->read) QZ_TRY(qz_stats_file_read_number(a->read, "largest_activation", &peak));
    r->peak = (float)peak;
    const qz_windows *windows = a->windows && !a->read ? a->windows : &none;
    qz_linear table;
    QZ_TRY(run_embeddings(r, &table));
    QZ_TRY(keep_room(r, windows));
    QZ_TRY(qz_stream_new(&r->stream, r->model, windows, table.weight.data ? &table.weight : NULL,
                         r->recipe->calibration.activations, r->quantized ? a->output[0].plan->plain_type : QZ_F32,
                         r->data));
    qz_arena_reset(r->layer);
    return QZ_OK;
}

static qz_status finish(run *r)
{
    const qz_calib_args *a = r->args;
    qz_progress_begin(a->progress, "write", 1);
    for (int i = 0; i < a->outputs; i++) {
        warn_of_range(r, &a->output[i]);
        QZ_TRY(qz_target_finish(&r->target[i]));
    }
    qz_progress_end(a->progress);
    return QZ_OK;
}

static qz_status run_all(run *r)
{
    QZ_TRY(begin(r));
    qz_progress_begin(r->args->progress, "layers", passes(r) * (uint64_t)r->stream.windows);
    QZ_TRY(resume(r));
    for (int i = r->done; i < layers_of(r); i++) QZ_TRY(run_layer(r, i));
    if (r->head && r->done < steps(r)) QZ_TRY(run_head(r));
    qz_progress_end(r->args->progress);
    if (r->args->write) QZ_TRY(qz_stats_file_write_number(r->args->write, "largest_activation", r->peak));
    qz_arena_reset(r->data);
    return finish(r);
}

qz_status qz_calib_run(const qz_calib_args *args)
{
    run r = {.args = args, .recipe = recipe_of(args), .model = args->model};
    qz_status status = run_all(&r);
    for (int i = 0; i < args->outputs; i++) qz_target_close(&r.target[i]);
    qz_arena_free(r.shared);
    qz_arena_free(r.scratch);
    qz_arena_free(r.layer);
    qz_arena_free(r.data);
    return status;
}
