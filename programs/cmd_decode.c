/* qcal decode: every weight of a folder as plain fp32 in one safetensors file, dequantized where the folder is
 * quantized. For tools that know no container, and for comparing what was written with what another reader finds. */
#include <string.h>

#include "base/file.h"
#include "programs/cli.h"
#include "programs/session.h"

typedef struct decoder {
    const qz_session *session;
    qz_shards *shards;
    const char **plain;
    size_t plain_count;
    qz_arena *arena, *scratch;
} decoder;

static const char *suffixed(const decoder *d, const char *module, const char *suffix)
{
    return qz_arena_printf(d->arena, "%s.%s", module, suffix);
}

static qz_status declare_linear(const decoder *d, int layer, int number)
{
    const qz_model *m = d->session->model;
    const qz_linear_place *l = qz_model_linear(m, layer, number);
    const int64_t shape[2] = {l->n, l->k};
    const char *module = qz_model_linear_name(m, layer, number);
    const char *weight = suffixed(d, module, "weight"), *bias = suffixed(d, module, "bias");
    if (!weight || !bias) return qz_arena_failed(d->arena);
    QZ_TRY(qz_shards_declare(d->shards, module, weight, QZ_F32, 2, shape));
    return l->has_bias ? qz_shards_declare(d->shards, module, bias, QZ_F32, 1, shape) : QZ_OK;
}

/* The head or the embeddings, when they are stored quantized; plain ones are among the plain tensors. */
static bool is_coded(const decoder *d, int table)
{
    const char *module = qz_model_end_name(d->session->model, (qz_end)table);
    return module && qz_ckpt_is_quantized(d->session->ckpt, module);
}

static qz_status declare_table(const decoder *d, int table)
{
    const qz_model_config *c = qz_model_config_of(d->session->model);
    const char *module = qz_model_end_name(d->session->model, (qz_end)table);
    const char *weight = suffixed(d, module, "weight");
    if (!weight) return qz_arena_failed(d->arena);
    return qz_shards_declare(d->shards, module, weight, QZ_F32, 2, (int64_t[]){c->vocabulary, c->hidden});
}

static qz_status declare_all(decoder *d)
{
    const qz_model *m = d->session->model;
    QZ_TRY(qz_model_plain_names(m, &d->plain, &d->plain_count, d->arena));
    for (size_t i = 0; i < d->plain_count; i++) {
        const qz_stored *t = qz_ckpt_find(d->session->ckpt, d->plain[i]);
        if (!qz_dtype_is_plain(t->view.dtype))
            return QZ_FAIL(QZ_UNSUPPORTED, "%s is stored as %s, which has no fp32 form", t->name,
                           qz_dtype_name(t->view.dtype));
        QZ_TRY(qz_shards_declare(d->shards, t->name, t->name, QZ_F32, t->view.ndim, t->view.shape));
    }
    for (int64_t i = 0; i < qz_model_config_of(m)->layers; i++)
        for (int j = 0; j < qz_model_linears(m, (int)i); j++) QZ_TRY(declare_linear(d, (int)i, j));
    for (int i = 0; i < QZ_ENDS; i++)
        if (is_coded(d, i)) QZ_TRY(declare_table(d, i));
    return qz_shards_begin(d->shards);
}

enum { PART = 1 << 20 }; /* elements at a time */

static qz_status write_plain(const decoder *d, const char *name)
{
    const qz_stored *t = qz_ckpt_find(d->session->ckpt, name);
    const int64_t count = qz_tensor_count(&t->view), size = qz_dtype_bits(t->view.dtype) / 8;
    float *part = qz_arena_array(d->scratch, float, PART);
    if (!part) return qz_arena_failed(d->scratch);
    for (int64_t first = 0; first < count; first += PART) {
        const int64_t n = count - first < PART ? count - first : PART;
        QZ_TRY(qz_convert(part, QZ_F32, (const char *)t->view.data + first * size, t->view.dtype, n));
        QZ_TRY(qz_shards_write_part(d->shards, name, (uint64_t)first * 4, part, (size_t)n * 4));
    }
    return QZ_OK;
}

