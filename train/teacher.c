/* See teacher.h. The pass is that of the student, so documents in one window are kept apart in the same way. */
#include "train/teacher.h"

#include <string.h>

struct qz_guide {
    const qz_model *m;
    qz_tape *tape;
    qz_arena *layer, *scratch; /* weights of one layer; tables of a pass, and the head's tiles */
    qz_layer weights;
    int loaded; /* -1: none */
    bool dry;
    qz_var *hidden;
};

static qz_status load(qz_guide *g, int layer)
{
    if (g->loaded == layer || g->dry) return QZ_OK;
    g->loaded = -1;
    qz_arena_reset(g->layer);
    QZ_TRY(qz_model_layer(g->m, layer, &g->weights, g->layer));
    g->loaded = layer;
    return QZ_OK;
}

static qz_status shape_only(qz_guide *g, qz_tape *t, int layer, qz_role role, qz_var **w)
{
    int64_t first, rows;
    const qz_linear_place *p = qz_model_linear(g->m, layer, qz_model_role_rows(g->m, layer, role, &first, &rows));
    const qz_tensor shape = qz_tensor_2d(NULL, QZ_F32, rows, p->k);
    return qz_tape_leaf(w, t, &shape, NULL);
}

static qz_status give_linear(void *context, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var *residual,
                             qz_var **y)
{
    qz_guide *g = context;
    qz_var *w, *bias = NULL;
    if (g->dry) {
        QZ_TRY(shape_only(g, t, layer, role, &w));
        return qz_ag_linear(y, t, x, w, NULL, residual);
    }
    QZ_TRY(load(g, layer));
    const qz_linear *part = qz_layer_part(&g->weights, role, 0);
    QZ_TRY(qz_tape_leaf(&w, t, &part->weight, NULL));
    if (part->bias.data) QZ_TRY(qz_tape_leaf(&bias, t, &part->bias, NULL));
    return qz_ag_linear(y, t, x, w, bias, residual);
}

/* Norms are small; the embedding is looked up as it is stored, and the head's logits come from the model. */
static qz_status give_plain(void *context, qz_tape *t, const char *name, qz_var **w)
{
    qz_guide *g = context;
    const qz_stored *stored = qz_ckpt_find(qz_model_ckpt(g->m), name);
    if (!stored) return QZ_FAIL(QZ_UNSUPPORTED, "%s: the teacher stores it quantized", name);
    qz_tensor view = stored->view;
    if (view.ndim > 1) return qz_tape_leaf(w, t, &view, NULL);
    view.dtype = QZ_F32;
    view.data = qz_arena_array(g->scratch, float, (size_t)qz_tensor_count(&view));
    if (!view.data) return qz_arena_failed(g->scratch);
    QZ_TRY(qz_ckpt_read_plain(qz_model_ckpt(g->m), name, view.ndim, view.shape, view.data));
    return qz_tape_leaf(w, t, &view, NULL);
}

qz_status qz_guide_new(qz_guide **out, const qz_model *m, bool dry)
{
    qz_guide *g = qz_calloc(1, sizeof *g);
    *out = NULL;
    if (!g) return QZ_FAIL(QZ_MEMORY, "no memory for a teacher");
    g->m = m;
    g->dry = dry;
    g->loaded = -1;
    qz_status status = qz_tape_new(&g->tape, qz_model_backend(m), dry);
    if (status == QZ_OK) status = qz_arena_new(&g->layer, "teacher's layer");
    if (status == QZ_OK) status = qz_arena_new(&g->scratch, "teacher");
    if (status != QZ_OK) {
        qz_guide_free(g);
        return status;
    }
    qz_tape_record(g->tape, false);
    *out = g;
    return QZ_OK;
}

void qz_guide_free(qz_guide *g)
{
    if (!g) return;
    qz_tape_free(g->tape);
    qz_arena_free(g->layer);
    qz_arena_free(g->scratch);
    qz_free(g);
}

void qz_guide_bf16(qz_guide *g, bool on)
{
    qz_tape_bf16(g->tape, on);
}

qz_status qz_guide_run(qz_guide *g, qz_tape_batch batch)
{
    const qz_tape_weights weights = {.context = g, .linear = give_linear, .plain = give_plain};
    qz_var *head;
    qz_guide_release(g);
    return qz_model_tape_forward(g->m, g->tape, &weights, batch, &g->hidden, &head, g->scratch);
}

void qz_guide_release(qz_guide *g)
{
    qz_tape_reset(g->tape);
    qz_arena_reset(g->scratch);
    g->hidden = NULL;
}

static qz_status give_logits(void *context, int64_t first, const qz_tensor *logits)
{
    qz_guide *g = context;
    const qz_tensor hidden = qz_tensor_rows(qz_var_value(g->hidden), first, logits->shape[0]);
    qz_arena_mark mark = qz_arena_save(g->scratch);
    qz_status status = qz_model_logits(g->m, &hidden, logits, g->scratch);
    qz_arena_restore(g->scratch, mark);
    return status;
}

qz_teacher qz_guide_teacher(qz_guide *g)
{
    return (qz_teacher){give_logits, g};
}

uint64_t qz_guide_bytes(const qz_guide *g)
{
    return qz_tape_peak(g->tape) + qz_model_layer_bytes(g->m);
}
