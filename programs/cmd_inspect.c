/* qcal inspect: what is in a model folder or a safetensors file. Reads headers and config only; the model's family is
 * asked for the linears when it is known, so that their scheme can be told. */
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "calib/calib.h"
#include "programs/cli.h"
#include "programs/table.h"

/* A folder or one file, behind one way of counting and indexing. */
typedef struct source {
    qz_ckpt *ckpt;
    qz_safetensors *file;
    bool has_scheme;
    qz_scheme scheme;
} source;

static qz_status open_source(source *s, const char *path)
{
    *s = (source){0};
    if (!qz_path_is_folder(path)) return qz_safetensors_open(&s->file, path);
    QZ_TRY(qz_ckpt_open(&s->ckpt, path));
    const qz_container *container = qz_ckpt_container(s->ckpt);
    if (!container->read_scheme) return QZ_OK;
    s->has_scheme = true;
    return container->read_scheme(&s->scheme, qz_json_root(qz_ckpt_config(s->ckpt)));
}

static void close_source(source *s)
{
    qz_ckpt_close(s->ckpt);
    qz_safetensors_close(s->file);
}

static size_t count_of(const source *s)
{
    return s->ckpt ? qz_ckpt_count(s->ckpt) : qz_safetensors_count(s->file);
}

static const qz_stored *tensor_at(const source *s, size_t i)
{
    return s->ckpt ? qz_ckpt_at(s->ckpt, i) : qz_safetensors_at(s->file, i);
}

static void describe_shape(char *out, size_t size, const qz_tensor *view)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int d = 0; d < view->ndim && used < size; d++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", d ? ", " : "", (long long)view->shape[d]);
    if (used < size) snprintf(out + used, size - used, "]");
}

/* The module that a quantized tensor belongs to gets the folder's scheme; plain tensors get "". */
static void describe_tensor_scheme(char *out, size_t size, const source *s, const qz_stored *t)
{
    char module[512];
    const char *dot = strrchr(t->name, '.');
    out[0] = '\0';
    if (!s->has_scheme || !dot || dot - t->name >= (long)sizeof module) return;
    snprintf(module, sizeof module, "%.*s", (int)(dot - t->name), t->name);
    if (qz_ckpt_is_quantized(s->ckpt, module) && strcmp(dot, ".bias") != 0) qz_scheme_describe(&s->scheme, out, size);
}

static uint64_t total_bytes(const source *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count_of(s); i++) sum += tensor_at(s, i)->bytes;
    return sum;
}

static qz_status print_tensors(const qz_cli *cli, const source *s)
{
    char shape[256], scheme[96];
    qz_table t = qz_table_new(cli->arena, 5);
    t.left[1] = t.left[2] = t.left[4] = true;
    for (size_t i = 0; i < count_of(s); i++) {
        const qz_stored *stored = tensor_at(s, i);
        describe_shape(shape, sizeof shape, &stored->view);
        describe_tensor_scheme(scheme, sizeof scheme, s, stored);
        qz_table_row_add(&t);
        qz_table_set(&t, 0, "%s", stored->name);
        qz_table_set(&t, 1, "%s", qz_dtype_name(stored->view.dtype));
        qz_table_set(&t, 2, "%s", shape);
        qz_table_set(&t, 3, "%llu", (unsigned long long)stored->bytes);
        qz_table_set(&t, 4, "%s", scheme);
    }
    return qz_table_print(&t, cli->out, "");
}

static void print_totals(const qz_cli *cli, const source *s)
{
    char bytes[32], scheme[96];
    fprintf(cli->out, "\n%zu tensors, %s", count_of(s), qz_text_bytes(bytes, total_bytes(s)));
    if (s->ckpt) fprintf(cli->out, ", container %s", qz_ckpt_container(s->ckpt)->plugin.name);
    if (s->has_scheme) {
        qz_scheme_describe(&s->scheme, scheme, sizeof scheme);
        fprintf(cli->out, ", %s", scheme);
    }
    fputc('\n', cli->out);
}

static void put_tensor(qz_json_writer *w, const source *s, const qz_stored *t)
{
    char scheme[96];
    describe_tensor_scheme(scheme, sizeof scheme, s, t);
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "name", t->name);
    qz_json_put_string(w, "dtype", qz_dtype_name(t->view.dtype));
    qz_json_begin_array(w, "shape");
    for (int d = 0; d < t->view.ndim; d++) qz_json_put_int(w, NULL, t->view.shape[d]);
    qz_json_end(w);
    qz_json_put_int(w, "bytes", (int64_t)t->bytes);
    qz_json_put_string(w, "file", t->file);
    if (*scheme) qz_json_put_string(w, "scheme", scheme);
    qz_json_end(w);
}

static qz_status print_json(const qz_cli *cli, const source *s)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "path", cli->argument[0]);
    if (s->ckpt) qz_json_put_string(w, "container", qz_ckpt_container(s->ckpt)->plugin.name);
    qz_json_put_int(w, "count", (int64_t)count_of(s));
    qz_json_put_int(w, "bytes", (int64_t)total_bytes(s));
    qz_json_begin_array(w, "tensors");
    for (size_t i = 0; i < count_of(s); i++) put_tensor(w, s, tensor_at(s, i));
    qz_json_end(w);
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, cli->out);
    qz_json_writer_free(w);
    return status;
}

qz_status qz_cmd_inspect(qz_cli *cli, int *exit_code)
{
    source s;
    *exit_code = QZ_EXIT_DONE;
    qz_status status = open_source(&s, cli->argument[0]);
    if (status == QZ_OK && cli->json) status = print_json(cli, &s);
    if (status == QZ_OK && !cli->json) {
        status = print_tensors(cli, &s);
        print_totals(cli, &s);
    }
    close_source(&s);
    return status;
}
