/* containers/<container>_*.safetensors: words, codes and values against what other programs wrote. Sizes come from the
 * shapes, options from configs.json; files of containers that are not written are listed as skipped.
 * samples/: whole folders with the sum and the first values of every decoded tensor. */
#include <math.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"
#include "testing/tolerances.h"

static qz_arena *arena;

static void start(void)
{
    check_ok(qz_arena_new(&arena, "golden"));
}

static void stop(void)
{
    qz_arena_free(arena);
}

TestSuite(golden, .init = start, .fini = stop);

static qz_json *read_json(const char *path)
{
    char *text;
    size_t size;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, path, 1 << 24, arena));
    check_ok(qz_json_parse(&doc, text, size));
    return doc;
}

/* The same value again; numbers of these configs are integers. */
static void put_value(qz_json_writer *w, const char *key, const qz_json_node *v)
{
    char text[400];
    switch (qz_json_type_of(v)) {
    case QZ_JSON_STRING:
        qz_json_put_string(w, key, qz_json_text(v));
        return;
    case QZ_JSON_ARRAY:
        qz_json_begin_array(w, key);
        break;
    case QZ_JSON_OBJECT:
        qz_json_begin_object(w, key);
        break;
    default:
        qz_json_print(v, text, sizeof text);
        qz_json_put_raw(w, key, text);
        return;
    }
    for (const qz_json_node *m = qz_json_first(v); m; m = qz_json_next(m)) put_value(w, qz_json_key(m), m);
    qz_json_end(w);
}

/* {"quantization_config": the block}. */
static const char *config_with(const qz_json_node *block)
{
    const char *text;
    size_t size;
    qz_json_writer *w;
    check_ok(qz_json_writer_new(&w, false));
    qz_json_begin_object(w, NULL);
    put_value(w, "quantization_config", block);
    qz_json_end(w);
    check_ok(qz_json_writer_finish(w, &text, &size));
    text = qz_arena_strdup(arena, text);
    qz_json_writer_free(w);
    return text;
}

/* The writable container that recognises this block, or NULL. */
static const qz_container *container_of(const qz_json_node *block)
{
    const char *text = config_with(block);
    const qz_container *found = NULL;
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    for (size_t i = 0; i < qz_containers()->count && !found; i++)
        if (qz_container_at(i)->can_express && qz_container_at(i)->recognise(qz_json_root(doc)))
            found = qz_container_at(i);
    qz_json_close(doc);
    return found;
}

/* A folder with the fixture as its weights and its block of configs.json. */
static const char *as_folder(const char *path, const char *name, const qz_json_node *block)
{
    const char *folder = qz_arena_strdup(arena, fixture_folder(name));
    fixture_text(folder, "config.json", config_with(block));
    check_ok(qz_file_copy(fixture_in(folder, "model.safetensors"), path));
    return folder;
}

/* bitsandbytes' quant_state is JSON text, which may end in spaces. */
static uint64_t bytes_of(const qz_stored *t, const char *suffix)
{
    uint64_t n = t->bytes;
    const char *text = t->view.data;
    while (strstr(suffix, "quant_state") && n > 0 && text[n - 1] == ' ') n--;
    return n;
}

static void same_bytes(const qz_ckpt *a, const qz_ckpt *b, const char *suffix, const char *file)
{
    const qz_stored *x = qz_ckpt_find_part(a, "linear", suffix), *y = qz_ckpt_find_part(b, "linear", suffix);
    cr_assert((x != NULL) == (y != NULL), "%s: linear.%s", file, suffix);
    if (!x) return;
    uint64_t n = bytes_of(x, suffix);
    cr_assert(x->view.dtype == y->view.dtype && n == bytes_of(y, suffix), "%s: linear.%s", file, suffix);
    cr_assert(memcmp(x->view.data, y->view.data, n) == 0, "%s: the bytes of linear.%s differ", file, suffix);
}

/* The type that a bitsandbytes weight says it had. */
static qz_dtype plain_type_of(const qz_ckpt *c)
{
    static const char *const name[] = {"float16", "bfloat16", "float32"};
    static const qz_dtype type[] = {QZ_F16, QZ_BF16, QZ_F32};
    for (const char *const *s = qz_ckpt_container(c)->suffixes; *s; s++) {
        const qz_stored *t = strstr(*s, "quant_state") ? qz_ckpt_find_part(c, "linear", *s) : NULL;
        const char *text = t ? qz_arena_printf(arena, "%.*s", (int)t->bytes, (const char *)t->view.data) : "";
        for (int i = 0; i < 3; i++)
            if (strstr(text, qz_arena_printf(arena, "\"%s\"", name[i]))) return type[i];
    }
    return QZ_F16;
}