static qz_status write_linear(const decoder *d, const qz_linear *l)
{
    const char *weight = suffixed(d, l->module, "weight"), *bias = suffixed(d, l->module, "bias");
    if (!weight || !bias) return qz_arena_failed(d->arena);
    QZ_TRY(qz_shards_write(d->shards, weight, l->weight.data, (size_t)qz_tensor_count(&l->weight) * 4));
    return l->bias.data ? qz_shards_write(d->shards, bias, l->bias.data, (size_t)l->bias.shape[0] * 4) : QZ_OK;
}

static qz_status write_all(const decoder *d)
{
    for (size_t i = 0; i < d->plain_count; i++) {
        QZ_TRY(write_plain(d, d->plain[i]));
        qz_arena_reset(d->scratch);
    }
    for (int64_t i = 0; i < qz_model_config_of(d->session->model)->layers; i++) {
        qz_layer layer;
        QZ_TRY(qz_model_layer(d->session->model, (int)i, &layer, d->scratch));
        for (int j = 0; j < layer.linears; j++) QZ_TRY(write_linear(d, &layer.linear[j]));
        qz_arena_reset(d->scratch);
    }
    for (int i = 0; i < QZ_ENDS; i++) {
        qz_linear table;
        if (!is_coded(d, i)) continue;
        QZ_TRY(qz_model_end(d->session->model, (qz_end)i, &table, d->scratch));
        QZ_TRY(write_linear(d, &table));
        qz_arena_reset(d->scratch);
    }
    return qz_shards_finish(d->shards);
}

static qz_status decode_into(const char *folder, const qz_session *session, qz_arena *arena)
{
    decoder d = {.session = session, .arena = arena};
    QZ_TRY(qz_shards_new(&d.shards, folder, 0));
    qz_status status = qz_arena_new(&d.scratch, "layer");
    if (status == QZ_OK) status = declare_all(&d);
    if (status == QZ_OK) status = write_all(&d);
    qz_arena_free(d.scratch);
    qz_shards_free(d.shards);
    return status;
}

/* The file is made inside OUTPUT.partial, a folder, and moved out when it is whole. */
static qz_status decode(const qz_cli *cli, const qz_session *session)
{
    char *folder = qz_arena_printf(cli->arena, "%s.partial", cli->output);
    char *made = folder ? qz_path_join(cli->arena, folder, "model.safetensors") : NULL;
    if (!made) return qz_arena_failed(cli->arena);
    if (qz_path_exists(folder))
        return QZ_FAIL(QZ_IO, "%s exists, perhaps from a run that was killed: remove it", folder);
    QZ_TRY(qz_folder_make(folder));
    qz_status status = decode_into(folder, session, cli->arena);
    if (status == QZ_OK) status = qz_path_rename(made, cli->output);
    qz_error saved;
    qz_error_save(&saved, status);
    if (qz_folder_remove(folder) != QZ_OK && status == QZ_OK) return QZ_IO;
    return qz_error_restore(&saved);
}

qz_status qz_cmd_decode(qz_cli *cli, int *exit_code)
{
    qz_session session;
    *exit_code = QZ_EXIT_DONE;
    if (!cli->output)
        return QZ_FAIL(QZ_ARG, "--output FILE is missing; usage: qcal decode DIR --output FILE.safetensors");
    if (qz_path_exists(cli->output)) return QZ_FAIL(QZ_IO, "%s exists: choose another output", cli->output);
    QZ_TRY(qz_session_open_weights(&session, cli->argument[0], cli->backend, cli->pass_through, cli->arena));
    qz_status status = decode(cli, &session);
    qz_session_close(&session);
    return status;
}
