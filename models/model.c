/* Opening a model, and the facts about it that other folders ask for. */
#include <string.h>

#include "models/families.h"
#include "models/parts.h"

qz_stage qz_role_stage(qz_role role)
{
    static const qz_stage stage[QZ_ROLES] = {QZ_STAGE_QKV,     QZ_STAGE_QKV,     QZ_STAGE_QKV, QZ_STAGE_O,
                                             QZ_STAGE_GATE_UP, QZ_STAGE_GATE_UP, QZ_STAGE_DOWN};
    return stage[role];
}

const char *qz_stage_name(qz_stage stage)
{
    static const char *const name[QZ_STAGES] = {"qkv", "o", "gate_up", "down"};
    return name[stage];
}

/* A config without torch_dtype means what is stored. */
static void settle_stored_type(qz_model *m, const qz_json_node *config)
{
    if (qz_config_absent(qz_json_get(config, "dtype")) && qz_config_absent(qz_json_get(config, "torch_dtype")))
        m->config.stored = qz_ckpt_find(m->ckpt, m->family->names->final_norm)->view.dtype;
}

/* The table where it is mapped; a copy where the file has it at an odd address, which old writers allowed. */
static qz_status find_table(qz_model *m, const char *name, qz_tensor *out)
{
    const qz_stored *stored = qz_ckpt_find(m->ckpt, name);
    *out = stored->view;
    if ((uintptr_t)out->data % (qz_dtype_bits(out->dtype) / 8) == 0) return QZ_OK;
    out->data = qz_arena_alloc(m->arena, (size_t)stored->bytes);
    if (!out->data) return qz_arena_failed(m->arena);
    memcpy(out->data, stored->view.data, (size_t)stored->bytes);
    return QZ_OK;
}

static qz_status find_own(qz_model *m, qz_end end, const char *name, qz_tensor *out)
{
    if (!qz_ckpt_is_quantized(m->ckpt, m->table[end])) return find_table(m, name, out);
    m->codes[end] = qz_arena_calloc(m->arena, sizeof *m->codes[end]);
    return m->codes[end] ? QZ_OK : qz_arena_failed(m->arena);
}

static qz_status find_tables(qz_model *m)
{
    const qz_tensor_names *names = m->family->names;
    QZ_TRY(find_own(m, QZ_END_EMBEDDING, names->embedding, &m->embedding));
    m->head = m->embedding;
    return m->config.tied ? QZ_OK : find_own(m, QZ_END_HEAD, names->head, &m->head);
}

/* A byte each, half of what bf16 takes; decoded a few rows at a time. */
qz_status qz_model_codes(const qz_model *m, qz_end end, const qz_qtensor **out)
{
    qz_codes *c = m->codes[end];
    if (!c->read)
        QZ_TRY(qz_ckpt_read_qtensor(m->ckpt, m->table[end], m->config.vocabulary, m->config.hidden, &c->q, m->arena));
    c->read = true;
    *out = &c->q;
    return QZ_OK;
}

static qz_status read_small(qz_model *m)
{
    const qz_model_config *c = &m->config;
    const size_t pairs = (size_t)c->rope.dims / 2;
    m->final_norm = qz_arena_array(m->arena, float, (size_t)c->hidden);
    m->inv_freq = qz_arena_array(m->arena, float, pairs);
    if (!m->final_norm || !m->inv_freq) return qz_arena_failed(m->arena);
    qz_rope_frequencies(m->inv_freq, &c->rope, c->rope.dims);
    if (c->rope.kind == QZ_ROPE_LONG) {
        qz_rope far = c->rope;
        far.factors = c->rope.far_factors;
        m->far_inv_freq = qz_arena_array(m->arena, float, pairs);
        if (!m->far_inv_freq) return qz_arena_failed(m->arena);
        qz_rope_frequencies(m->far_inv_freq, &far, far.dims);
    }
    return qz_ckpt_read_plain(m->ckpt, m->family->names->final_norm, 1, &c->hidden, m->final_norm);
}

static qz_status open_parts(qz_model *m, const char *const *pass_through)
{
    const qz_json_node *config = qz_json_root(qz_ckpt_config(m->ckpt));
    QZ_TRY(qz_arena_new(&m->arena, "model"));
    QZ_TRY_CTX(qz_model_config_read(&m->config, config, m->arena), "config.json");
    m->family = qz_family_at((size_t)qz_plugins_find(qz_families(), m->config.family));
    QZ_TRY(qz_model_form_layers(m));
    QZ_TRY(qz_model_name_layers(m));
    QZ_TRY(qz_model_check_tensors(m, pass_through));
    QZ_TRY(find_tables(m));
    settle_stored_type(m, config);
    return read_small(m);
}

qz_status qz_model_open(qz_model **out, const qz_ckpt *ckpt, const qz_backend *backend, const char *const *pass_through)
{
    qz_model *m = *out = qz_calloc(1, sizeof *m);
    if (!m) return QZ_FAIL(QZ_MEMORY, "out of memory opening a model");
    m->ckpt = ckpt;
    m->backend = backend;
    qz_status status = open_parts(m, pass_through);
    if (status == QZ_OK) return QZ_OK;
    qz_model_close(m);
    *out = NULL;
    return qz_error_context(status, "%s", qz_ckpt_folder(ckpt));
}

void qz_model_close(qz_model *m)
{
    if (!m) return;
    qz_arena_free(m->arena);
    qz_free(m);
}

const qz_model_config *qz_model_config_of(const qz_model *m)
{
    return &m->config;
}

const qz_family *qz_model_family(const qz_model *m)
{
    return m->family;
}

const qz_ckpt *qz_model_ckpt(const qz_model *m)
{
    return m->ckpt;
}

const qz_backend *qz_model_backend(const qz_model *m)
{
    return m->backend;
}

void qz_model_set_tap(qz_model *m, qz_tap tap)
{
    m->tap = tap;
}

const char *qz_model_end_name(const qz_model *m, qz_end end)
{
    return m->table[end];
}

qz_status qz_model_end(const qz_model *m, qz_end end, qz_linear *out, qz_arena *arena)
{
    const int64_t n = m->config.vocabulary, k = m->config.hidden;
    float *data = qz_arena_array(arena, float, (size_t)(n * k));
    if (!data) return qz_arena_failed(arena);
    *out = (qz_linear){.module = m->table[end], .role = QZ_ROLES, .weight = qz_tensor_2d(data, QZ_F32, n, k)};
    qz_arena_mark mark = qz_arena_save(arena);
    QZ_TRY(qz_ckpt_read_weight(m->ckpt, out->module, n, k, data, arena));
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

qz_status qz_model_plain_names(const qz_model *m, const char ***names, size_t *count, qz_arena *arena)
{
    *names = qz_arena_array(arena, const char *, m->plains);
    if (!*names) return qz_arena_failed(arena);
    memcpy(*names, m->plain, m->plains * sizeof **names);
    *count = m->plains;
    return QZ_OK;
}