static qz_ckpt *rewritten(const qz_ckpt *source, const qz_qtensor *q, const char *name)
{
    const qz_container *container = qz_ckpt_container(source);
    qz_export_linear l = {.module = "linear",
                          .n = q->rows,
                          .k = q->cols,
                          .quantized = true,
                          .scheme = q->scheme,
                          .fused = -1,
                          .ordered = q->permutation != NULL};
    qz_act_values act;
    check_ok(qz_ckpt_read_activation(source, "linear", &l.activation, &act));
    l.plain_type = plain_type_of(source);
    qz_export_plan plan = {.linear = &l, .linears = 1, .plain_type = l.plain_type};
    char folder_name[200];
    snprintf(folder_name, sizeof folder_name, "%s.again", name);
    const char *folder = qz_arena_strdup(arena, fixture_folder(folder_name));
    qz_shards *s;
    check_ok(container->can_express(&plan));
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(container->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_ok(container->write_linear(s, &l, q, &act, arena));
    check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    char *block;
    check_ok(container->config_block(&block, &plan, arena));
    fixture_text(folder, "config.json", qz_arena_printf(arena, "{\"quantization_config\": %s}", block));
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    return c;
}

static void close_to(const float *ours, const float *theirs, int64_t count, const char *what)
{
    for (int64_t i = 0; i < count; i++)
        cr_assert(fabs((double)ours[i] - theirs[i]) <= TOL_ONE_PRODUCT * fabs((double)theirs[i]),
                  "%s: value %lld is %.9g, expected %.9g", what, (long long)i, (double)ours[i], (double)theirs[i]);
}

/* Unsigned as they are, or signed. */
static void check_codes(const qz_ckpt *c, const qz_qtensor *q, const char *file)
{
    const qz_stored *t = qz_ckpt_find(c, "codes");
    if (!t) return; /* an fp8 weight is its own code */
    const int middle = 1 << (qz_format_of(q->scheme.format)->bits - 1), offset = t->view.dtype == QZ_I8 ? middle : 0;
    const uint8_t *theirs = t->view.data;
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        cr_assert(q->codes[i] == (uint8_t)(theirs[i] + offset), "%s: code %lld differs", file, (long long)i);
}

static const char *layout_of(const qz_ckpt *c)
{
    const qz_json_node *block = qz_json_get(qz_json_root(qz_ckpt_config(c)), "quantization_config");
    const qz_json_node *layout = qz_json_get(block, "checkpoint_format");
    return layout ? qz_json_text(layout) : "";
}

static void check_again(qz_ckpt *c, const qz_qtensor *q, const char *name, const char *file)
{
    qz_ckpt *again = rewritten(c, q, name);
    qz_qtensor back;
    check_ok(qz_ckpt_read_qtensor(again, "linear", q->rows, q->cols, &back, arena));
    check_ok(qz_qtensor_compare(q, &back));
    /* A layout that is only read comes back as another one, with the same numbers in other bytes. */
    bool same_layout = strcmp(layout_of(c), layout_of(again)) == 0;
    for (const char *const *s = qz_ckpt_container(c)->suffixes; *s && same_layout; s++) same_bytes(c, again, *s, file);
    qz_ckpt_close(again);
}

static void check_file(const char *path, const char *file, const char *name, const qz_json_node *block)
{
    qz_ckpt *c;
    const char *folder = as_folder(path, name, block);
    qz_status status = qz_ckpt_open(&c, folder);
    if (status == QZ_UNSUPPORTED) {
        printf("skipped: containers/%s (%s)\n", file, qz_error_message());
        return;
    }
    check_ok(status);
    const qz_stored *values = qz_ckpt_find(c, "dequant");
    cr_assert(values, "%s", file);
    int64_t n = values->view.shape[0], k = values->view.shape[1];
    qz_qtensor q;
    check_ok(qz_ckpt_read_qtensor(c, "linear", n, k, &q, arena));
    check_codes(c, &q, file);
    float *ours = qz_arena_array(arena, float, (size_t)(n * k)),
          *theirs = qz_arena_array(arena, float, (size_t)(n * k));
    check_ok(qz_ckpt_read_weight(c, "linear", n, k, ours, arena));
    check_ok(qz_ckpt_read_plain(c, "dequant", 2, (int64_t[]){n, k}, theirs));
    close_to(ours, theirs, n * k, file);
    check_again(c, &q, name, file);
    qz_ckpt_close(c);
}

Test(golden, containers)
{
    char **file;
    size_t count, checked = 0;
    const char *folder = qz_arena_strdup(arena, golden_path("containers"));
    check_ok(qz_folder_list(&file, &count, folder, arena));
    qz_json *configs = read_json(qz_path_join(arena, folder, "configs.json"));
    for (size_t i = 0; i < count; i++) {
        const char *end = strstr(file[i], ".safetensors");
        char name[200];
        if (!end) continue;
        snprintf(name, sizeof name, "%.*s", (int)(end - file[i]), file[i]);
        const qz_json_node *block = qz_json_get(qz_json_root(configs), name);
        if (!block || !container_of(block)) {
            printf("skipped: containers/%s (not of a container that is written)\n", file[i]);
            continue;
        }
        check_file(qz_path_join(arena, folder, file[i]), file[i], name, block);
        checked++;
    }
    qz_json_close(configs);
    cr_assert(checked > 0, "%s holds nothing to compare", folder);
}

/* ---- samples ---- */

static float *read_any(const qz_ckpt *c, const char *name, int ndim, const int64_t *shape, int64_t count)
{
    float *out = qz_arena_array(arena, float, (size_t)count);
    char *module = qz_arena_strdup(arena, name);
    module[strlen(name) - strlen(".weight")] = '\0';
    if (ndim == 2)
        check_ok(qz_ckpt_read_weight(c, module, shape[0], shape[1], out, arena));
    else
        check_ok(qz_ckpt_read_plain(c, name, ndim, shape, out));
    return out;
}

static void check_tensor(const qz_ckpt *c, const qz_json_node *t)
{
    const char *name = qz_json_key(t);
    int64_t shape[4], count = 1;
    int ndim = 0;
    for (const qz_json_node *d = qz_json_first(qz_json_get(t, "shape")); d; d = qz_json_next(d)) {
        shape[ndim] = (int64_t)qz_json_double(d);
        count *= shape[ndim++];
    }
    const float *x = read_any(c, name, ndim, shape, count);
    double sum = 0, size = 0, theirs = qz_json_double(qz_json_get(t, "sum"));
    for (int64_t i = 0; i < count; i++) {
        sum += x[i];
        size += fabs((double)x[i]);
    }
    cr_assert(fabs(sum - theirs) <= TOL_SUM_F32 * size, "%s: sum %.12g, expected %.12g", name, sum, theirs);
    int i = 0;
    for (const qz_json_node *v = qz_json_first(qz_json_get(t, "first")); v; v = qz_json_next(v)) {
        float first = (float)qz_json_double(v);
        close_to(&x[i++], &first, 1, name);
    }
    cr_assert(i > 0);
}

static size_t check_sample(const char *folder, const qz_json_node *expected)
{
    qz_ckpt *c;
    qz_status status = qz_path_is_folder(folder) ? qz_ckpt_open(&c, folder) : QZ_UNSUPPORTED;
    if (status == QZ_UNSUPPORTED) {
        printf("skipped: %s (%s)\n", folder, qz_path_is_folder(folder) ? qz_error_message() : "not there");
        return 0;
    }
    check_ok(status);
    size_t n = 0;
    for (const qz_json_node *t = qz_json_first(expected); t; t = qz_json_next(t), n++) check_tensor(c, t);
    cr_assert(n > 0, "%s", folder);
    qz_ckpt_close(c);
    return n;
}

Test(golden, samples)
{
    const char *folder = qz_arena_strdup(arena, golden_path("samples"));
    if (!qz_path_is_folder(folder)) {
        printf("skipped: %s (not there)\n", folder);
        return;
    }
    qz_json *expected = read_json(qz_path_join(arena, folder, "expected.json"));
    size_t checked = 0;
    for (const qz_json_node *s = qz_json_first(qz_json_root(expected)); s; s = qz_json_next(s))
        checked += check_sample(qz_path_join(arena, folder, qz_json_key(s)), s);
    qz_json_close(expected);
    cr_assert(checked > 0, "%s holds nothing to compare", folder);
}
