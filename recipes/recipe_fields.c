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

static const qz_field_name packs[] = {{"auto", QZ_TRAIN_PACK_AUTO, false},
                                      {"documents", QZ_TRAIN_PACK_DOCUMENTS, false},
                                      {"stream", QZ_TRAIN_PACK_STREAM, false},
                                      {NULL, 0, false}};

static const qz_field_name starts[] = {
    {"model", QZ_TRAIN_FROM_MODEL, false}, {"random", QZ_TRAIN_FROM_RANDOM, false}, {NULL, 0, false}};

static const qz_field_name trained[] = {{"all", QZ_TRAIN_ALL, false},
                                        {"adapter", QZ_TRAIN_ADAPTER, false},
                                        {"scales", QZ_TRAIN_SCALES, false},
                                        {NULL, 0, false}};

static const qz_field_name schedules[] = {{"cosine", QZ_TRAIN_COSINE, false},
                                          {"linear", QZ_TRAIN_LINEAR, false},
                                          {"constant", QZ_TRAIN_CONSTANT, false},
                                          {NULL, 0, false}};

static const qz_field_name moments[] = {{"f32", false, false}, {"int8", true, false}, {NULL, 0, false}};

static const qz_field_name quantizers[] = {
    {"ste", QZ_TRAIN_STE, false}, {"lsq", QZ_TRAIN_LSQ, false}, {"lsq+", QZ_TRAIN_LSQ_PLUS, false}, {NULL, 0, false}};

static const qz_field_name scale_kinds[] = {{"dynamic", QZ_TRAIN_DYNAMIC, false},
                                            {"frozen", QZ_TRAIN_FROZEN, false},
                                            {"learned", QZ_TRAIN_LEARNED, false},
                                            {NULL, 0, false}};

static const qz_field_name gradients[] = {{"clip", false, false}, {"pass", true, false}, {NULL, 0, false}};

static const qz_field_name activation_scales[] = {
    {"average", false, false}, {"learned", true, false}, {NULL, 0, false}};

