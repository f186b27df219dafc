/* The writer: every tensor once, in one file or many; what is not finite is refused; and the comparison with memory
 * really sees a changed byte, which the tests change in the file while it is still being written. */
#include "calib/writer.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#include "testing/calib_case.h"

typedef struct writing {
    calib_case c;
    qz_calib_output output;
    qz_writer *writer;
    qz_arena *scratch;
} writing;

static void begin(writing *w, const char *folder, const char *out)
{
    (void)folder;
    case_plan(&w->c);
    w->output = case_output(&w->c, out);
    check_ok(qz_arena_new(&w->scratch, "scratch"));
    check_ok(qz_writer_new(&w->writer, w->c.model, &w->output, false, NULL));
}

static void end(writing *w)
{
    qz_writer_free(w->writer);
    qz_arena_free(w->scratch);
    case_close(&w->c);
}

static qz_status put_linear(writing *w, const qz_export_linear *l, const qz_linear *linear)
{
    if (!l->quantized) return qz_writer_linear(w->writer, l, linear, NULL, NULL, w->scratch);
    qz_qtensor q;
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    qz_solve_args args = {.backend = qz_model_backend(w->c.model),
                          .weight = linear->weight,
                          .scheme = l->scheme,
                          .range = minmax,
                          .range_options = qz_options_default(minmax->plugin.options)};
    check_ok(qz_solver_at(0)->solve(&q, &(qz_solve_info){0}, &args, w->scratch));
    return qz_writer_linear(w->writer, l, linear, &q, NULL, w->scratch);
}

/* Hands over all linears of all layers; the rest is left to finish. */
static qz_status put_linears(writing *w)
{
    const int64_t layers = qz_model_config_of(w->c.model)->layers;
    for (int i = 0; i < layers; i++) {
        qz_layer layer;
        check_ok(qz_model_layer(w->c.model, i, &layer, w->scratch));
        for (int role = 0; role < QZ_ROLES; role++)
            QZ_TRY(put_linear(w, &w->c.plan.linear[i * QZ_ROLES + role], &layer.linear[role]));
    }
    return QZ_OK;
}

static void write_model(const char *name, const char *const *sets, const char *out)
{
    writing w = {.c = case_open(name, sets)};
    begin(&w, name, out);
    check_ok(put_linears(&w));
    check_ok(qz_writer_finish(w.writer, w.scratch));
    end(&w);
}

Test(writer, shards_hold_what_one_file_holds)
{
    const char *one = case_folder("one"), *many = case_folder("many");
    write_model("qwen2", NULL, one);
    write_model("qwen2", (const char *[]){"export.shard_size=20000", NULL}, many);
    cr_assert(qz_path_exists(test_path("one/model.safetensors")));
    cr_assert(!qz_path_exists(test_path("many/model.safetensors")));
    cr_assert(qz_path_exists(test_path("many/model.safetensors.index.json")));
    qz_ckpt *a, *b;
    check_ok(qz_ckpt_open(&a, one));
    check_ok(qz_ckpt_open(&b, many));
    cr_assert(qz_ckpt_count(a) == qz_ckpt_count(b) && qz_ckpt_count(a) > 30);
    for (size_t i = 0; i < qz_ckpt_count(a); i++) {
        const qz_stored *x = qz_ckpt_at(a, i), *y = qz_ckpt_find(b, x->name);
        cr_assert(y && x->bytes == y->bytes && x->view.dtype == y->view.dtype, "%s", x->name);
        cr_assert(memcmp(x->view.data, y->view.data, x->bytes) == 0, "%s", x->name);
    }
    qz_ckpt_close(a);
    qz_ckpt_close(b);
}

Test(writer, converts_plain_tensors_and_quantizes_linears)
{
    const char *out = case_folder("types");
    write_model("qwen2", (const char *[]){"weights.skip=[\"lm_head\", \"down_proj\"]", NULL}, out);
    qz_ckpt *c, *source;
    check_ok(qz_ckpt_open(&c, out));
    check_ok(qz_ckpt_open(&source, "tests/golden/models/qwen2"));
    const qz_stored *down = qz_ckpt_find(c, "model.layers.0.mlp.down_proj.weight");
    cr_assert(down && down->view.dtype == QZ_F16);
    cr_assert(!qz_ckpt_find(c, "model.layers.0.mlp.up_proj.weight") &&
              qz_ckpt_find(c, "model.layers.0.mlp.up_proj.qweight"));
    float before[64], after[64];
    const char *bias = "model.layers.1.self_attn.q_proj.bias";
    check_ok(qz_ckpt_read_plain(source, bias, 1, (int64_t[]){64}, before));
    check_ok(qz_ckpt_read_plain(c, bias, 1, (int64_t[]){64}, after));
    cr_assert_arr_eq(before, after, sizeof before); /* these bf16 values are float16 values too */
    qz_ckpt_close(source);
    qz_ckpt_close(c);
}

Test(writer, copies_tensors_that_pass_through_as_they_are)
{
    static const char *const pass[] = {"extra.*", NULL};
    const char *model = case_folder("extra"), *out = case_folder("extra-out");
    case_copy_llama(model, NULL, "extra.table");
    writing w = {.c = case_open_folder(model, (const char *[]){"export.pass_through=[\"extra.*\"]", NULL}, pass)};
    begin(&w, model, out);
    check_ok(put_linears(&w));
    check_ok(qz_writer_finish(w.writer, w.scratch));
    end(&w);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, out));
    const qz_stored *t = qz_ckpt_find(c, "extra.table");
    static const int32_t expected[] = {7, -8, 9};
    cr_assert(t && t->view.dtype == QZ_I32 && t->bytes == sizeof expected);
    cr_assert_arr_eq(t->view.data, expected, sizeof expected);
    qz_ckpt_close(c);
}

