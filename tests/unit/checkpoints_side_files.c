/* config.json with two changes, and which files travel with the weights. */
#include "base/arena.h"
#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

static qz_arena *arena;
static const qz_container *awq;

static void start(void)
{
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_container_find(&awq, "awq"));
}

static void stop(void)
{
    qz_arena_free(arena);
}

TestSuite(side_files, .init = start, .fini = stop);

static qz_status export_to(const char *to, const char *from, qz_dtype plain)
{
    qz_export_linear l = {
        .module = "m",
        .n = 8,
        .k = 32,
        .quantized = true,
        .fused = -1,
        .scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_F16}};
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, from));
    qz_status status =
        qz_export_side_files(to, c, awq, &(qz_export_plan){.linear = &l, .linears = 1, .plain_type = plain});
    qz_ckpt_close(c);
    return status;
}

static const char *source(const char *config)
{
    const char *folder = fixture_folder("source");
    fixture_text(folder, "config.json", config);
    fixture_file(fixture_in(folder, "model.safetensors"), "{}", "", 0);
    return folder;
}

static char *text_of(const char *folder, const char *name)
{
    char *text;
    size_t size;
    check_ok(qz_file_read(&text, &size, fixture_in(folder, name), 1 << 20, arena));
    return text;
}

#define BLOCK                                                                                                          \
    "\"quantization_config\": {\n"                                                                                     \
    "    \"quant_method\": \"awq\",\n"                                                                                 \
    "    \"bits\": 4,\n"                                                                                               \
    "    \"group_size\": 32,\n"                                                                                        \
    "    \"zero_point\": true,\n"                                                                                      \
    "    \"version\": \"gemm\",\n"                                                                                     \
    "    \"modules_to_not_convert\": null\n"                                                                           \
    "  }"

Test(side_files, config_keeps_its_form)
{
    const char *to = fixture_folder("to");
    check_ok(
        export_to(to, source("{\n  \"a\":  [1,2],\n  \"torch_dtype\": \"bfloat16\",\n  \"z\": 1e-05\n}\n"), QZ_F16));
    cr_assert_str_eq(text_of(to, "config.json"),
                     "{\n  \"a\":  [1,2],\n  \"torch_dtype\": \"float16\",\n  \"z\": 1e-05,\n  " BLOCK "\n}\n");
}

Test(side_files, a_type_that_is_right_stays)
{
    const char *to = fixture_folder("to");
    check_ok(export_to(to, source("{\n  \"dtype\": \"bfloat16\"\n}\n"), QZ_BF16));
    cr_assert_str_eq(text_of(to, "config.json"), "{\n  \"dtype\": \"bfloat16\",\n  " BLOCK "\n}\n");
}

Test(side_files, the_key_of_transformers_5_and_both)
{
    const char *to = fixture_folder("to"), *from = source("{\n  \"dtype\": \"bfloat16\"\n}\n");
    check_ok(export_to(to, from, QZ_F16));
    cr_assert(strstr(text_of(to, "config.json"), "{\n  \"dtype\": \"float16\",\n") != NULL);
    cr_assert(strstr(text_of(to, "config.json"), "torch_dtype") == NULL);
    fixture_text(from, "config.json", "{\n  \"dtype\": \"bfloat16\",\n  \"torch_dtype\": \"float32\"\n}\n");
    check_ok(export_to(to, from, QZ_F16));
    cr_assert(strstr(text_of(to, "config.json"), "{\n  \"dtype\": \"float16\",\n  \"torch_dtype\": \"float16\",\n") !=
              NULL);
}

Test(side_files, a_type_that_is_absent_is_added)
{
    const char *to = fixture_folder("to");
    check_ok(export_to(to, source("{\n  \"a\": 1\n}\n"), QZ_F16));
    cr_assert(strstr(text_of(to, "config.json"), "\"torch_dtype\": \"float16\"") != NULL);
}

Test(side_files, everything_but_weights_is_copied)
{
    static const char *const copied[] = {
        "chat_template.jinja", "generation_config.json", "merges.txt", "tokenizer.json",
        "tokenizer.model",     "tokenizer_config.json",  "LICENSE"};
    static const char *const left[] = {"model-00001-of-00002.safetensors",
                                       "adapter.safetensors.index.json",
                                       "pytorch_model.bin",
                                       "pytorch_model.bin.index.json",
                                       "consolidated.00.pth",
                                       "model.gguf",
                                       "model.onnx",
                                       "flax_model.msgpack",
                                       "tf_model.h5",
                                       "quantize_config.json"};
    const char *to = fixture_folder("to"), *from = source("{}");
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) fixture_text(from, copied[i], copied[i]);
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) fixture_text(from, left[i], left[i]);
    check_ok(qz_folder_make(fixture_in(from, "original")));
    check_ok(export_to(to, from, QZ_F16));
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) cr_assert_str_eq(text_of(to, copied[i]), copied[i]);
    char **names;
    size_t count;
    check_ok(qz_folder_list(&names, &count, to, arena));
    cr_assert(count == sizeof copied / sizeof *copied + 1, "%zu files", count);
}

Test(side_files, containers_that_are_only_read)
{
    const qz_container *dense;
    qz_ckpt *c;
    check_ok(qz_container_find(&dense, "dense"));
    qz_container only_read = *dense;
    only_read.config_block = NULL;
    check_ok(qz_ckpt_open(&c, source("{}")));
    qz_export_plan plan = {.plain_type = QZ_F16};
    check_fails(QZ_UNSUPPORTED, "\"dense\" cannot be written",
                qz_export_side_files(test_folder(), c, &only_read, &plan));
    qz_ckpt_close(c);
}

Test(side_files, a_folder_that_is_not_there)
{
    check_fails(QZ_IO, "absent/config.json", export_to(test_path("absent"), source("{}"), QZ_F16));
}

/* A container may have files of its own. */
Test(side_files, gptq_has_a_copy_of_its_config)
{
    static const char config[] = "{\"torch_dtype\": \"float16\"}";
    const char *from = qz_arena_strdup(arena, source(config)), *to = qz_arena_strdup(arena, fixture_folder("to"));
    qz_export_linear l = {
        .module = "m",
        .n = 8,
        .k = 32,
        .quantized = true,
        .fused = -1,
        .scheme = {
            .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F16}};
    qz_export_plan plan = {.linear = &l, .linears = 1, .plain_type = QZ_F16};
    const qz_container *gptq;
    qz_ckpt *c;
    check_ok(qz_container_find(&gptq, "gptq"));
    check_ok(qz_ckpt_open(&c, from));
    check_ok(qz_export_side_files(to, c, gptq, &plan));
    qz_ckpt_close(c);
    const char *copy = text_of(to, "quantize_config.json");
    cr_assert(strstr(copy, "\"quant_method\": \"gptq\"") != NULL, "%s", copy);
}
