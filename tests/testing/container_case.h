/* One linear "m" through a container: its plan, its folder, its config; and the suite of a container's tests. */
#ifndef QZ_CONTAINER_CASE_H
#define QZ_CONTAINER_CASE_H

#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

/* The tests of a suite find the container in `variable` and have an arena each. */
#define CONTAINER_SUITE(suite, variable, name)                                                                         \
    static const qz_container *variable;                                                                               \
    static qz_arena *arena;                                                                                            \
    static void start(void)                                                                                            \
    {                                                                                                                  \
        check_ok(qz_container_find(&(variable), name));                                                                \
        check_ok(qz_arena_new(&arena, "test"));                                                                        \
    }                                                                                                                  \
    static void stop(void)                                                                                             \
    {                                                                                                                  \
        qz_arena_free(arena);                                                                                          \
    }                                                                                                                  \
    TestSuite(suite, .init = start, .fini = stop);

static inline qz_export_linear case_linear(const char *module, int64_t n, int64_t k, qz_scheme scheme)
{
    return (qz_export_linear){
        .module = module, .n = n, .k = k, .quantized = true, .fused = -1, .scheme = scheme, .plain_type = QZ_BF16};
}

static inline qz_status case_express(const qz_container *c, const qz_export_linear *l, size_t count)
{
    return c->can_express(&(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_BF16});
}

static inline const char *case_block(const qz_container *c, const qz_export_linear *l, size_t count, qz_arena *arena)
{
    char *text;
    check_ok(c->config_block(&text, &(qz_export_plan){.linear = l, .linears = count, .plain_type = QZ_BF16}, arena));
    return text;
}

static inline void case_has(const char *text, const char *part)
{
    cr_assert(strstr(text, part) != NULL, "\"%s\" is not in %s", part, text);
}

/* Declares and writes the linear into a new folder; `status` is that of writing, and only a success is finished. */
static inline const char *case_write(qz_status *status, const char *name, const qz_container *c,
                                     const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                                     qz_arena *arena)
{
    const char *folder = qz_arena_strdup(arena, fixture_folder(name)), *block = case_block(c, l, 1, arena);
    qz_shards *s;
    check_ok(qz_shards_new(&s, folder, 0));
    check_ok(c->declare_linear(s, l));
    check_ok(qz_shards_begin(s));
    *status = c->write_linear(s, l, q, act, arena);
    if (*status == QZ_OK) check_ok(qz_shards_finish(s));
    qz_shards_free(s);
    fixture_text(folder, "config.json", block ? qz_arena_printf(arena, "{\"quantization_config\": %s}", block) : "{}");
    return folder;
}

static inline qz_ckpt *case_written(const char *name, const qz_container *c, const qz_export_linear *l,
                                    const qz_qtensor *q, const qz_act_values *act, qz_arena *arena)
{
    qz_status status;
    qz_ckpt *out;
    const char *folder = case_write(&status, name, c, l, q, act, arena);
    check_ok(status);
    check_ok(qz_ckpt_open(&out, folder));
    return out;
}

/* read_scheme of {"quantization_config": {"quant_method": the container's, fields}}. */
static inline qz_status case_scheme(const qz_container *c, const char *fields, qz_scheme *out)
{
    char text[400];
    snprintf(text, sizeof text, "{\"quantization_config\":{\"quant_method\":\"%s\"%s%s}}", c->plugin.name,
             *fields ? "," : "", fields);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    cr_assert(c->recognise(qz_json_root(doc)));
    qz_status status = c->read_scheme(out, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

#endif
