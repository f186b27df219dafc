/* Which tensors a model has: names from the family's table, and the check of a folder against them. Every tensor that
 * the family needs must be there with its shape and a plain type, and no other may be, so that a wrong config or a
 * variant that we do not know is found before any arithmetic. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "base/map.h"
#include "models/parts.h"

static const char *layer_name(qz_model *m, int64_t layer, const char *name)
{
    return qz_arena_printf(m->arena, "%s.%lld.%s", m->family->names->layer, (long long)layer, name);
}

static const char *linear_name(qz_model *m, int layer, const qz_linear_place *p)
{
    const qz_tensor_names *table = m->family->names;
    if (!qz_model_form(m, layer)->routed || p->role < QZ_ROLE_GATE) return layer_name(m, layer, table->linear[p->role]);
    return qz_arena_printf(m->arena, "%s.%d.%s.%d.%s", table->layer, layer, table->experts, p->expert,
                           table->expert_linear[p->role - QZ_ROLE_GATE]);
}

static bool name_linears(qz_model *m, int layer)
{
    const qz_layer_form *f = qz_model_form(m, layer);
    const char **name = m->names[layer].linear = qz_arena_array(m->arena, const char *, (size_t)f->linears);
    for (int i = 0; name && i < f->linears; i++)
        if (!(name[i] = linear_name(m, layer, &f->place[i]))) return false;
    return name != NULL;
}

/* "model.layers.0.self_attn.q_proj" -> "model.layers.0.self_attn" */
static const char *parent_name(qz_model *m, const char *name)
{
    const char *last = strrchr(name, '.');
    return qz_arena_printf(m->arena, "%.*s", (int)(last ? last - name : 0), name);
}

static bool name_tables(qz_model *m)
{
    const qz_tensor_names *names = m->family->names;
    m->table[QZ_END_EMBEDDING] = parent_name(m, names->embedding);
    if (!m->config.tied) m->table[QZ_END_HEAD] = parent_name(m, names->head);
    return m->table[QZ_END_EMBEDDING] && (m->config.tied || m->table[QZ_END_HEAD]);
}

qz_status qz_model_name_layers(qz_model *m)
{
    const qz_tensor_names *table = m->family->names;
    if (!name_tables(m)) return qz_arena_failed(m->arena);
    bool complete = (m->names = qz_arena_calloc(m->arena, (size_t)m->config.layers * sizeof *m->names)) != NULL;
    for (int64_t i = 0; complete && i < m->config.layers; i++) {
        qz_layer_names *n = &m->names[i];
        complete &= name_linears(m, (int)i) && (n->attention = parent_name(m, n->linear[0])) != NULL;
        for (int j = 0; j < QZ_NORMS; j++)
            if (table->norm[j]) complete &= (n->norm[j] = layer_name(m, i, table->norm[j])) != NULL;
        if (qz_model_form(m, (int)i)->routed)
            complete &= (n->router = layer_name(m, i, table->router)) != NULL &&
                        (n->router_module = parent_name(m, n->router)) != NULL;
        if (!m->config.qk_norm) continue;
        complete &= (n->q_norm = layer_name(m, i, table->q_norm)) != NULL;
        complete &= (n->k_norm = layer_name(m, i, table->k_norm)) != NULL;
    }
    return complete ? QZ_OK : qz_arena_failed(m->arena);
}

/* ---- shapes ---- */

static const char *shape_text(char *out, size_t size, int ndim, const int64_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "(");
    for (int i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < size) snprintf(out + used, size - used, ")");
    return out;
}

/* cols 0: one dimension. */
static qz_status check_plain(const qz_model *m, const char *name, int64_t rows, int64_t cols)
{
    char found[200], expected[64];
    const int ndim = cols ? 2 : 1;
    const int64_t shape[2] = {rows, cols};
    const qz_stored *t = qz_ckpt_find(m->ckpt, name);
    shape_text(expected, sizeof expected, ndim, shape);
    if (!t)
        return QZ_FAIL(QZ_FORMAT, "%s: missing; config.json says %s of shape %s", name, m->family->architecture,
                       expected);
    bool same = t->view.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t->view.shape[i] == shape[i];
    if (!same)
        return QZ_FAIL(QZ_SHAPE, "%s: shape is %s, config.json says %s", name,
                       shape_text(found, sizeof found, t->view.ndim, t->view.shape), expected);
    if (!qz_dtype_is_plain(t->view.dtype))
        return QZ_FAIL(QZ_FORMAT, "%s: type is %s, allowed are F32, F16 and BF16", name, qz_dtype_name(t->view.dtype));
    return QZ_OK;
}