/* ---- numbers that cannot be stored ---- */

static void spoil_head(const char *name, float *x, int64_t count)
{
    if (strcmp(name, "lm_head.weight") == 0 && count > 70) x[70] = 70000.0f;
}

static void spoil_embedding(const char *name, float *x, int64_t count)
{
    if (strcmp(name, "model.embed_tokens.weight") == 0 && count > 5) x[5] = NAN;
}

static void check_refused(const char *name, void (*edit)(const char *, float *, int64_t), const char *const *sets,
                          const char *part)
{
    char out_name[64];
    snprintf(out_name, sizeof out_name, "%s-out", name);
    const char *model = case_folder(name), *out = case_folder(out_name);
    case_copy_llama(model, edit, NULL);
    writing w = {.c = case_open_folder(model, sets, NULL)};
    begin(&w, model, out);
    check_ok(put_linears(&w));
    check_fails(QZ_NUMERIC, part, qz_writer_finish(w.writer, w.scratch));
    end(&w);
    char **names;
    size_t count;
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_folder_list(&names, &count, out, arena));
    for (size_t i = 0; i < count; i++) cr_assert(!strstr(names[i], "safetensors"), "%s was left behind", names[i]);
    qz_arena_free(arena);
}

Test(writer, refuses_what_float16_cannot_hold)
{
    check_refused("large", spoil_head, NULL,
                  "lm_head.weight holds 70000 at index 70, beyond float16's 65504: set export.dtype to \"bfloat16\"");
}

Test(writer, refuses_what_is_not_finite_in_any_type)
{
    static const char *const bf16[] = {"export.dtype=bfloat16", NULL};
    check_refused("nan", spoil_embedding, NULL, "model.embed_tokens.weight holds NaN at index 5");
    check_refused("nan-bf16", spoil_embedding, bf16, "model.embed_tokens.weight holds NaN at index 5");
}

Test(writer, stores_large_values_as_bfloat16)
{
    const char *model = case_folder("large16"), *out = case_folder("large16-out");
    case_copy_llama(model, spoil_head, NULL);
    writing w = {.c = case_open_folder(model, (const char *[]){"export.dtype=bfloat16", NULL}, NULL)};
    begin(&w, model, out);
    check_ok(put_linears(&w));
    check_ok(qz_writer_finish(w.writer, w.scratch));
    end(&w);
}

/* ---- the comparison with memory ---- */

/* Flips a bit of the last byte of `tensor` in the file that is not finished yet. */
static void flip(const char *path, const char *tensor)
{
    qz_safetensors *st;
    check_ok(qz_safetensors_open(&st, path));
    const qz_stored *t = qz_safetensors_find(st, tensor);
    cr_assert(t, "%s", tensor);
    off_t at = (off_t)(t->offset + t->bytes - 1);
    qz_safetensors_close(st);
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 1;
    cr_assert(pwrite(fd, &byte, 1, at) == 1);
    cr_assert(close(fd) == 0);
}

static void check_flip_is_seen(const char *tensor, const char *part, int number)
{
    char name[32];
    snprintf(name, sizeof name, "flip%d", number);
    const char *out = case_folder(name);
    writing w = {.c = case_open("qwen2", (const char *[]){"weights.skip=[\"lm_head\", \"down_proj\"]", NULL})};
    begin(&w, "qwen2", out);
    check_ok(put_linears(&w));
    flip(qz_path_join(w.scratch, out, "model.safetensors.tmp"), tensor);
    check_fails(QZ_FORMAT, part, qz_writer_finish(w.writer, w.scratch));
    cr_assert(strstr(qz_error_message(), "differ"), "%s", qz_error_message());
    end(&w);
}

Test(writer, sees_every_byte_that_changed_on_the_way)
{
    check_flip_is_seen("model.layers.1.mlp.up_proj.qweight", "model.layers.1.mlp.up_proj", 0);
    check_flip_is_seen("model.layers.0.self_attn.o_proj.qzeros", "model.layers.0.self_attn.o_proj", 1);
    check_flip_is_seen("model.layers.0.mlp.gate_proj.scales", "model.layers.0.mlp.gate_proj", 2);
    check_flip_is_seen("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight", 3);
    check_flip_is_seen("model.layers.1.self_attn.v_proj.bias", "model.layers.1.self_attn.v_proj.bias", 4);
}

Test(writer, refuses_to_finish_without_all_linears)
{
    const char *out = case_folder("incomplete");
    writing w = {.c = case_open("llama", NULL)};
    begin(&w, "llama", out);
    check_fails(QZ_ARG, "was declared but not written", qz_writer_finish(w.writer, w.scratch));
    end(&w);
    cr_assert(!qz_path_exists(test_path("incomplete/model.safetensors")));
}

Test(writer, says_where_it_cannot_write)
{
    writing w = {.c = case_open("llama", NULL)};
    case_plan(&w.c);
    w.output = case_output(&w.c, test_path("absent"));
    check_fails(QZ_IO, "absent", qz_writer_new(&w.writer, w.c.model, &w.output, false, NULL));
    cr_assert_null(w.writer);
    qz_writer_free(NULL);
    case_close(&w.c);
}
