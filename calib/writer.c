/* See writer.h. Fingerprints (XXH3, 128 bits) of codes, scales and zeros are taken from memory when a tensor is handed
 * over, and from the reopened folder at the end. */
#include "calib/writer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/map.h"

/* What has a fingerprint: a plain tensor, a linear's weight in whatever form (by its module's name), a bias, or the
 * scales of a layer's cache (by the name of its attention module). */
typedef struct slot {
    const char *name;
    const qz_export_linear *linear; /* NULL: not a linear's weight */
    int layer;                      /* of cache scales; -1: something else */
    char print[QZ_HASH_TEXT];       /* "" until written */
    bool told;                      /* to the journal */
} slot;

struct qz_writer {
    const qz_model *model;
    const qz_calib_output *output;
    qz_progress *progress;
    const qz_container *container;
    qz_shards *shards;
    qz_arena *arena;
    const char **plain; /* names of plain tensors, from the family, then passed-through ones */
    size_t plain_count;
    qz_strmap *index; /* name -> slot */
    slot *slot;
    size_t slots;
};

static const qz_ckpt *source_of(const qz_writer *w)
{
    return qz_model_ckpt(w->model);
}

static qz_status add_slot(qz_writer *w, const char *name, const qz_export_linear *linear, int layer)
{
    w->slot[w->slots] = (slot){.name = name, .linear = linear, .layer = layer};
    return qz_strmap_add(w->index, name, strlen(name), (int64_t)w->slots++, NULL);
}

static char *print_of(const qz_writer *w, const char *name)
{
    int64_t i = qz_strmap_get(w->index, name, strlen(name));
    assert(i >= 0);
    return w->slot[i].print;
}

/* Tensors of the source that the family does not know and the recipe passes through keep their stored type. */
static bool passed_through(const qz_writer *w, const char *name)
{
    return qz_patterns_match(&w->output->recipe->output_as.pass_through, name);
}

static qz_dtype stored_type(const qz_writer *w, const char *name)
{
    return passed_through(w, name) ? qz_ckpt_find(source_of(w), name)->view.dtype : w->output->plan->plain_type;
}

static const char *suffixed(qz_writer *w, const char *module, const char *suffix)
{
    return qz_arena_printf(w->arena, "%s.%s", module, suffix);
}

static qz_status declare_linear(qz_writer *w, const qz_export_linear *l)
{
    const qz_dtype plain = w->output->plan->plain_type;
    const char *weight = suffixed(w, l->module, "weight"), *bias = suffixed(w, l->module, "bias");
    if (!weight || !bias) return qz_arena_failed(w->arena);
    QZ_TRY(l->quantized ? w->container->declare_linear(w->shards, l)
                        : qz_shards_declare(w->shards, l->module, weight, plain, 2, (int64_t[]){l->n, l->k}));
    QZ_TRY(add_slot(w, l->module, l, -1));
    if (!l->has_bias) return QZ_OK;
    QZ_TRY(qz_shards_declare(w->shards, l->module, bias, plain, 1, &l->n));
    return add_slot(w, bias, NULL, -1);
}

/* In the order of the model: embeddings first, each layer's norms beside its linears. The order of declaration decides
 * the shard, so a layer stays together. */
static qz_status declare_all(qz_writer *w)
{
    const qz_export_plan *plan = w->output->plan;
    for (size_t i = 0; i < w->plain_count; i++) {
        const qz_stored *t = qz_ckpt_find(source_of(w), w->plain[i]);
        QZ_TRY(qz_shards_declare(w->shards, w->plain[i], w->plain[i], stored_type(w, w->plain[i]), t->view.ndim,
                                 t->view.shape));
        QZ_TRY(add_slot(w, w->plain[i], NULL, -1));
    }
    for (size_t i = 0; i < plan->linears; i++) QZ_TRY(declare_linear(w, &plan->linear[i]));
    for (int i = 0; i < plan->layers && plan->kv.wanted; i++) {
        QZ_TRY(w->container->declare_kv(w->shards, plan, i));
        QZ_TRY(add_slot(w, plan->attention[i], NULL, i));
    }
    return QZ_OK;
}

