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

static const qz_field_name rounded_formats[] = {{"int8", QZ_FORMAT_INT8, false},
                                                {"fp8_e4m3", QZ_FORMAT_FP8_E4M3, false},
                                                {"fp8_e5m2", QZ_FORMAT_FP8_E5M2, false},
                                                {NULL, 0, false}};

static const qz_field_name groups[] = {{"channel", QZ_GROUP_CHANNEL, false},
                                       {"tensor", QZ_GROUP_TENSOR, false},
                                       {"block", QZ_GROUP_BLOCK, false},
                                       {NULL, 0, false}};

/* Dynamic scales of groups are the same word in a recipe: "group" tells them apart. */
static const qz_field_name modes[] = {{"dynamic", QZ_ACT_TOKEN, false},
                                      {"static", QZ_ACT_TENSOR, false},
                                      {"dynamic", QZ_ACT_GROUP, true},
                                      {NULL, 0, false}};

static const qz_field_name failures[] = {{"stop", false, false}, {"rtn", true, false}, {NULL, 0, false}};

static const qz_field_name granularities[] = {{"tensor", false, false}, {"head", true, false}, {NULL, 0, false}};

static const qz_field_name propagations[] = {{"auto", QZ_PROPAGATE_AUTO, false},
                                             {"quantized", QZ_PROPAGATE_QUANTIZED, false},
                                             {"original", QZ_PROPAGATE_ORIGINAL, false},
                                             {NULL, 0, false}};

static const qz_field_name statistics_types[] = {{"f32", QZ_F32, false}, {"f16", QZ_F16, false}, {NULL, 0, false}};

static const qz_field_name activation_types[] = {{"f32", QZ_F32, false}, {"bf16", QZ_BF16, false}, {NULL, 0, false}};

static const qz_field_name export_types[] = {
    {"auto", QZ_DTYPE_COUNT, false}, {"float16", QZ_F16, false}, {"bfloat16", QZ_BF16, false}, {NULL, 0, false}};

