/* The rows. A new key is a member of qz_recipe and a row here. Rows follow the object that holds them. */
#include "recipes/recipe_fields.h"

#include <string.h>

static const qz_field_name formats[] = {
#define QZ_FORMAT(id, name, kind, bits, exponent, mantissa, largest, spec)                                             \
    {name, QZ_FORMAT_##id, QZ_KIND_##kind == QZ_KIND_PLAIN},
#include "numeric/formats.def"
#undef QZ_FORMAT
    {NULL, 0, false},
};

static const qz_field_name activation_types[] = {{"f32", QZ_F32, false}, {"bf16", QZ_BF16, false}, {NULL, 0, false}};

static const qz_field_name export_types[] = {
    {"auto", QZ_DTYPE_COUNT, false}, {"float16", QZ_F16, false}, {"bfloat16", QZ_BF16, false}, {NULL, 0, false}};

#define MILLION 1e6
#define LARGEST 9007199254740991.0 /* 2^53 - 1: JSON numbers are doubles */
#define PLACE(member) offsetof(qz_recipe, member)
#define FROM(list) offsetof(qz_recipe_catalog, list)

/* clang-format off */
#define OBJECT(path, required, place, help) {path, QZ_FIELD_OBJECT, required, place, NULL, 0, 0, NULL, 0, help}
#define TEXT(path, required, member, fallback, help) \
    {path, QZ_FIELD_TEXT, required, PLACE(member), fallback, 0, 0, NULL, 0, help}
#define INT(path, member, fallback, low, high, help) \
    {path, QZ_FIELD_INT, false, PLACE(member), fallback, low, high, NULL, 0, help}
#define NUMBER(path, member, fallback, low, high, help) \
    {path, QZ_FIELD_NUMBER, false, PLACE(member), fallback, low, high, NULL, 0, help}
#define BOOL(path, member, fallback, help) {path, QZ_FIELD_BOOL, false, PLACE(member), fallback, 0, 0, NULL, 0, help}
#define NAME(path, required, member, fallback, names, help) \
    {path, QZ_FIELD_NAME, required, PLACE(member), fallback, 0, 0, names, 0, help}
#define PLUGIN(path, required, member, list, help) \
    {path, QZ_FIELD_PLUGIN, required, PLACE(member), NULL, 0, 0, NULL, FROM(list), help}
#define PATTERNS(path, member, fallback, help) \
    {path, QZ_FIELD_PATTERNS, false, PLACE(member), fallback, 0, QZ_RECIPE_PATTERNS, NULL, 0, help}

const qz_field qz_recipe_fields[] = {
    {"version", QZ_FIELD_VERSION, true, PLACE(version), NULL, 1, QZ_RECIPE_VERSION, NULL, 0,
     "version of the recipe's form"},
    TEXT("model", true, model, NULL,
         "folder of the model as Hugging Face stores it; paths are relative to the working directory"),
    TEXT("output", true, output, NULL, "folder to write; it must not exist yet, or be empty"),
    {"backend", QZ_FIELD_BACKEND, false, PLACE(backend), "\"auto\"", 0, 0, NULL, FROM(backends),
     "where to compute; \"auto\" takes the fastest that this machine has"},

    OBJECT("calibration", false, QZ_NO_PLACE, "the text that statistics are collected from"),
    TEXT("calibration.data", false, calibration.data, NULL,
         ".txt (one document), .jsonl (one document a line) or .h5 (token ids); needed by methods that use statistics"),
    TEXT("calibration.field", false, calibration.field, "\"text\"", "member of a .jsonl line that holds the text"),
    INT("calibration.samples", calibration.samples, "128", 0, MILLION, "windows of text"),
    INT("calibration.sequence_length", calibration.sequence_length, "512", 2, MILLION, "tokens in each window"),
    INT("calibration.seed", calibration.seed, "0", 0, LARGEST, "of everything that is drawn at random"),
    BOOL("calibration.shuffle", calibration.shuffle, "false",
         "draw the windows from the whole text instead of taking the first ones"),
    NAME("calibration.activations", false, calibration.activations, "\"f32\"", activation_types,
         "type in which activations wait between layers; bf16 halves their memory"),

    {"transforms", QZ_FIELD_PLUGINS, false, PLACE(transform), "[]", 0, QZ_RECIPE_TRANSFORMS, NULL, FROM(transforms),
     "what is folded into the weights before they are quantized, in this order"},

    OBJECT("weights", true, QZ_NO_PLACE, "the numbers that weights become"),
    NAME("weights.format", true, weights.format, NULL, formats, "number format of a code"),
    {"weights.group", QZ_FIELD_GROUP, false, PLACE(weights.group), "\"channel\"", 1, MILLION, NULL, 0,
     "inputs that share a scale, a divisor of every quantized layer's inputs; \"channel\": one scale a row"},
    BOOL("weights.symmetric", weights.symmetric, "false", "integer formats: no zero points"),
    PLUGIN("weights.range", false, weights.range, ranges, "how scale and zero of each group are chosen"),
    PLUGIN("weights.solver", false, weights.solver, solvers, "how the codes are chosen"),
    PATTERNS("weights.skip", weights.skip, "[\"lm_head\"]",
             "linears that stay as they are: full name, last part of the name (\"lm_head\"), or either with *"),

    OBJECT("export", true, QZ_NO_PLACE, "the checkpoint that is written"),
    PLUGIN("export.container", true, output_as.container, containers, "layout on disk, chosen by who shall load it"),
    NAME("export.dtype", false, output_as.dtype, "\"auto\"", export_types,
         "type of what is not quantized; \"auto\": as the container prefers"),
    {"export.shard_size", QZ_FIELD_BYTES, false, PLACE(output_as.shard_bytes), "\"5GB\"", 1, LARGEST, NULL, 0,
     "most bytes of tensors in one file: a number, or one with KB, MB, GB, TB, KiB, MiB, GiB or TiB"},
    PATTERNS("export.pass_through", output_as.pass_through, "[]",
             "tensors that the model's family does not know and that are copied as they are"),

    OBJECT("evaluate", false, PLACE(evaluate.wanted), "perplexity before and after; leave it out for none"),
    TEXT("evaluate.data", true, evaluate.data, NULL, "text to score, as in calibration.data; use another one"),
    TEXT("evaluate.field", false, evaluate.field, "\"text\"", "member of a .jsonl line that holds the text"),
    INT("evaluate.windows", evaluate.windows, "0", 0, MILLION, "at most so many windows; 0: all of the text"),
    INT("evaluate.sequence_length", evaluate.sequence_length, "512", 2, MILLION, "tokens in each window"),
    OBJECT("evaluate.accept", false, QZ_NO_PLACE, "what the result must reach; otherwise the exit code is 3"),
    NUMBER("evaluate.accept.perplexity_ratio", evaluate.accept_perplexity_ratio, NULL, 0.5, 1000,
           "largest quantized perplexity divided by that of the original"),
};
/* clang-format on */

const size_t qz_recipe_field_count = sizeof qz_recipe_fields / sizeof qz_recipe_fields[0];

const char *qz_field_key(const qz_field *f)
{
    const char *dot = strrchr(f->path, '.');
    return dot ? dot + 1 : f->path;
}

bool qz_field_is_in(const qz_field *f, const char *parent)
{
    size_t length = strlen(parent);
    if (length == 0) return strchr(f->path, '.') == NULL;
    if (strncmp(f->path, parent, length) != 0 || f->path[length] != '.') return false;
    return strchr(f->path + length + 1, '.') == NULL;
}

const qz_plugins *qz_field_plugins(const qz_field *f, const qz_recipe_catalog *catalog)
{
    const qz_plugins *list;
    memcpy(&list, (const char *)catalog + f->plugins, sizeof list);
    return list;
}