/* The head or the embeddings where they are quantized are no plain tensors here. */
static bool is_planned(const qz_writer *w, const char *tensor)
{
    const qz_export_plan *plan = w->output->plan;
    for (size_t i = plan->first[plan->layers]; i < plan->linears; i++) {
        const size_t n = strlen(plan->linear[i].module);
        if (strncmp(tensor, plan->linear[i].module, n) == 0 && strcmp(tensor + n, ".weight") == 0) return true;
    }
    return false;
}

static qz_status list_plain(qz_writer *w)
{
    size_t kept = 0;
    QZ_TRY(qz_model_plain_names(w->model, &w->plain, &w->plain_count, w->arena));
    for (size_t i = 0; i < w->plain_count; i++)
        if (!is_planned(w, w->plain[i])) w->plain[kept++] = w->plain[i];
    w->plain_count = kept;
    return QZ_OK;
}

static qz_status writer_open(qz_writer *w, bool resume)
{
    const qz_calib_output *o = w->output;
    QZ_TRY(qz_arena_new(&w->arena, "export"));
    QZ_TRY(list_plain(w));
    const size_t most = w->plain_count + 2 * o->plan->linears + (size_t)o->plan->layers;
    QZ_TRY(qz_strmap_new(&w->index, most));
    w->slot = qz_arena_calloc(w->arena, most * sizeof *w->slot);
    if (!w->slot) return qz_arena_failed(w->arena);
    QZ_TRY(qz_export_side_files(o->folder, source_of(w), w->container, o->plan));
    QZ_TRY(qz_shards_new(&w->shards, o->folder, o->recipe->output_as.shard_bytes));
    QZ_TRY(declare_all(w));
    return resume ? qz_shards_resume(w->shards) : qz_shards_begin(w->shards);
}

qz_status qz_writer_new(qz_writer **out, const qz_model *model, const qz_calib_output *output, bool resume,
                        qz_progress *progress)
{
    qz_writer *w = qz_calloc(1, sizeof *w);
    *out = NULL;
    if (!w) return QZ_FAIL(QZ_MEMORY, "out of memory: no room for the writer");
    w->model = model;
    w->output = output;
    w->progress = progress;
    w->container = qz_container_at((size_t)output->recipe->output_as.container.index);
    qz_status status = writer_open(w, resume);
    if (status != QZ_OK) {
        qz_writer_free(w);
        return status;
    }
    *out = w;
    return QZ_OK;
}

void qz_writer_free(qz_writer *w)
{
    if (!w) return;
    qz_shards_free(w->shards);
    qz_strmap_free(w->index);
    qz_arena_free(w->arena);
    qz_free(w);
}

/* Nothing that is not finite is written: neither what the source held nor what float16 makes of a large value.
 */
static qz_status check_range(const char *name, const float *x, int64_t first, int64_t n, qz_dtype type)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i]))
            return QZ_FAIL(QZ_NUMERIC, "%s holds %s at index %lld", name, isnan(x[i]) ? "NaN" : "an infinity",
                           (long long)(first + i));
        if (type == QZ_F16 && fabsf(x[i]) >= 65520.0f)
            return QZ_FAIL(QZ_NUMERIC,
                           "%s holds %g at index %lld, beyond float16's 65504: set export.dtype to \"bfloat16\"", name,
                           x[i], (long long)(first + i));
    }
    return QZ_OK;
}

enum { PART = 1 << 20 }; /* elements converted at a time */

/* Stores n values of type `from` in the plain type, a part at a time. */
static qz_status write_parts(qz_writer *w, const char *name, const void *x, qz_dtype from, int64_t n, qz_hasher *print,
                             float *wide, void *stored)
{
    qz_dtype type = w->output->plan->plain_type;
    size_t in = (size_t)qz_dtype_bits(from) / 8, out = (size_t)qz_dtype_bits(type) / 8;
    for (int64_t first = 0; first < n; first += PART) {
        int64_t count = n - first < PART ? n - first : PART;
        QZ_TRY(qz_convert(wide, QZ_F32, (const char *)x + (size_t)first * in, from, count));
        QZ_TRY(check_range(name, wide, first, count, type));
        QZ_TRY(qz_convert(stored, type, wide, QZ_F32, count));
        qz_hasher_add(print, stored, (size_t)count * out);
        QZ_TRY(qz_shards_write_part(w->shards, name, (size_t)first * out, stored, (size_t)count * out));
    }
    return QZ_OK;
}

