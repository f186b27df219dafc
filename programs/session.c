/* Opening in the order backend, checkpoint, model, tokenizer, so that the first thing that is wrong is what is said. */
#include "programs/session.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

/* A tokenizer with more ids than the model has embeddings belongs to another model. */
static qz_status check_tokenizer(const qz_session *s, const char *path)
{
    int64_t vocabulary = qz_model_config_of(s->model)->vocabulary, size = qz_tokenizer_size(s->tokenizer);
    if (size <= vocabulary) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s: has ids up to %lld, but config.json says vocab_size %lld; the tokenizer does not belong "
                   "to this model",
                   path, (long long)(size - 1), (long long)vocabulary);
}

static qz_status open_tokenizer(qz_session *s, const char *folder)
{
    char *path = qz_path_join(s->arena, folder, "tokenizer.json");
    if (!path) return qz_arena_failed(s->arena);
    if (!qz_path_exists(path)) return QZ_OK;
    QZ_TRY(qz_tokenizer_open(&s->tokenizer, path));
    return check_tokenizer(s, path);
}

static qz_status open_weights(qz_session *s, const char *folder, const char *backend, const char *const *pass_through)
{
    s->backend = qz_backend_best();
    if (backend && strcmp(backend, "auto") != 0) QZ_TRY(qz_backend_find(&s->backend, backend));
    if (!s->backend->available()) return QZ_FAIL(QZ_ARG, "backend %s is not available here", s->backend->plugin.name);
    QZ_TRY(qz_ckpt_open(&s->ckpt, folder));
    return qz_model_open(&s->model, s->ckpt, s->backend, pass_through);
}

qz_status qz_session_open_weights(qz_session *out, const char *folder, const char *backend,
                                  const char *const *pass_through, qz_arena *arena)
{
    *out = (qz_session){.arena = arena};
    qz_status status = open_weights(out, folder, backend, pass_through);
    if (status != QZ_OK) qz_session_close(out);
    return status;
}

qz_status qz_session_open(qz_session *out, const char *folder, const char *backend, const char *const *pass_through,
                          qz_arena *arena)
{
    QZ_TRY(qz_session_open_weights(out, folder, backend, pass_through, arena));
    qz_status status = open_tokenizer(out, folder);
    if (status != QZ_OK) qz_session_close(out);
    return status;
}

void qz_session_close(qz_session *s)
{
    qz_tokenizer_close(s->tokenizer);
    qz_model_close(s->model);
    qz_ckpt_close(s->ckpt);
    s->tokenizer = NULL;
    s->model = NULL;
    s->ckpt = NULL;
}

static bool is_text(const char *path)
{
    const char *dot = strrchr(path, '.');
    return !dot || (strcmp(dot, ".h5") != 0 && strcmp(dot, ".hdf5") != 0);
}

qz_status qz_session_can_read(const qz_session *s, const char *path)
{
    if (s->tokenizer || !is_text(path)) return QZ_OK;
    return QZ_FAIL(QZ_IO, "%s: holds no tokenizer.json, which %s needs; token ids as .h5 need none",
                   qz_ckpt_folder(s->ckpt), path);
}

qz_status qz_session_windows(qz_windows *out, const qz_session *s, const qz_windows_rule *rule)
{
    qz_windows_rule full = *rule;
    const qz_model_config *config = qz_model_config_of(s->model);
    QZ_TRY(qz_session_can_read(s, rule->path));
    full.bos = config->bos;
    full.vocabulary = config->vocabulary;
    full.model = qz_ckpt_folder(s->ckpt);
    return qz_windows_load(out, &full, s->tokenizer, s->arena);
}

/* Bytes of the tensors of a linear that hold its weight (the bias is left out). */
static uint64_t linear_bytes(const qz_ckpt *c, const char *module)
{
    char name[512];
    uint64_t sum = 0;
    const char *const *suffix = qz_ckpt_container(c)->suffixes;
    for (; suffix && *suffix; suffix++) {
        snprintf(name, sizeof name, "%s.%s", module, *suffix);
        const qz_stored *t = strcmp(*suffix, "bias") != 0 ? qz_ckpt_find(c, name) : NULL;
        if (t) sum += t->bytes;
    }
    return sum;
}

/* The head and the embeddings where they are stored quantized; plain ones are among the plain tensors. */
static void count_tables(qz_weight_count *out, const qz_session *s)
{
    const qz_model_config *c = qz_model_config_of(s->model);
    for (int i = 0; i < QZ_ENDS; i++) {
        const char *module = qz_model_end_name(s->model, (qz_end)i);
        if (!module || !qz_ckpt_is_quantized(s->ckpt, module)) continue;
        out->numbers += (uint64_t)(c->vocabulary * c->hidden);
        out->linear_numbers += (uint64_t)(c->vocabulary * c->hidden);
        out->linear_bytes += linear_bytes(s->ckpt, module);
    }
}

static void count_linears(qz_weight_count *out, const qz_session *s)
{
    int64_t layers = qz_model_config_of(s->model)->layers;
    for (int layer = 0; layer < layers; layer++)
        for (int i = 0; i < qz_model_linears(s->model, layer); i++) {
            const char *module = qz_model_linear_name(s->model, layer, i);
            const qz_linear_place *l = qz_model_linear(s->model, layer, i);
            out->numbers += (uint64_t)(l->n * l->k);
            if (!qz_ckpt_is_quantized(s->ckpt, module)) continue;
            out->linear_numbers += (uint64_t)(l->n * l->k);
            out->linear_bytes += linear_bytes(s->ckpt, module);
        }
    count_tables(out, s);
}

qz_status qz_session_count(qz_weight_count *out, const qz_session *s)
{
    const char **names;
    size_t count;
    *out = (qz_weight_count){.bytes = qz_ckpt_bytes(s->ckpt)};
    count_linears(out, s);
    QZ_TRY(qz_model_plain_names(s->model, &names, &count, s->arena));
    for (size_t i = 0; i < count; i++) {
        const qz_stored *t = qz_ckpt_find(s->ckpt, names[i]);
        if (t) out->numbers += (uint64_t)qz_tensor_count(&t->view);
    }
    return QZ_OK;
}

double qz_bits(uint64_t bytes, uint64_t numbers)
{
    return numbers ? 8.0 * (double)bytes / (double)numbers : 0;
}

qz_status qz_folder_bytes(uint64_t *out, const char *folder)
{
    qz_arena *arena;
    char **names;
    size_t count = 0;
    *out = 0;
    QZ_TRY(qz_arena_new(&arena, "folder"));
    qz_status status = qz_folder_list(&names, &count, folder, arena);
    for (size_t i = 0; i < count && status == QZ_OK; i++) {
        uint64_t size = 0;
        char *path = qz_path_join(arena, folder, names[i]);
        if (!path) status = qz_arena_failed(arena);
        if (path && !qz_path_is_folder(path)) status = qz_file_size(path, &size);
        *out += size;
    }
    qz_arena_free(arena);
    return status;
}
