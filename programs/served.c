/* Folder -> qz_served. Shards are found as consumers find them: model.safetensors, or else every *.safetensors file of
 * the folder that the index names, or all where there is no index. */
#include "programs/served.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/map.h"

#define CONFIG_LIMIT ((size_t)16 << 20)

static bool ends_with(const char *name, const char *suffix)
{
    const size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static qz_status read_config(qz_served *s)
{
    char *text, *path = qz_path_join(s->arena, s->folder, "config.json");
    size_t size;
    if (!path) return qz_arena_failed(s->arena);
    if (!qz_path_exists(path)) return qz_ckpt_missing_config(s->folder, s->arena);
    QZ_TRY(qz_file_read(&text, &size, path, CONFIG_LIMIT, s->arena));
    QZ_TRY_CTX(qz_json_parse(&s->document, text, size), "%s", path);
    s->config = qz_json_root(s->document);
    QZ_TRY_CTX(qz_model_config_read(&s->model, s->config, s->arena), "%s", path);
    s->names = qz_family_at((size_t)qz_plugins_find(qz_families(), s->model.family))->names;
    qz_served_read_method(s);
    return QZ_OK;
}

/* ---- tensors ---- */

static qz_status open_file(qz_served *s, const char *name)
{
    char *path = qz_path_join(s->arena, s->folder, name);
    if (!path) return qz_arena_failed(s->arena);
    QZ_TRY(qz_safetensors_open(&s->file[s->files], path));
    s->files++;
    return QZ_OK;
}

static qz_status open_files(qz_served *s)
{
    char **names, *single = qz_path_join(s->arena, s->folder, "model.safetensors");
    size_t count;
    if (!single) return qz_arena_failed(s->arena);
    QZ_TRY(qz_folder_list(&names, &count, s->folder, s->arena));
    s->file = qz_arena_calloc(s->arena, (count + 1) * sizeof *s->file);
    if (!s->file) return qz_arena_failed(s->arena);
    if (qz_path_exists(single)) return open_file(s, "model.safetensors");
    for (size_t i = 0; i < count; i++)
        if (ends_with(names[i], ".safetensors")) QZ_TRY(open_file(s, names[i]));
    return s->files ? QZ_OK : QZ_FAIL(QZ_IO, "%s: holds no .safetensors file", s->folder);
}

static qz_status index_tensors(qz_served *s)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < s->files; i++) count += qz_safetensors_count(s->file[i]);
    s->tensor = qz_arena_array(s->arena, const qz_stored *, count + 1);
    if (!s->tensor) return qz_arena_failed(s->arena);
    QZ_TRY(qz_strmap_new(&s->index, count));
    for (size_t i = 0; i < s->files; i++)
        for (size_t j = 0; j < qz_safetensors_count(s->file[i]); j++) {
            const qz_stored *t = s->tensor[n] = qz_safetensors_at(s->file[i], j);
            QZ_TRY(qz_strmap_add(s->index, t->name, strlen(t->name), (int64_t)n++, NULL));
        }
    return QZ_OK;
}

const qz_stored *qz_served_find(const qz_served *s, const char *name)
{
    const int64_t i = qz_strmap_get(s->index, name, strlen(name));
    return i < 0 ? NULL : s->tensor[i];
}

const qz_stored *qz_served_part(const qz_served *s, const char *module, const char *suffix)
{
    char name[512];
    snprintf(name, sizeof name, "%s.%s", module, suffix);
    return qz_served_find(s, name);
}

double qz_served_number(const qz_stored *t)
{
    float x;
    if (!t || qz_tensor_count(&t->view) != 1) return NAN;
    return qz_convert(&x, QZ_F32, t->view.data, t->view.dtype, 1) == QZ_OK ? (double)x : NAN;
}

/* ---- linears ---- */

/* By its tensors: packed codes, or a weight of a type that is no plain one. */
static bool is_stored_quantized(const qz_served *s, const char *module)
{
    const qz_stored *weight = qz_served_part(s, module, "weight");
    if (qz_served_part(s, module, "qweight") || qz_served_part(s, module, "weight_packed")) return true;
    return weight && !qz_dtype_is_plain(weight->view.dtype);
}

static int64_t outputs_of(const qz_served *s, qz_role role, bool routed)
{
    const qz_model_config *c = &s->model;
    const int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, f = routed ? c->expert_ffn : c->ffn;
    const int64_t outputs[QZ_ROLES] = {q, kv, kv, c->hidden, f, f, c->hidden};
    return outputs[role];
}

static int64_t inputs_of(const qz_served *s, qz_role role, bool routed)
{
    const qz_model_config *c = &s->model;
    switch (qz_role_stage(role)) {
    case QZ_STAGE_O:
        return c->heads * c->head_dim;
    case QZ_STAGE_DOWN:
        return routed ? c->expert_ffn : c->ffn;
    default:
        return c->hidden;
    }
}