static qz_status write_values(qz_writer *w, const char *name, const void *x, qz_dtype from, int64_t n, char *print,
                              qz_arena *scratch)
{
    qz_hasher *hasher;
    qz_arena_mark mark = qz_arena_save(scratch);
    float *wide = qz_arena_array(scratch, float, PART), *stored = qz_arena_array(scratch, float, PART);
    if (!wide || !stored) return qz_arena_failed(scratch);
    QZ_TRY(qz_hasher_new(&hasher));
    qz_status status = write_parts(w, name, x, from, n, hasher, wide, stored);
    qz_hasher_finish(hasher, print);
    qz_arena_restore(scratch, mark);
    return status;
}

/* A symmetric tensor has no zeros in memory; containers may store the middle code for it. */
static void add_zeros(qz_hasher *h, const qz_qtensor *q, int64_t count)
{
    const qz_format_info *f = qz_format_of(q->scheme.format);
    if (f->kind != QZ_KIND_INTEGER) return;
    const uint8_t middle = (uint8_t)(1 << (f->bits - 1));
    for (int64_t i = 0; i < count; i++) qz_hasher_add(h, q->zeros ? &q->zeros[i] : &middle, 1);
}

static bool is_static(const qz_export_linear *l)
{
    return l->activation.mode == QZ_ACT_TENSOR;
}

static qz_status print_qtensor(char out[QZ_HASH_TEXT], const qz_export_linear *l, const qz_qtensor *q,
                               const qz_act_values *act)
{
    const int64_t scales = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    qz_hasher *h;
    QZ_TRY(qz_hasher_new(&h));
    qz_hasher_add(h, q->codes, (size_t)(q->rows * q->cols));
    qz_hasher_add(h, q->scales, (size_t)scales * sizeof *q->scales);
    add_zeros(h, q, scales);
    if (q->permutation) qz_hasher_add(h, q->permutation, (size_t)q->cols * sizeof *q->permutation);
    if (is_static(l)) {
        qz_hasher_add(h, &act->scale, sizeof act->scale);
        qz_hasher_add(h, &act->zero, sizeof act->zero);
    }
    qz_hasher_finish(h, out);
    return QZ_OK;
}

/* A container of plain weights keeps the values alone, rounded. */
static qz_status print_values(char out[QZ_HASH_TEXT], const qz_qtensor *q, qz_dtype type, qz_arena *scratch)
{
    qz_hasher *h;
    qz_status status = QZ_OK;
    qz_arena_mark mark = qz_arena_save(scratch);
    float *wide = qz_arena_array(scratch, float, (size_t)q->cols),
          *stored = qz_arena_array(scratch, float, (size_t)q->cols);
    if (!wide || !stored) return qz_arena_failed(scratch);
    QZ_TRY(qz_hasher_new(&h));
    for (int64_t n = 0; n < q->rows && status == QZ_OK; n++) {
        qz_qtensor_dequantize(wide, q, n, 1);
        status = qz_convert(stored, type, wide, QZ_F32, q->cols);
        qz_hasher_add(h, stored, (size_t)q->cols * (size_t)qz_dtype_bits(type) / 8);
    }
    qz_hasher_finish(h, out);
    qz_arena_restore(scratch, mark);
    return status;
}

bool qz_writer_keeps_codes(const qz_writer *w)
{
    return w->container->holds != NULL;
}

qz_status qz_writer_linear(qz_writer *w, const qz_export_linear *l, const qz_linear *linear, const qz_qtensor *q,
                           const qz_act_values *act, qz_arena *scratch)
{
    const char *weight = suffixed(w, l->module, "weight"), *bias = suffixed(w, l->module, "bias");
    if (!weight || !bias) return qz_arena_failed(w->arena);
    if (l->has_bias) QZ_TRY(write_values(w, bias, linear->bias.data, QZ_F32, l->n, print_of(w, bias), scratch));
    if (!l->quantized)
        return write_values(w, weight, linear->weight.data, QZ_F32, l->n * l->k, print_of(w, l->module), scratch);
    char *print = print_of(w, l->module);
    QZ_TRY(qz_writer_keeps_codes(w) ? print_qtensor(print, l, q, act)
                                    : print_values(print, q, w->output->plan->plain_type, scratch));
    return w->container->write_linear(w->shards, l, q, act, scratch);
}

