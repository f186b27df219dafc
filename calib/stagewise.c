/* Four stages, as in models.h; what one leaves for the next is kept for all samples, so every linear is run once:
 *
 *     look at qkv's input     -> quantize q k v -> run them, attention; look at o's input -> quantize o -> run it;
 *     look at gate/up's input -> quantize       -> run;                 look at down's    -> quantize -> run
 *
 * The statistics of o, gate, up and down are thus those of the inputs that they will get when the linears before them
 * are quantized ("true sequential" in GPTQ's code, Frantar et al. 2022). */
#include "calib/stagewise.h"

#include "calib/gather.h"
#include "calib/run.h"

bool qz_stagewise_fits(const qz_calib_output *output, const qz_model *m)
{
    const qz_recipe *r = output->recipe;
    const bool compensates = (qz_solver_at((size_t)r->weights.solver.index)->needs & QZ_NEED_GRAM) != 0;
    if (output->plan->kv.wanted || qz_model_config_of(m)->experts > 0) return false;
    return r->transforms == 0 || compensates;
}

static int64_t widest(const qz_model *m)
{
    const int64_t o = qz_model_input_width(m, 0, QZ_STAGE_O), down = qz_model_input_width(m, 0, QZ_STAGE_DOWN);
    return o > down ? o : down;
}

uint64_t qz_stagewise_bytes(const qz_model *m, int64_t tokens, qz_dtype type)
{
    return (uint64_t)(tokens * widest(m)) * (uint64_t)qz_dtype_bits(type) / 8;
}

/* What a pass over the stream works with. */
typedef struct pass {
    const qz_stagewise *s;
    qz_layer *layer;
    qz_stream kept; /* what a stage left for the next, as wide as that */
    qz_stats *stats;
    float *peak;
} pass;

typedef struct buffers {
    qz_tensor residual, x, carry;
} buffers;

static qz_status matrix(qz_tensor *out, int64_t rows, int64_t cols, qz_arena *arena)
{
    float *data = qz_arena_array(arena, float, (size_t)(rows * cols));
    *out = qz_tensor_2d(data, QZ_F32, rows, cols);
    return data ? QZ_OK : qz_arena_failed(arena);
}

static bool reads_residual(int stage)
{
    return stage == QZ_STAGE_QKV || stage == QZ_STAGE_GATE_UP;
}

/* x = the input of a stage: from the residual, or what was kept. */
static qz_status input_of(const pass *p, int stage, int64_t batch, buffers *b)
{
    const qz_stream *s = p->s->stream;
    const qz_batch shape = qz_stream_shape(s, batch);
    const int64_t rows = shape.sequences * shape.length;
    QZ_TRY(matrix(&b->x, rows, qz_model_input_width(s->model, p->layer->index, stage), p->s->scratch));
    if (!reads_residual(stage)) return qz_stream_load(&p->kept, batch, &b->x);
    return qz_stage_input(s->model, p->layer, (qz_stage)stage, shape, &b->residual, NULL, &b->x);
}

static qz_status look(const pass *p, int64_t batch, const qz_tensor *x)
{
    QZ_TRY(qz_gather_check(p->s->stream, batch, p->layer, "input of a linear", x));
    return qz_stats_add(p->stats, qz_model_backend(p->s->stream->model), x);
}

/* Runs a stage that reads the residual: what it leaves is the next stage's input, which is looked at and kept. */
static qz_status run_first_half(pass *p, int stage, int64_t batch, buffers *b)
{
    const qz_stream *s = p->s->stream;
    const qz_batch shape = qz_stream_shape(s, batch);
    QZ_TRY(input_of(p, stage, batch, b));
    QZ_TRY(matrix(&b->carry, b->x.shape[0], p->kept.width, p->s->scratch));
    QZ_TRY(qz_stage_apply(s->model, p->layer, (qz_stage)stage, shape, &b->x, &b->residual, &b->carry, p->s->scratch));
    QZ_TRY(look(p, batch, &b->carry));
    return qz_stream_store(&p->kept, batch, &b->carry);
}