static qz_status finish_linear(qz_served *s, qz_served_linear *l)
{
    if (!l->module) return qz_arena_failed(s->arena);
    l->stored = is_stored_quantized(s, l->module);
    s->linears++;
    return qz_served_say(s, l);
}

static bool is_routed(const qz_served *s, int layer, qz_role role)
{
    return s->model.layer_routes && s->model.layer_routes[layer] && role >= QZ_ROLE_GATE;
}

/* A role whose name is NULL lies in the linear before it. */
static qz_status add_role(qz_served *s, int layer, qz_role role, int expert)
{
    const bool routed = is_routed(s, layer, role);
    qz_served_linear *l = &s->linear[s->linears];
    if (!routed && !s->names->linear[role]) {
        l[-1].n += outputs_of(s, role, false);
        l[-1].roles++;
        return QZ_OK;
    }
    *l = (qz_served_linear){.layer = layer, .expert = expert, .role = role, .roles = 1};
    l->n = outputs_of(s, role, routed);
    l->k = inputs_of(s, role, routed);
    l->module = routed ? qz_arena_printf(s->arena, "%s.%d.%s.%d.%s", s->names->layer, layer, s->names->experts, expert,
                                         s->names->expert_linear[role - QZ_ROLE_GATE])
                       : qz_arena_printf(s->arena, "%s.%d.%s", s->names->layer, layer, s->names->linear[role]);
    return finish_linear(s, l);
}

static qz_status add_layer(qz_served *s, int layer)
{
    const int experts = is_routed(s, layer, QZ_ROLE_GATE) ? (int)s->model.experts : 1;
    for (int role = 0; role < QZ_ROLE_GATE; role++) QZ_TRY(add_role(s, layer, (qz_role)role, 0));
    for (int expert = 0; expert < experts; expert++)
        for (int role = QZ_ROLE_GATE; role < QZ_ROLES; role++) QZ_TRY(add_role(s, layer, (qz_role)role, expert));
    return QZ_OK;
}

/* "lm_head.weight" -> "lm_head" */
static qz_status add_head(qz_served *s)
{
    qz_served_linear *l = &s->linear[s->linears];
    const char *dot = strrchr(s->names->head, '.');
    *l = (qz_served_linear){.layer = -1, .roles = 1, .n = s->model.vocabulary, .k = s->model.hidden};
    l->module = qz_arena_printf(s->arena, "%.*s", (int)(dot - s->names->head), s->names->head);
    return finish_linear(s, l);
}

static qz_status add_linears(qz_served *s)
{
    const int64_t experts = s->model.experts > 1 ? s->model.experts : 1;
    const size_t most = (size_t)(s->model.layers * (QZ_ROLE_GATE + 3 * experts) + 1);
    s->linear = qz_arena_array(s->arena, qz_served_linear, most);
    if (!s->linear) return qz_arena_failed(s->arena);
    for (int i = 0; i < (int)s->model.layers; i++) QZ_TRY(add_layer(s, i));
    return s->model.tied ? QZ_OK : add_head(s);
}

const char *qz_served_attention(const qz_served *s, int layer)
{
    const char *first = s->names->linear[0], *dot = strrchr(first, '.');
    const char *name = qz_arena_printf(s->arena, "%s.%d.%.*s", s->names->layer, layer,
                                       (int)(dot ? dot - first : (int)strlen(first)), first);
    return name ? name : "";
}

static bool same_set(const qz_served_linear *a, const qz_served_linear *b)
{
    return a->layer >= 0 && a->layer == b->layer && a->expert == b->expert &&
           qz_role_stage(a->role) == qz_role_stage(b->role);
}

size_t qz_served_fused(const qz_served *s, size_t i)
{
    size_t count = 1;
    if (i > 0 && same_set(&s->linear[i - 1], &s->linear[i])) return 0;
    while (i + count < s->linears && same_set(&s->linear[i], &s->linear[i + count])) count++;
    return count > 1 ? count : 0;
}

qz_status qz_served_open(qz_served *out, const char *folder, qz_consumer consumer, qz_arena *arena)
{
    *out = (qz_served){.arena = arena, .folder = folder, .consumer = consumer};
    qz_status status = read_config(out);
    if (status == QZ_OK) status = open_files(out);
    if (status == QZ_OK) status = index_tensors(out);
    if (status == QZ_OK) status = add_linears(out);
    if (status != QZ_OK) qz_served_close(out);
    return status;
}

void qz_served_close(qz_served *s)
{
    for (size_t i = 0; i < s->files; i++) qz_safetensors_close(s->file[i]);
    s->files = 0;
    qz_strmap_free(s->index);
    s->index = NULL;
    qz_json_close(s->document);
    s->document = NULL;
}