/* transformers 5 holds all experts of a layer in two tensors, and some writers store them so. */
static qz_status refuse_fused_experts(const qz_model *m, int layer)
{
    const qz_tensor_names *names = m->family->names;
    char fused[512];
    snprintf(fused, sizeof fused, "%s.%d.%s.gate_up_proj", names->layer, layer, names->experts);
    if (!qz_ckpt_find(m->ckpt, fused)) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED,
                   "%s: all experts in one tensor, expected %s.%d.%s.0.%s.weight and so on; save the model with "
                   "transformers' save_pretrained, which writes a tensor for each expert",
                   fused, names->layer, layer, names->experts, names->expert_linear[0]);
}

static qz_status check_linear(const qz_model *m, const char *module, const qz_linear_place *p)
{
    char name[512];
    if (!qz_ckpt_is_quantized(m->ckpt, module)) {
        snprintf(name, sizeof name, "%s.weight", module);
        QZ_TRY(check_plain(m, name, p->n, p->k));
    }
    if (!p->has_bias) return QZ_OK;
    snprintf(name, sizeof name, "%s.bias", module);
    return check_plain(m, name, p->n, 0);
}

/* Checks a plain tensor and remembers its name. */
static qz_status add_plain(qz_model *m, const char *name, int64_t rows, int64_t cols)
{
    QZ_TRY(check_plain(m, name, rows, cols));
    m->plain[m->plains++] = name;
    return QZ_OK;
}

static qz_status check_layer(qz_model *m, int layer)
{
    const qz_model_config *c = &m->config;
    const qz_layer_names *names = &m->names[layer];
    if (names->router) QZ_TRY(refuse_fused_experts(m, layer));
    for (int i = 0; i < qz_model_linears(m, layer); i++)
        QZ_TRY(check_linear(m, names->linear[i], qz_model_linear(m, layer, i)));
    for (int j = 0; j < QZ_NORMS; j++)
        if (names->norm[j]) QZ_TRY(add_plain(m, names->norm[j], c->hidden, 0));
    if (names->router) QZ_TRY(add_plain(m, names->router, c->experts, c->hidden));
    if (!c->qk_norm) return QZ_OK;
    QZ_TRY(add_plain(m, names->q_norm, c->head_dim, 0));
    return add_plain(m, names->k_norm, c->head_dim, 0);
}

/* A tied model may store the head again, if it says the same. */
static qz_status check_tied_head(const qz_model *m)
{
    const qz_tensor_names *names = m->family->names;
    const qz_stored *head = qz_ckpt_find(m->ckpt, names->head);
    const qz_stored *embedding = qz_ckpt_find(m->ckpt, names->embedding);
    if (!head) return QZ_OK;
    QZ_TRY(check_plain(m, names->head, m->config.vocabulary, m->config.hidden));
    if (head->view.dtype == embedding->view.dtype &&
        memcmp(head->view.data, embedding->view.data, (size_t)head->bytes) == 0)
        return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s: differs from %s, but config.json says tie_word_embeddings; set it to false, or drop %s",
                   names->head, names->embedding, names->head);
}

/* The server's head would read rows of the embedding, which are codes then. */
static qz_status check_tied_embedding(const qz_model *m)
{
    const char *module = m->table[QZ_END_EMBEDDING];
    if (!qz_ckpt_is_quantized(m->ckpt, module)) return check_tied_head(m);
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: is quantized, but config.json says tie_word_embeddings; that is not supported",
                   module);
}

/* Containers that quantize a table check its shape as they read it. */
static qz_status check_table(qz_model *m, qz_end end, const char *name)
{
    if (qz_ckpt_is_quantized(m->ckpt, m->table[end])) return QZ_OK;
    return add_plain(m, name, m->config.vocabulary, m->config.hidden);
}

static qz_status check_needed(qz_model *m)
{
    const qz_tensor_names *names = m->family->names;
    const qz_model_config *c = &m->config;
    QZ_TRY(check_table(m, QZ_END_EMBEDDING, names->embedding));
    for (int64_t i = 0; i < c->layers; i++) QZ_TRY(check_layer(m, (int)i));
    QZ_TRY(add_plain(m, names->final_norm, c->hidden, 0));
    return c->tied ? check_tied_embedding(m) : check_table(m, QZ_END_HEAD, names->head);
}