static const qz_field_name adapter_starts[] = {{"zeros", false, false}, {"loftq", true, false}, {NULL, 0, false}};

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

    OBJECT("weights", false, PLACE(weights.wanted),
           "the numbers that weights become; only a recipe with `train` may leave it out, and quantizes nothing then"),
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

    OBJECT("train", false, PLACE(train.wanted), "training by `qat train`; a recipe without it is for qcal"),
    TEXT("train.data", true, train.data, NULL, "text to train on, as in calibration.data; it may be larger than memory"),
    TEXT("train.field", false, train.field, "\"text\"", "member of a .jsonl line that holds the text"),
    NAME("train.pack", false, train.pack, "\"auto\"", packs,
         "\"documents\": no attention from one document to another; \"stream\": windows of one long text; "
         "\"auto\": documents for .jsonl, else stream"),
    NAME("train.start", false, train.start, "\"model\"", starts,
         "\"random\": fresh weights, drawn by the seed, in the shape of the model"),
    NAME("train.parameters", false, train.parameters, "\"all\"", trained,
         "what is trained: all weights (with a quantizer also its learned scales), a LoRA adapter beside frozen "
         "weights, or the learned scales alone"),
    INT("train.steps", train.steps, NULL, 1, 1000 * MILLION,
        "of the optimizer; when not given, 2000 from random weights, 500 for an adapter, else 1000"),
    INT("train.batch", train.batch, "8", 1, MILLION, "sequences of a step"),
    INT("train.micro_batch", train.micro_batch, NULL, 1, MILLION,
        "sequences computed at once, a divisor of train.batch; all of them when not given"),
    INT("train.sequence_length", train.sequence_length, "512", 2, MILLION, "tokens of a sequence"),
    INT("train.seed", train.seed, "0", 0, LARGEST, "of everything that is drawn at random"),
    BOOL("train.shuffle", train.shuffle, "true", "sequences in an order drawn by the seed, another one each epoch"),
    NUMBER("train.learning_rate", train.learning_rate, NULL, 1e-9, 10,
           "at its peak; when not given, 1e-3 from random weights, 2e-4 for an adapter, else 1e-4"),
    NUMBER("train.scale_learning_rate", train.scale_learning_rate, NULL, 1e-9, 10,
           "of learned scales (lsq, lsq+, learned activations); when not given, train.learning_rate"),
    NUMBER("train.offset_learning_rate", train.offset_learning_rate, NULL, 1e-9, 1000,
           "of learned zero points (lsq+), in codes; when not given, 50 times train.scale_learning_rate"),
    NAME("train.schedule", false, train.schedule, "\"cosine\"", schedules, "how the rate falls after the warm-up"),
    NUMBER("train.warmup", train.warmup, "0.05", 0, 1, "share of the steps in which the rate rises"),
    NUMBER("train.final_rate", train.final_rate, "0.1", 0, 1, "rate of the last step, as a share of the peak"),
    NUMBER("train.weight_decay", train.weight_decay, NULL, 0, 10,
           "of AdamW, on matrices, an adapter's too; when not given, 0.1 from random weights, else 0"),
    NUMBER("train.beta1", train.beta1, "0.9", 0, 0.9999, "of AdamW: decay of the first moment"),
    NUMBER("train.beta2", train.beta2, "0.95", 0, 0.99999, "of AdamW: decay of the second moment"),
    NUMBER("train.epsilon", train.epsilon, "1e-8", 1e-16, 1, "of AdamW"),
    NUMBER("train.clip_norm", train.clip_norm, "1", 0, MILLION, "largest norm of all gradients together; 0: any"),
    FLAG("train.moments", train.moments_8bit, "\"f32\"", moments,
         "type of AdamW's moments; int8 takes a quarter of the memory"),
    NAME("train.compute", false, train.compute, "\"f32\"", activation_types,
         "type of the products; master weights and gradients are f32"),
    BOOL("train.recompute", train.recompute, "false",
         "keep only what enters each layer and compute the rest again for the gradients: less memory, more time"),
    OBJECT("train.loss", false, QZ_NO_PLACE, "a weighted sum of two losses a token"),
    NUMBER("train.loss.cross_entropy", train.loss.cross_entropy, "1", 0, 1000, "weight of that of the next token"),
    NUMBER("train.loss.divergence", train.loss.divergence, "0", 0, 1000,
           "weight of the Kullback-Leibler divergence from the teacher's prediction"),
    NUMBER("train.loss.temperature", train.loss.temperature, "1", 0.01, 100,
           "divides both sides' logits in the divergence, whose weight is multiplied by its square"),
    TEXT("train.loss.teacher", false, train.loss.teacher, NULL,
         "folder of a model with the same vocabulary; when not given, the model as it was before training"),
    TEXT("train.init", false, train.init, NULL,
         "\"ptq\": first quantize as qcal would by this recipe, and start from its scales, weights and transforms; or a "
         "quantized folder to start from"),
    OBJECT("train.quantizer", false, PLACE(train.quantizer.wanted),
           "how `weights` and `activations` are rounded while training; they are whenever `weights` is there, but for an "
           "adapter that is not merge_aware"),
    NAME("train.quantizer.method", false, train.quantizer.method, "\"ste\"", quantizers,
         "straight-through, LSQ (learned scales), or LSQ+ (learned scales and zero points)"),
    NAME("train.quantizer.scales", false, train.quantizer.scales, NULL, scale_kinds,
         "\"dynamic\": from the weights at each step; \"frozen\": as they were at the start; \"learned\"; when not given: "
         "learned with lsq and lsq+, frozen with train.init, else dynamic"),
    FLAG("train.quantizer.gradient", train.quantizer.pass, "\"clip\"", gradients,
         "of ste: \"clip\", zero where the code was clipped, or \"pass\", as if nothing were rounded"),
    INT("train.quantizer.after", train.quantizer.after, "0", 0, 1000 * MILLION, "steps before rounding begins"),
    NUMBER("train.quantizer.freeze", train.quantizer.freeze, "0", 0, 1,
           "a weight whose code turns back in more than this share of the steps stays at its code; 0: never"),
    FLAG("train.quantizer.activations", train.quantizer.learned_activations, "\"average\"", activation_scales,
         "scales of activations whose mode is \"static\": a moving average of the extremes, or learned"),
    OBJECT("train.adapter", false, PLACE(train.adapter.wanted), "the LoRA adapter of train.parameters \"adapter\""),
    TEXT("train.adapter.from", false, train.adapter.from, NULL,
         "folder of an adapter to go on from, of PEFT's or our own; its rank, alpha and targets are those of the recipe"),
    INT("train.adapter.rank", train.adapter.rank, "16", 1, 65536, "columns of B and rows of A"),
    NUMBER("train.adapter.alpha", train.adapter.alpha, "32", 1e-6, MILLION, "B A is multiplied by alpha / rank"),
    NUMBER("train.adapter.dropout", train.adapter.dropout, "0", 0, 0.99, "share of A's inputs that is left out"),
    BOOL("train.adapter.rslora", train.adapter.rslora, "false", "B A is multiplied by alpha / sqrt(rank) instead"),
    PATTERNS("train.adapter.targets", train.adapter.targets, "[]",
             "linears that get one, named as in weights.skip; none given: all of the layers"),
    FLAG("train.adapter.start", train.adapter.loftq, "\"zeros\"", adapter_starts,
         "\"zeros\": B is 0, A random; \"loftq\": both fitted to what quantizing the base loses"),
    INT("train.adapter.loftq_iterations", train.adapter.loftq_iterations, "1", 1, 100,
        "times that base and adapter are fitted in turn"),
    BOOL("train.adapter.merge_aware", train.adapter.merge_aware, "false",
         "round the weight with the adapter in it as `weights` says, so that the merged checkpoint is what was trained"),
    OBJECT("train.adapter.base", false, PLACE(train.adapter.base.wanted),
           "how the frozen base is quantized in memory; when not given, it stays as it is stored"),
    NAME("train.adapter.base.format", true, train.adapter.base.format, NULL, formats, "as weights.format"),
    {"train.adapter.base.group", QZ_FIELD_GROUP, false, PLACE(train.adapter.base.group), "\"channel\"", 1, MILLION,
     groups, 0, "as weights.group"},
    BOOL("train.adapter.base.symmetric", train.adapter.base.symmetric, "false", "as weights.symmetric"),
    BOOL("train.adapter.base.double_quant", train.adapter.base.double_quant, "false", "as weights.double_quant"),
    PATTERNS("train.adapter.base.skip", train.adapter.base.skip, "[\"lm_head\"]", "as weights.skip"),
    INT("train.save_every", train.save_every, "200", 0, 1000 * MILLION,
        "steps between states that can be resumed; 0: at the end only"),
    INT("train.keep", train.keep, "2", 1, 1000, "states that are kept, the newest ones"),
    OBJECT("train.validation", false, PLACE(train.validation.wanted),
           "the text that training is judged by while it runs, so that nothing is chosen on evaluate.data"),
    TEXT("train.validation.data", true, train.validation.data, NULL,
         "as in train.data; another one than evaluate.data"),
    TEXT("train.validation.field", false, train.validation.field, "\"text\"",
         "member of a .jsonl line that holds the text"),
    INT("train.validation.windows", train.validation.windows, "16", 0, MILLION,
        "at most so many windows; 0: all of the text"),
    INT("train.validation.sequence_length", train.validation.sequence_length, "512", 2, MILLION,
        "tokens in each window"),
    INT("train.evaluate_every", train.evaluate_every, "0", 0, 1000 * MILLION,
        "steps between evaluations on train.validation; 0: at the start and at the end only"),
    INT("train.patience", train.patience, "0", 0, MILLION,
        "stop after so many evaluations on train.validation without a better one; 0: never"),
    BOOL("train.keep_best", train.keep_best, "false",
         "export the state that was best on train.validation instead of the last one"),

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
