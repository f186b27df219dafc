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

/* {"quantization_config": the block without its lists}. */
static const char *config_with(const qz_json_node *block)
{
    const char *text = "{\"quantization_config\": {";
    for (const qz_json_node *m = qz_json_first(block); m; m = qz_json_next(m)) {
        char value[200];
        if (qz_json_is(m, QZ_JSON_ARRAY) || qz_json_is(m, QZ_JSON_OBJECT)) continue;
        qz_json_print(m, value, sizeof value);
        text = qz_arena_printf(arena, "%s%s\"%s\": %s", text, m == qz_json_first(block) ? "" : ", ", qz_json_key(m),
                               value);
    }
    return qz_arena_printf(arena, "%s}}", text);
}

/* A folder with the fixture as its weights and its block of configs.json. */
static const char *as_folder(const char *path, const char *name, const qz_json_node *configs)
{
    cr_assert(qz_json_get(configs, name) != NULL, "configs.json has no \"%s\"", name);
    const char *folder = fixture_folder(name);
    fixture_text(folder, "config.json", config_with(qz_json_get(configs, name)));
    check_ok(qz_file_copy(fixture_in(folder, "model.safetensors"), path));
    return folder;
}

static void same_bytes(const qz_ckpt *a, const qz_ckpt *b, const char *suffix, const char *file)
{
    const qz_stored *x = qz_ckpt_find_part(a, "linear", suffix), *y = qz_ckpt_find_part(b, "linear", suffix);
    cr_assert((x != NULL) == (y != NULL), "%s: linear.%s", file, suffix);
    if (!x) return;
    cr_assert(x->view.dtype == y->view.dtype && x->bytes == y->bytes, "%s: linear.%s", file, suffix);
    cr_assert(memcmp(x->view.data, y->view.data, x->bytes) == 0, "%s: the bytes of linear.%s differ", file, suffix);
}

static qz_ckpt *rewritten(const qz_ckpt *source, const qz_qtensor *q, const char *name)
{
    const qz_container *container = qz_ckpt_container(source);
    qz_export_linear l = {
        .module = "linear", .n = q->rows, .k = q->cols, .quantized = true, .scheme = q->scheme, .fused = -1};
    qz_export_plan plan = {.linear = &l, .linears = 1, .plain_type = QZ_F16};
    char folder_name[200];
    snprintf(folder_name, sizeof folder_name, "%s.again", name);
    const char *folder = fixture_folder(folder_name);
    qz_shards *s;
    check_ok(container->can_express(&plan));
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(container->declare_linear(s, &l));
    check_ok(qz_shards_begin(s));
    check_ok(container->write_linear(s, &l, q, NULL, arena));
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

static void check_file(const char *path, const char *file, const qz_json_node *configs)
{
    char name[200];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - strlen(".safetensors")), file);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, as_folder(path, name, configs)));
    const qz_stored *codes = qz_ckpt_find(c, "codes"), *values = qz_ckpt_find(c, "dequant");
    cr_assert(codes && values, "%s", file);
    int64_t n = codes->view.shape[0], k = codes->view.shape[1];
    qz_qtensor q;
    check_ok(qz_ckpt_read_qtensor(c, "linear", n, k, &q, arena));
    cr_assert(memcmp(q.codes, codes->view.data, codes->bytes) == 0, "%s: codes differ", file);
    float *ours = qz_arena_array(arena, float, (size_t)(n * k)),
          *theirs = qz_arena_array(arena, float, (size_t)(n * k));
    check_ok(qz_ckpt_read_weight(c, "linear", n, k, ours, arena));
    check_ok(qz_ckpt_read_plain(c, "dequant", 2, (int64_t[]){n, k}, theirs));
    close_to(ours, theirs, n * k, file);
    qz_ckpt *again = rewritten(c, &q, name);
    qz_qtensor back;
    check_ok(qz_ckpt_read_qtensor(again, "linear", n, k, &back, arena));
    check_ok(qz_qtensor_compare(&q, &back));
    for (const char *const *s = qz_ckpt_container(c)->suffixes; *s; s++) same_bytes(c, again, *s, file);
    qz_ckpt_close(again);
    qz_ckpt_close(c);
}

/* The writable container whose name begins the file's, or NULL. */
static const qz_container *container_of(const char *file)
{
    for (size_t i = 0; i < qz_containers()->count; i++) {
        const qz_container *c = qz_container_at(i);
        size_t n = strlen(c->plugin.name);
        if (c->can_express && strncmp(file, c->plugin.name, n) == 0 && file[n] == '_') return c;
    }
    return NULL;
}

Test(golden, containers)
{
    char **file;
    size_t count, checked = 0;
    const char *folder = golden_path("containers");
    check_ok(qz_folder_list(&file, &count, folder, arena));
    qz_json *configs = read_json(qz_path_join(arena, folder, "configs.json"));
    for (size_t i = 0; i < count; i++) {
        if (!container_of(file[i])) {
            if (strcmp(file[i], "configs.json") != 0)
                printf("skipped: containers/%s (not a container that is written)\n", file[i]);
            continue;
        }
        check_file(qz_path_join(arena, folder, file[i]), file[i], qz_json_root(configs));
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
    check_ok(qz_ckpt_open(&c, folder));
    size_t n = 0;
    for (const qz_json_node *t = qz_json_first(expected); t; t = qz_json_next(t), n++) check_tensor(c, t);
    cr_assert(n > 0, "%s", folder);
    qz_ckpt_close(c);
    return n;
}

Test(golden, samples)
{
    const char *folder = golden_path("samples");
    if (!qz_path_is_folder(folder)) {
        printf("skipped: %s (not there)\n", folder);
        return;
    }
    qz_json *expected = read_json(qz_path_join(arena, folder, "expected.json"));
    size_t checked = 0;
    for (const qz_json_node *s = qz_json_first(qz_json_root(expected)); s; s = qz_json_next(s))
        if (container_of(qz_json_key(s)))
            checked += check_sample(qz_path_join(arena, folder, qz_json_key(s)), s);
        else
            printf("skipped: samples/%s (not a container that is written)\n", qz_json_key(s));
    qz_json_close(expected);
    cr_assert(checked > 0, "%s holds nothing to compare", folder);
}
