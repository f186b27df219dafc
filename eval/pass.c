/* Windows of ids -> the last hidden states, layer by layer: the residual stream of all windows lies in one buffer, each
 * layer's weights are widened once and run over it in batches of a few windows, and the final norm is taken in place.
 * Batches are cut by shapes alone. */
#include "eval/pass.h"

enum { MOST_TOKENS = 4096 };
/* Scratch of a batch, unless one window needs more. */
#define SCRATCH_LIMIT ((uint64_t)128 << 20)

typedef struct pass {
    const qz_hidden *h;
    qz_progress *progress;
    int64_t batch; /* windows */
    qz_arena *layer, *scratch;
    qz_eval_rounding rounding;
} pass;

static uint64_t batch_bytes(const qz_model *m, int64_t batch, int64_t length)
{
    return qz_model_scratch_bytes(m, (qz_batch){batch, length});
}

int64_t qz_pass_batch(const qz_model *m, int64_t windows, int64_t length)
{
    int64_t batch = MOST_TOKENS / length < windows ? MOST_TOKENS / length : windows;
    while (batch > 1 && batch_bytes(m, batch, length) > SCRATCH_LIMIT) batch--;
    return batch > 1 ? batch : 1;
}

qz_status qz_arena_reserve(qz_arena *arena, uint64_t bytes)
{
    if (!qz_arena_alloc(arena, (size_t)bytes)) return qz_arena_failed(arena);
    qz_arena_mark mark = qz_arena_save(arena);
    mark.used = 0;
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

static qz_status check_finite(const pass *p, const qz_tensor *residual, int64_t first, int layer)
{
    const int64_t length = p->h->windows->length, width = qz_hidden_width(p->h->model);
    int64_t bad;
    QZ_TRY(qz_op_first_nonfinite(qz_model_backend(p->h->model), residual, &bad));
    if (bad < 0) return QZ_OK;
    const int64_t token = bad / width;
    return QZ_FAIL(QZ_NUMERIC, "layer %d: NaN or infinity after it, in window %lld at token %lld (channel %lld)", layer,
                   (long long)(first + token / length), (long long)(token % length), (long long)(bad % width));
}

static qz_status run_layer(const pass *p, int index)
{
    const qz_windows *w = p->h->windows;
    qz_layer layer;
    QZ_TRY(qz_model_layer(p->h->model, index, &layer, p->layer));
    layer.tap = qz_eval_layer_tap(&p->rounding.layer[index]);
    for (int64_t first = 0; first < w->count; first += p->batch) {
        const int64_t windows = first + p->batch < w->count ? p->batch : w->count - first;
        const qz_tensor residual = qz_tensor_rows(&p->h->states, first * w->length, windows * w->length);
        QZ_TRY(qz_layer_forward(p->h->model, &layer, (qz_batch){windows, w->length}, &residual, p->scratch));
        QZ_TRY(check_finite(p, &residual, first, index));
        QZ_TRY(qz_progress_step(p->progress, (uint64_t)windows, layer.linear[0].module));
    }
    return QZ_OK;
}

static qz_status run_layers(const pass *p)
{
    const qz_hidden *h = p->h;
    QZ_TRY(qz_model_embed(h->model, h->windows->ids, &h->states));
    QZ_TRY(qz_arena_reserve(p->scratch, batch_bytes(h->model, p->batch, h->windows->length)));
    for (int i = 0; i < qz_model_config_of(h->model)->layers; i++) {
        qz_arena_mark mark = qz_arena_save(p->layer);
        QZ_TRY(run_layer(p, i));
        qz_arena_restore(p->layer, mark);
    }
    return qz_model_final_norm(h->model, &h->states, &h->states);
}

static qz_status make_hidden(qz_hidden *h, const qz_model *m, const qz_windows *w)
{
    const int64_t tokens = w->count * w->length, width = qz_hidden_width(m);
    h->model = m;
    h->windows = w;
    QZ_TRY(qz_arena_new(&h->room, "hidden states"));
    float *states = qz_arena_array(h->room, float, (size_t)(tokens * width));
    h->states = qz_tensor_2d(states, QZ_F32, tokens, width);
    return states ? QZ_OK : qz_arena_failed(h->room);
}

static qz_status new_hidden(qz_hidden **out, const qz_model *m, const qz_windows *w)
{
    qz_arena *arena;
    *out = NULL;
    QZ_TRY(qz_arena_new(&arena, "evaluation"));
    qz_hidden *h = qz_arena_calloc(arena, sizeof *h);
    if (!h) {
        qz_status status = qz_arena_failed(arena);
        qz_arena_free(arena);
        return status;
    }
    h->arena = arena;
    qz_status status = make_hidden(h, m, w);
    if (status == QZ_OK) *out = h;
    if (status != QZ_OK) qz_hidden_free(h);
    return status;
}

qz_status qz_pass_run(qz_hidden **out, const qz_model *m, const qz_windows *w, qz_progress *progress)
{
    QZ_TRY(new_hidden(out, m, w));
    pass p = {.h = *out, .progress = progress, .batch = qz_pass_batch(m, w->count, w->length)};
    qz_status status = qz_arena_new(&p.layer, "evaluation layer");
    if (status == QZ_OK) status = qz_arena_new(&p.scratch, "evaluation scratch");
    if (status == QZ_OK) status = qz_eval_rounding_read(&p.rounding, m, (*out)->arena);
    if (status == QZ_OK) status = run_layers(&p);
    qz_arena_free(p.layer);
    qz_arena_free(p.scratch);
    if (status == QZ_OK) return QZ_OK;
    qz_hidden_free(*out);
    *out = NULL;
    return status;
}

uint64_t qz_pass_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    return qz_model_layer_bytes(m) + batch_bytes(m, qz_pass_batch(m, windows, length), length);
}

void qz_hidden_free(qz_hidden *h)
{
    if (!h) return;
    qz_map_close(&h->spilled);
    qz_arena_free(h->room);
    qz_arena_free(h->arena);
}

qz_status qz_hidden_spill(qz_hidden *h, const char *folder)
{
    if (!h->room) return QZ_OK;
    QZ_TRY_CTX(qz_map_spill(&h->spilled, h->states.data, (size_t)qz_tensor_count(&h->states) * sizeof(float), folder),
               "the original's last hidden states");
    h->states.data = (void *)(uintptr_t)h->spilled.data;
    qz_arena_free(h->room);
    h->room = NULL;
    return QZ_OK;
}

uint64_t qz_hidden_bytes(const qz_model *m, int64_t windows, int64_t length)
{
    return (uint64_t)(windows * length) * (uint64_t)qz_hidden_width(m) * sizeof(float);
}