qz_status qz_writer_plain(qz_writer *w, const char *name, const qz_tensor *x, qz_arena *scratch)
{
    return write_values(w, name, x->data, QZ_F32, qz_tensor_count(x), print_of(w, name), scratch);
}

/* (kv_heads) each, or one. */
static void print_kv(char out[QZ_HASH_TEXT], const qz_export_plan *plan, const float *key, const float *value)
{
    float all[2 * 1024];
    const size_t count = plan->kv.per_head ? (size_t)plan->kv_heads : 1;
    assert(count <= 1024);
    memcpy(all, key, count * sizeof *all);
    memcpy(all + count, value, count * sizeof *all);
    qz_hash_bytes(out, all, 2 * count * sizeof *all);
}

qz_status qz_writer_kv(qz_writer *w, int layer, const qz_kv_values *values)
{
    const qz_export_plan *plan = w->output->plan;
    print_kv(print_of(w, plan->attention[layer]), plan, values->key, values->value);
    return w->container->write_kv(w->shards, plan, layer, values);
}

/* A tensor of the source as it is. */
static qz_status copy_plain(qz_writer *w, const char *name, qz_arena *scratch)
{
    const qz_stored *t = qz_ckpt_find(source_of(w), name);
    if (!passed_through(w, name))
        return write_values(w, name, t->view.data, t->view.dtype, qz_tensor_count(&t->view), print_of(w, name),
                            scratch);
    qz_hash_bytes(print_of(w, name), t->view.data, t->bytes);
    return qz_shards_write(w->shards, name, t->view.data, t->bytes);
}

static qz_status check_plain(const qz_writer *w, const qz_ckpt *written, const char *name, const char *stored)
{
    char print[QZ_HASH_TEXT];
    const qz_stored *t = qz_ckpt_find(written, name);
    if (!t) return QZ_FAIL(QZ_FORMAT, "%s: %s is missing after writing", w->output->folder, name);
    qz_hash_bytes(print, t->view.data, t->bytes);
    if (strcmp(print, print_of(w, stored)) != 0)
        return QZ_FAIL(QZ_FORMAT, "%s: %s read back differs from memory", w->output->folder, name);
    return QZ_OK;
}

static qz_status check_linear(qz_writer *w, const qz_ckpt *written, const qz_export_linear *l, qz_arena *scratch)
{
    const char *weight = suffixed(w, l->module, "weight"), *bias = suffixed(w, l->module, "bias");
    if (!weight || !bias) return qz_arena_failed(w->arena);
    if (l->has_bias) QZ_TRY(check_plain(w, written, bias, bias));
    if (!l->quantized || !qz_writer_keeps_codes(w)) return check_plain(w, written, weight, l->module);
    char print[QZ_HASH_TEXT];
    qz_qtensor q;
    qz_act_scheme scheme;
    qz_act_values act;
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(qz_ckpt_read_qtensor(written, l->module, l->n, l->k, &q, scratch));
    QZ_TRY(qz_ckpt_read_activation(written, l->module, &scheme, &act));
    QZ_TRY(print_qtensor(print, l, &q, &act));
    qz_arena_restore(scratch, mark);
    if (strcmp(print, print_of(w, l->module)) != 0)
        return QZ_FAIL(QZ_FORMAT, "%s: codes, scales or zeros of %s read back differ from memory", w->output->folder,
                       l->module);
    return QZ_OK;
}