/* ---- tensors that nobody needs ---- */

static qz_status add_name(qz_strmap *known, const char *name, int64_t value)
{
    return qz_strmap_add(known, name, strlen(name), value, NULL);
}

/* What a known name is. */
enum { PLAIN, LINEAR, LINEAR_WITH_BIAS, ATTENTION };

static qz_status known_names(const qz_model *m, qz_strmap *known)
{
    for (size_t i = 0; i < m->plains; i++) QZ_TRY(add_name(known, m->plain[i], PLAIN));
    QZ_TRY(add_name(known, m->family->names->head, PLAIN));
    for (int i = 0; i < QZ_ENDS; i++)
        if (m->table[i]) QZ_TRY(add_name(known, m->table[i], LINEAR));
    for (int i = 0; i < (int)m->config.layers; i++) QZ_TRY(add_name(known, qz_model_attention_name(m, i), ATTENTION));
    for (int i = 0; i < (int)m->config.layers; i++)
        for (int j = 0; j < qz_model_linears(m, i); j++)
            QZ_TRY(
                add_name(known, m->names[i].linear[j], qz_model_linear(m, i, j)->has_bias ? LINEAR_WITH_BIAS : LINEAR));
    return QZ_OK;
}

static bool matches(const char *name, const char *const *globs)
{
    for (; globs && *globs; globs++)
        if (fnmatch(*globs, name, 0) == 0) return true;
    return false;
}

/* The tensor "<module>.<suffix>" of a known module. */
static bool is_known_part(const qz_model *m, const char *name, const char *module, int64_t kind)
{
    const char *suffix = name + strlen(module);
    if (kind == ATTENTION) return qz_ckpt_is_cache_scale(m->ckpt, name, module);
    if (strcmp(suffix, ".bias") == 0 && kind == LINEAR) return false;
    return qz_ckpt_is_part_of(m->ckpt, name, module);
}

/* Of a linear, where the container knows the suffix and the family has such a bias, or of an attention's cache.
 * Suffixes may hold dots themselves ("weight.absmax"). */
static bool belongs_to_module(const qz_model *m, const qz_strmap *known, const char *name)
{
    char module[512];
    const size_t size = strlen(name);
    for (size_t n = size < sizeof module ? size : 0; n > 0; n--) {
        if (name[n] != '.') continue;
        const int64_t kind = qz_strmap_get(known, name, n);
        if (kind != LINEAR && kind != LINEAR_WITH_BIAS && kind != ATTENTION) continue;
        snprintf(module, sizeof module, "%.*s", (int)n, name);
        if (is_known_part(m, name, module, kind)) return true;
    }
    return false;
}

static qz_status check_others(qz_model *m, const qz_strmap *known, const char *const *pass_through)
{
    const char *first = NULL;
    size_t unknown = 0;
    for (size_t i = 0; i < qz_ckpt_count(m->ckpt); i++) {
        const char *name = qz_ckpt_at(m->ckpt, i)->name;
        if (qz_strmap_get(known, name, strlen(name)) == PLAIN || belongs_to_module(m, known, name)) continue;
        if (matches(name, m->family->names->derived)) continue;
        if (matches(name, pass_through)) {
            m->plain[m->plains++] = name;
        } else {
            if (!first) first = name;
            unknown++;
        }
    }
    if (!unknown) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s: %s as config.json describes it has no such tensor (%zu like it in all); if it may be copied "
                   "unchanged, name it in the recipe's pass_through",
                   first, m->family->architecture, unknown);
}

qz_status qz_model_check_tensors(qz_model *m, const char *const *pass_through)
{
    qz_strmap *known = NULL;
    size_t most = 3 + QZ_ENDS + (size_t)m->config.layers * (QZ_NORMS + 4) + qz_ckpt_count(m->ckpt), linears = 0;
    for (int i = 0; i < (int)m->config.layers; i++) linears += (size_t)qz_model_linears(m, i);
    m->plain = qz_arena_array(m->arena, const char *, most);
    if (!m->plain) return qz_arena_failed(m->arena);
    QZ_TRY(check_needed(m));
    qz_status status = qz_strmap_new(&known, most + linears + (size_t)m->config.layers);
    if (status == QZ_OK) status = known_names(m, known);
    if (status == QZ_OK) status = check_others(m, known, pass_through);
    qz_strmap_free(known);
    return status;
}