#define MILLION 1e6
#define LARGEST 9007199254740991.0 /* 2^53 - 1: JSON numbers are doubles */
#define PLACE(member) offsetof(qz_recipe, member)
#define ENTRY(member) offsetof(qz_recipe_exception, member)
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
#define FLAG(path, member, fallback, names, help) \
    {path, QZ_FIELD_FLAG, false, PLACE(member), fallback, 0, 0, names, 0, help}
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
    NAME("calibration.propagate", false, calibration.propagate, "\"auto\"", propagations,
         "what a layer's statistics come from: layers before it as they are \"quantized\", or the \"original\" model; "
         "\"auto\": quantized for one scheme, original for several"),
    INT("calibration.expert_tokens", calibration.expert_tokens, "256", 0, MILLION,
        "an expert that is sent fewer tokens is calibrated on all tokens of its layer"),
    INT("calibration.seed", calibration.seed, "0", 0, LARGEST, "of everything that is drawn at random"),
    BOOL("calibration.shuffle", calibration.shuffle, "false",
         "draw the windows from the whole text instead of taking the first ones"),
    NAME("calibration.activations", false, calibration.activations, "\"f32\"", activation_types,
         "type in which activations wait between layers; bf16 halves their memory"),

    OBJECT("statistics", false, QZ_NO_PLACE, "the file that `qcal calibrate` writes"),
    NAME("statistics.type", false, statistics.type, "\"f32\"", statistics_types,
         "type of the Gram matrices in the file; f16 halves it"),
    PATTERNS("statistics.layers", statistics.layers, "[]",
             "decoder layers to keep, by name (\"model.layers.3\") or with *; none given: all"),

    {"transforms", QZ_FIELD_PLUGINS, false, PLACE(transform), "[]", 0, QZ_RECIPE_TRANSFORMS, NULL, FROM(transforms),
     "what is folded into the weights before they are quantized, in this order"},

    OBJECT("weights", true, QZ_NO_PLACE, "the numbers that weights become"),
    NAME("weights.format", true, weights.format, NULL, formats, "number format of a code"),
    {"weights.group", QZ_FIELD_GROUP, false, PLACE(weights.group), "\"channel\"", 1, MILLION, groups, 0,
     "inputs that share a scale, a divisor of every quantized layer's inputs; \"channel\": one scale a row; "
     "\"tensor\": one for all; \"block\": one for 128 x 128 weights (fp8); nf4 and fp4: 64 when not given"},
    BOOL("weights.symmetric", weights.symmetric, "false", "integer formats: no zero points"),
    BOOL("weights.double_quant", weights.double_quant, "false",
         "nf4 and fp4: scales are quantized to 8 bits themselves"),
    PLUGIN("weights.range", false, weights.range, ranges, "how scale and zero of each group are chosen"),
    PLUGIN("weights.solver", false, weights.solver, solvers, "how the codes are chosen"),
    FLAG("weights.on_failure", weights.fall_back, "\"stop\"", failures,
         "when the solver fails on a matrix: stop the run, or round that matrix to nearest and list it in the report"),
    PATTERNS("weights.skip", weights.skip, "[\"lm_head\"]",
             "linears that stay as they are: full name, last part of the name (\"lm_head\"), or either with *"),

    {"activations", QZ_FIELD_PART, false, PLACE(activations.mode), NULL, 0, 0, NULL, 0,
     "how inputs of quantized linears are rounded when they are served; leave it out for not at all"},
    NAME("activations.format", true, activations.format, NULL, rounded_formats, "number format of a code"),
    NAME("activations.mode", false, activations.mode, "\"dynamic\"", modes,
         "\"dynamic\": each token has its own scale when it is served; \"static\": one scale from calibration"),
    {"activations.group", QZ_FIELD_INT, false, PLACE(activations.group), NULL, 1, MILLION, NULL, 0,
     "dynamic: so many channels of a token share a scale; leave it out for one scale a token"},
    BOOL("activations.symmetric", activations.symmetric, "true", "int8: no zero point"),
    {"activations.observer", QZ_FIELD_OBSERVER, false, PLACE(activations.observer), "\"auto\"", 0, 0, NULL,
     FROM(observers),
     "static: how the scale is chosen; \"auto\" tries every observer and keeps the best output of each linear"},

    OBJECT("kv_cache", false, PLACE(kv_cache.scheme.wanted),
           "how keys (after rope) and values are rounded in the cache; leave it out for not at all"),
    NAME("kv_cache.format", true, kv_cache.scheme.format, NULL, rounded_formats, "number format of a code"),
    FLAG("kv_cache.granularity", kv_cache.scheme.per_head, "\"tensor\"", granularities,
         "one scale for the keys and one for the values of a layer, or one for each head"),
    PLUGIN("kv_cache.observer", false, kv_cache.observer, observers, "how the scales are chosen"),

    {"overrides", QZ_FIELD_EXCEPTIONS, false, PLACE(override), "[]", 0, QZ_RECIPE_OVERRIDES, NULL, 0,
     "linears that are treated in another way; where several match, the last one holds"},
    {"overrides.match", QZ_FIELD_PATTERNS, true, ENTRY(match), NULL, 1, QZ_RECIPE_PATTERNS, NULL, 0,
     "linears that the entry is about, named as in weights.skip"},
    {"overrides.skip", QZ_FIELD_BOOL, false, ENTRY(skip), NULL, 0, 0, NULL, 0,
     "true: they stay as they are; false: they are quantized even where weights.skip names them"},
    {"overrides.weights", QZ_FIELD_CHANGES, false, PLACE(weights), NULL, 0, 0, NULL, 0,
     "members that replace those of weights"},
    {"overrides.activations", QZ_FIELD_CHANGES, false, PLACE(activations), NULL, 0, 0, NULL, 0,
     "members that replace those of activations; null: not rounded"},

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
    NUMBER("evaluate.accept.kl", evaluate.accept_kl, NULL, 1e-9, 100,
           "largest mean Kullback-Leibler divergence from the original, in nats a token"),
    NUMBER("evaluate.accept.top1_agreement", evaluate.accept_top1, NULL, 1e-3, 1,
           "smallest share of tokens for which both predict the same"),
    NUMBER("evaluate.accept.layer_error", evaluate.accept_layer_error, NULL, 1e-9, 1000,
           "largest relative output error of any linear on the calibration text"),

    {"outputs", QZ_FIELD_OUTPUTS, false, QZ_NO_PLACE, NULL, 1, QZ_RECIPE_OUTPUTS, NULL, 0,
     "several checkpoints from one calibration: members that replace those of the recipe, one entry a checkpoint"},
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

const qz_field *qz_field_at(const char *path)
{
    size_t i = 0;
    while (strcmp(qz_recipe_fields[i].path, path) != 0) i++;
    return &qz_recipe_fields[i];
}

const qz_plugins *qz_field_plugins(const qz_field *f, const qz_recipe_catalog *catalog)
{
    const qz_plugins *list;
    memcpy(&list, (const char *)catalog + f->plugins, sizeof list);
    return list;
}
