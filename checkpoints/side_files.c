/* The files beside the weights: config.json with two changes, and copies of the rest.
 *
 * config.json keeps the source's text byte for byte but for `quantization_config` and the stored type (`torch_dtype` in
 * transformers 4, `dtype` in 5; whichever the source uses).
 * Not copied, because they would contradict the new weights: weights in any form, their indexes, pickles and other
 * frameworks' files (.safetensors, .bin, .pt, .pth, .ckpt, .gguf, .onnx, .msgpack, .h5), and quantization configs
 * that stand alone. Not copied either: sub-folders (Meta's original/, runs/, .git), which no loader reads. */
#include <string.h>

#include "base/file.h"
#include "checkpoints/checkpoints.h"

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static bool is_left_out(const char *name)
{
    static const char *const suffix[] = {".safetensors",  ".safetensors.index.json",
                                         ".bin",          ".bin.index.json",
                                         ".pt",           ".pth",
                                         ".ckpt",         ".gguf",
                                         ".onnx",         ".msgpack",
                                         ".h5",           ".msgpack.index.json",
                                         ".h5.index.json"};
    static const char *const whole[] = {"config.json", "quantize_config.json", "quant_config.json",
                                        "hf_quant_config.json"};
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++)
        if (ends_with(name, suffix[i])) return true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (strcmp(name, whole[i]) == 0) return true;
    return false;
}

static qz_status copy_others(const char *folder, const char *source, qz_arena *arena)
{
    char **name;
    size_t count = 0;
    QZ_TRY(qz_folder_list(&name, &count, source, arena));
    for (size_t i = 0; i < count; i++) {
        char *from = qz_path_join(arena, source, name[i]), *to = qz_path_join(arena, folder, name[i]);
        if (!from || !to) return qz_arena_failed(arena);
        if (!is_left_out(name[i]) && !qz_path_is_folder(from)) QZ_TRY(qz_file_copy(to, from));
    }
    return QZ_OK;
}

static const char *type_name(qz_dtype t)
{
    return t == QZ_F16 ? "float16" : t == QZ_BF16 ? "bfloat16" : "float32";
}

/* Sets `key` where the source has another value; `always` also where it has none. */
static qz_status set_type(char **text, const qz_json_node *root, const char *key, bool always, qz_dtype t,
                          qz_arena *arena)
{
    const qz_json_node *now = qz_json_get(root, key);
    if (!now && !always) return QZ_OK;
    if (qz_json_is(now, QZ_JSON_STRING) && strcmp(qz_json_text(now), type_name(t)) == 0) return QZ_OK;
    char *value = qz_arena_printf(arena, "\"%s\"", type_name(t));
    if (!value) return qz_arena_failed(arena);
    return qz_json_text_set(text, *text, key, value, arena);
}

static qz_status config_text(char **out, const qz_ckpt *source, const qz_container *container,
                             const qz_export_plan *plan, qz_arena *arena)
{
    const qz_json_node *root = qz_json_root(qz_ckpt_config(source));
    char *block;
    QZ_TRY(container->config_block(&block, plan, arena));
    if (!(*out = qz_arena_strdup(arena, qz_ckpt_config_text(source)))) return qz_arena_failed(arena);
    QZ_TRY(set_type(out, root, "torch_dtype", !qz_json_get(root, "dtype"), plan->plain_type, arena));
    QZ_TRY(set_type(out, root, "dtype", false, plan->plain_type, arena));
    return qz_json_text_set(out, *out, "quantization_config", block, arena);
}

static qz_status write_all(const char *folder, const qz_ckpt *source, const qz_container *container,
                           const qz_export_plan *plan, qz_arena *arena)
{
    char *text, *path = qz_path_join(arena, folder, "config.json");
    if (!path) return qz_arena_failed(arena);
    QZ_TRY_CTX(config_text(&text, source, container, plan, arena), "%s", path);
    QZ_TRY(qz_file_write(path, text, strlen(text)));
    if (container->extra_files) QZ_TRY(container->extra_files(folder, plan, arena));
    return copy_others(folder, qz_ckpt_folder(source), arena);
}

qz_status qz_export_side_files(const char *folder, const qz_ckpt *source, const qz_container *container,
                               const qz_export_plan *plan)
{
    if (!container->config_block)
        return QZ_FAIL(QZ_UNSUPPORTED, "container \"%s\" cannot be written", container->plugin.name);
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "side files"));
    qz_status status = write_all(folder, source, container, plan, arena);
    qz_arena_free(arena);
    return status;
}