/* Runs a stage that adds to the residual, and looks at the input of the stage behind it, if there is one. */
static qz_status run_second_half(pass *p, int stage, int64_t batch, buffers *b)
{
    const qz_stream *s = p->s->stream;
    const qz_batch shape = qz_stream_shape(s, batch);
    QZ_TRY(input_of(p, stage, batch, b));
    QZ_TRY(qz_stage_apply(s->model, p->layer, (qz_stage)stage, shape, &b->x, &b->residual, NULL, p->s->scratch));
    QZ_TRY(qz_gather_check(s, batch, p->layer, "output", &b->residual));
    QZ_TRY(qz_gather_peak(p->peak, &b->residual, p->s->scratch));
    QZ_TRY(qz_stream_store(s, batch, &b->residual));
    if (stage == QZ_STAGE_DOWN) return QZ_OK;
    QZ_TRY(input_of(p, stage + 1, batch, b));
    return look(p, batch, &b->x);
}

static qz_status run_batch(pass *p, int stage, int64_t batch)
{
    const qz_stream *s = p->s->stream;
    const qz_batch shape = qz_stream_shape(s, batch);
    buffers b;
    QZ_TRY(matrix(&b.residual, shape.sequences * shape.length, s->width, p->s->scratch));
    QZ_TRY(qz_stream_load(s, batch, &b.residual));
    if (stage < 0) {
        QZ_TRY(input_of(p, QZ_STAGE_QKV, batch, &b));
        return look(p, batch, &b.x);
    }
    return reads_residual(stage) ? run_first_half(p, stage, batch, &b) : run_second_half(p, stage, batch, &b);
}

/* All batches; with `stage` run, the statistics are those of the next. */
static qz_status run_stage(pass *p, int stage)
{
    const qz_stream *s = p->s->stream;
    qz_progress *progress = p->s->target->progress;
    qz_progress_section(progress, "calibrate");
    for (int64_t i = 0; i < qz_stream_batches(s); i++) {
        qz_arena_mark mark = qz_arena_save(p->s->scratch);
        QZ_TRY(run_batch(p, stage, i));
        qz_arena_restore(p->s->scratch, mark);
        QZ_TRY(qz_progress_step(progress, stage < 0 ? 0 : (uint64_t)qz_stream_shape(s, i).sequences, ""));
    }
    return QZ_OK;
}

/* Statistics of the stage's input, then its codes. */
static qz_status quantize_stage(pass *p, int stage)
{
    QZ_TRY_CTX(qz_stats_finish(p->stats), "layer %d, input of %s", p->layer->index, qz_stage_name((qz_stage)stage));
    qz_tensor absmax = qz_tensor_2d(p->stats->absmax, QZ_F32, 1, p->stats->k);
    QZ_TRY(qz_gather_peak(p->peak, &absmax, p->s->scratch));
    return qz_target_input(p->s->target, p->layer, stage, p->stats);
}

static void keep_for(pass *p, int stage)
{
    const qz_stream *s = p->s->stream;
    p->kept = qz_stream_like(s, qz_model_input_width(s->model, p->layer->index, stage), p->s->kept);
}

/* From running stage - 1 to the codes of `stage`; what is kept is read until the stage has been run. */
static qz_status step(pass *p, int stage, const qz_eval_layer_rounding *served)
{
    const qz_stagewise *s = p->s;
    qz_stats stats;
    qz_arena_mark mark = qz_arena_save(s->layer);
    QZ_TRY(qz_stats_new(&stats, qz_model_input_width(s->stream->model, p->layer->index, stage), s->wants, s->seed,
                        (uint64_t)(p->layer->index * QZ_STAGES + stage), s->layer));
    p->stats = &stats;
    QZ_TRY(run_stage(p, stage - 1));
    QZ_TRY(quantize_stage(p, stage));
    p->layer->tap = qz_eval_layer_tap(served); /* from now on its input is rounded, if it is to be */
    qz_arena_restore(s->layer, mark);
    return QZ_OK;
}

qz_status qz_stagewise_layer(const qz_stagewise *s, float *peak, qz_layer *layer, qz_stats *looked)
{
    qz_eval_layer_rounding served;
    pass p = {.s = s, .layer = layer, .peak = peak};
    QZ_TRY(qz_target_begin(s->target, layer, looked, &served, s->layer));
    QZ_TRY(step(&p, QZ_STAGE_QKV, &served));
    keep_for(&p, QZ_STAGE_O);
    QZ_TRY(step(&p, QZ_STAGE_O, &served));
    QZ_TRY(step(&p, QZ_STAGE_GATE_UP, &served));
    keep_for(&p, QZ_STAGE_DOWN);
    QZ_TRY(step(&p, QZ_STAGE_DOWN, &served));
    if (!s->last) QZ_TRY(run_stage(&p, QZ_STAGE_DOWN));
    return qz_target_end(s->target, layer);
}