static qz_status check_kv(const qz_writer *w, const qz_ckpt *written, int layer, qz_arena *scratch)
{
    const qz_export_plan *plan = w->output->plan;
    const char *module = plan->attention[layer];
    qz_kv_scheme scheme;
    char print[QZ_HASH_TEXT];
    qz_arena_mark mark = qz_arena_save(scratch);
    float *key = qz_arena_array(scratch, float, (size_t)plan->kv_heads);
    float *value = qz_arena_array(scratch, float, (size_t)plan->kv_heads);
    if (!key || !value) return qz_arena_failed(scratch);
    QZ_TRY(qz_ckpt_read_kv(written, module, plan->kv_heads, &scheme, key, value));
    print_kv(print, plan, key, value);
    qz_arena_restore(scratch, mark);
    if (scheme.wanted && strcmp(print, print_of(w, module)) == 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s: the cache scales of %s read back differ from memory", w->output->folder, module);
}

static qz_status check_written(qz_writer *w, qz_arena *scratch)
{
    qz_ckpt *written;
    QZ_TRY_CTX(qz_ckpt_open(&written, w->output->folder), "reopening what was written");
    qz_status status = QZ_OK;
    for (size_t i = 0; i < w->plain_count && status == QZ_OK; i++)
        status = check_plain(w, written, w->plain[i], w->plain[i]);
    for (size_t i = 0; i < w->output->plan->linears && status == QZ_OK; i++) {
        const qz_export_linear *l = &w->output->plan->linear[i];
        status = check_linear(w, written, l, scratch);
        if (status == QZ_OK) status = qz_progress_step(w->progress, 0, l->module);
    }
    for (int i = 0; i < w->output->plan->layers && w->output->plan->kv.wanted && status == QZ_OK; i++)
        status = check_kv(w, written, i, scratch);
    qz_ckpt_close(written);
    return status;
}

qz_status qz_writer_finish(qz_writer *w, qz_arena *scratch)
{
    for (size_t i = 0; i < w->plain_count; i++) {
        QZ_TRY(qz_progress_step(w->progress, 0, w->plain[i]));
        if (!*print_of(w, w->plain[i])) QZ_TRY(copy_plain(w, w->plain[i], scratch));
    }
    QZ_TRY(qz_shards_finish(w->shards));
    return check_written(w, scratch);
}

/* ---- for the journal ---- */

qz_status qz_writer_sync(qz_writer *w, const qz_journal_text **written, size_t *count, qz_arena *arena)
{
    qz_journal_text *list = qz_arena_array(arena, qz_journal_text, w->slots);
    if (!list) return qz_arena_failed(arena);
    *written = list;
    *count = 0;
    for (size_t i = 0; i < w->slots; i++) {
        slot *s = &w->slot[i];
        if (s->told || !*s->print) continue;
        s->told = true;
        list[(*count)++] = (qz_journal_text){s->name, s->print};
    }
    qz_shards_keep(w->shards);
    return qz_shards_sync(w->shards);
}

static qz_status mark_part(const qz_writer *w, const char *module, const char *suffix)
{
    char name[1024];
    snprintf(name, sizeof name, "%s.%s", module, suffix);
    return qz_shards_has(w->shards, name) ? qz_shards_mark(w->shards, name) : QZ_OK;
}

static qz_status mark_linear(const qz_writer *w, const qz_export_linear *l)
{
    if (!l->quantized) return mark_part(w, l->module, "weight");
    for (const char *const *suffix = w->container->suffixes; *suffix; suffix++)
        if (strcmp(*suffix, "bias") != 0) QZ_TRY(mark_part(w, l->module, *suffix));
    return QZ_OK;
}

qz_status qz_writer_mark(qz_writer *w, const qz_journal_text *written)
{
    const int64_t i = qz_strmap_get(w->index, written->name, strlen(written->name));
    if (i < 0)
        return QZ_FAIL(QZ_FORMAT, "%s/%s names %s, which this run does not write", w->output->folder, QZ_JOURNAL_NAME,
                       written->name);
    slot *s = &w->slot[i];
    snprintf(s->print, sizeof s->print, "%s", written->value);
    s->told = true;
    if (s->linear) return mark_linear(w, s->linear);
    if (s->layer < 0) return qz_shards_mark(w->shards, s->name);
    QZ_TRY(mark_part(w, s->name, "k_scale"));
    return mark_part(w, s->name, "v_scale");
}
