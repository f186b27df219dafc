/* A recipe: JSON text -> a checked value. One type for all programs, "version": 1 (QZ_RECIPE_VERSION).
 *
 * The shape is a table (recipe_fields.c): key, type, range, default, help. From it come the check, the JSON schema and
 * docs/recipes.md's reference. Plug-ins are named by strings, or by objects {"method": name, option: value, ...}; which
 * ones exist is told by the program's catalog, so this folder knows none.
 *
 *     qz_recipe *r;
 *     QZ_TRY(qz_recipe_read(&r, "recipes/awq-llama.json", &catalog, overrides, n, arena));
 *
 * Errors carry the JSON path, the value found, what is allowed, and the nearest known key:
 *     recipes/a.json: weights.groop: unknown key; did you mean "group"? */
#ifndef QZ_RECIPES_RECIPES_H
#define QZ_RECIPES_RECIPES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/plugin.h"
#include "base/status.h"
#include "numeric/format.h"

enum {
    QZ_RECIPE_VERSION = 1,
    QZ_RECIPE_TRANSFORMS = 8,
    QZ_RECIPE_PATTERNS = 64,
    QZ_RECIPE_OVERRIDES = 32,
    QZ_RECIPE_OUTPUTS = 16
};

typedef struct qz_recipe_catalog {
    const qz_plugins *transforms, *ranges, *solvers, *containers, *backends, *observers;
    /* Does row `index` of one of the lists need statistics, that is calibration data? NULL: none does. */
    bool (*needs_statistics)(const qz_plugins *list, int index);
} qz_recipe_catalog;

/* A plug-in chosen by name, with its options. */
typedef struct qz_choice {
    const char *name;
    int index; /* in the catalog's list */
    qz_options options;
} qz_choice;

typedef struct qz_patterns {
    const char *pattern[QZ_RECIPE_PATTERNS]; /* exact module name, last component ("lm_head"), or glob with * */
    int count;
} qz_patterns;

/* Values of qz_recipe_weights.group that are no number of inputs. */
enum { QZ_GROUP_CHANNEL = 0, QZ_GROUP_TENSOR = -1, QZ_GROUP_BLOCK = -2 /* 128 x 128 */ };

typedef struct qz_recipe_weights {
    bool wanted; /* false: nothing is quantized, which only a recipe that trains may say */
    qz_format format;
    int64_t group; /* > 0: inputs that share a scale; or QZ_GROUP_... */
    bool symmetric, double_quant;
    bool fall_back; /* "on_failure": "rtn", else "stop" */
    qz_choice range, solver;
    qz_patterns skip;
} qz_recipe_weights;

/* mode QZ_ACT_NONE: activations stay as they are. */
typedef struct qz_recipe_activations {
    qz_act_mode mode; /* "static": TENSOR; "dynamic": TOKEN, or GROUP with a group */
    qz_format format;
    int64_t group;
    bool symmetric;
    qz_choice observer; /* static; index -1: "auto", each observer is tried and the best layer output wins */
} qz_recipe_activations;

/* What some linears have instead: the base's values with the entry's own on top. */
typedef struct qz_recipe_exception {
    qz_patterns match;
    bool skip;                 /* "skip": false empties weights.skip, so that what the base skips is quantized */
    qz_recipe_weights weights; /* its skip is the base's or the entry's own */
    qz_recipe_activations activations;
} qz_recipe_exception;

/* ---- training (`qat`); what a name means: docs/training.md ---- */

typedef enum qz_train_start { QZ_TRAIN_FROM_MODEL, QZ_TRAIN_FROM_RANDOM } qz_train_start;
typedef enum qz_train_what { QZ_TRAIN_ALL, QZ_TRAIN_ADAPTER, QZ_TRAIN_SCALES } qz_train_what;
typedef enum qz_train_pack { QZ_TRAIN_PACK_AUTO, QZ_TRAIN_PACK_DOCUMENTS, QZ_TRAIN_PACK_STREAM } qz_train_pack;
typedef enum qz_train_schedule { QZ_TRAIN_COSINE, QZ_TRAIN_LINEAR, QZ_TRAIN_CONSTANT } qz_train_schedule;
typedef enum qz_train_method { QZ_TRAIN_STE, QZ_TRAIN_LSQ, QZ_TRAIN_LSQ_PLUS } qz_train_method;
typedef enum qz_train_scales { QZ_TRAIN_DYNAMIC, QZ_TRAIN_FROZEN, QZ_TRAIN_LEARNED } qz_train_scales;

/* How weights and activations are rounded while training. */
typedef struct qz_recipe_quantizer {
    bool wanted; /* some are */
    qz_train_method method;
    qz_train_scales scales;
    bool pass;                /* "gradient": "pass", everywhere; else "clip", where the code lies inside the grid */
    bool learned_activations; /* static ones; else a moving average of their extremes */
    int64_t after;            /* the first step that rounds, from 0 */
    double freeze; /* share of steps in which a weight's code turns back, above which it is frozen; 0: none */
} qz_recipe_quantizer;

/* LoRA: y = W x + factor B A x, factor alpha / rank, or alpha / sqrt(rank) with rslora. */
typedef struct qz_recipe_adapter {
    bool wanted;
    int64_t rank;
    double alpha, dropout;
    bool rslora, loftq, merge_aware;
    const char *from; /* folder of the adapter to go on from; NULL: a new one */
    int64_t loftq_iterations;
    qz_patterns targets;    /* none: all linears of the layers */
    qz_recipe_weights base; /* scheme of the frozen base (format, group, symmetric, double_quant, skip); not wanted: as
                               it is stored */
} qz_recipe_adapter;

/* Every value is the one that holds: what a recipe leaves out and what depends on the rest (the learning rates, decay,
 * scales, micro_batch) is filled in when it is read, by recipe_train.c. */
typedef struct qz_recipe_train {
    bool wanted; /* a "train" object was given */
    const char *data, *field;
    qz_train_pack pack;
    qz_train_start start;
    qz_train_what parameters;
    int64_t steps, batch, micro_batch; /* of sequences; micro_batch divides batch */
    int64_t sequence_length;
    uint64_t seed;
    bool shuffle;
    double learning_rate, scale_learning_rate, offset_learning_rate;
    qz_train_schedule schedule;
    double warmup, final_rate; /* shares: of the steps, of the learning rate */
    double weight_decay, beta1, beta2, epsilon;
    double clip_norm;  /* 0: not clipped */
    bool moments_8bit; /* "moments": "int8" */
    qz_dtype compute;  /* F32 or BF16 */
    bool recompute;
    struct {
        double cross_entropy, divergence; /* weights, not both 0 */
        double temperature;
        const char *teacher; /* folder; NULL: the model as it was before training */
    } loss;
    const char *init; /* NULL, "ptq", or a quantized folder */
    qz_recipe_quantizer quantizer;
    qz_recipe_adapter adapter;
    int64_t save_every; /* steps; 0: at the end only */
    int64_t keep;       /* state files */
    struct {
        bool wanted; /* a "validation" object was given */
        const char *data, *field;
        int64_t windows; /* at most; 0: all */
        int64_t sequence_length;
    } validation;           /* the text that evaluate_every, patience and keep_best judge by; never evaluate.data */
    int64_t evaluate_every; /* steps; 0: not while training */
    int64_t patience;       /* evaluations without gain after which training stops; 0: never */
    bool keep_best;         /* what is exported is the best evaluated state, not the last one */
} qz_recipe_train;

typedef enum qz_propagate { QZ_PROPAGATE_AUTO, QZ_PROPAGATE_QUANTIZED, QZ_PROPAGATE_ORIGINAL } qz_propagate;

typedef struct qz_recipe {
    int version;
    const char *model, *output;
    const char *backend; /* "auto" or a name */
    struct {
        const char *data; /* NULL: not given, allowed when nothing needs statistics */
        const char *field;
        int64_t samples, sequence_length;
        uint64_t seed;
        bool shuffle;
        qz_dtype activations; /* of the residual stream kept between layers: F32 or BF16 */
        qz_propagate propagate;
        int64_t expert_tokens; /* an expert that got fewer is calibrated on all tokens of the layer */
    } calibration;
    struct {
        qz_dtype type;      /* of the Gram matrices in the file: F32 or F16 */
        qz_patterns layers; /* modules "model.layers.3" to keep; none given: all */
    } statistics;
    qz_choice transform[QZ_RECIPE_TRANSFORMS];
    int transforms;
    qz_recipe_weights weights;
    qz_recipe_activations activations;
    struct {
        qz_kv_scheme scheme;
        qz_choice observer;
    } kv_cache;
    qz_recipe_exception override[QZ_RECIPE_OVERRIDES];
    int overrides;
    /* "outputs": each entry laid over the rest of the recipe (RFC 7396) is a recipe of its own; 0: this one is all.
     * Model, backend, calibration, statistics and evaluate.data are the same in all; this one's members are those of
     * the first. */
    struct qz_recipe *outputs[QZ_RECIPE_OUTPUTS];
    int output_count;
    struct {
        qz_choice container;
        qz_dtype dtype; /* of what is not quantized; QZ_DTYPE_COUNT: "auto", as the container prefers */
        uint64_t shard_bytes;
        qz_patterns pass_through; /* tensors that the family does not know, copied as they are */
    } output_as;                  /* "export" in the file */
    struct {
        bool wanted; /* an "evaluate" object was given */
        const char *data, *field;
        int64_t windows; /* at most; 0: all */
        int64_t sequence_length;
        double accept_perplexity_ratio; /* 0: not asked */
        double accept_kl;               /* mean, in nats; 0: not asked */
        double accept_top1;             /* least agreement, 0 to 1; 0: not asked */
        double accept_layer_error;      /* 0: not asked */
    } evaluate;
    qz_recipe_train train;
    char hash[33];    /* of the recipe after overrides, in canonical form */
    const char *text; /* that canonical form, for report.json */
} qz_recipe;

/* "path=value" with a dotted path ("weights.group=64", "transforms.0.grid=40"). The value is JSON, or a bare string;
 * null removes what is there. Members on the way are made; an index one past the end appends. */
typedef struct qz_override {
    const char *path, *value;
    const char *origin; /* for messages: "--model", "--set weights.group=64" */
    bool literal;       /* the value is a string as it stands, even when it reads like JSON */
} qz_override;

QZ_NODISCARD qz_status qz_recipe_read(qz_recipe **out, const char *path, const qz_recipe_catalog *catalog,
                                      const qz_override *overrides, int count, qz_arena *arena);
/* From text; `name` appears in messages. */
QZ_NODISCARD qz_status qz_recipe_parse(qz_recipe **out, const char *text, size_t size, const char *name,
                                       const qz_recipe_catalog *catalog, const qz_override *overrides, int count,
                                       qz_arena *arena);
/* The scheme that they describe; scale_type is what the container stores. */
qz_scheme qz_weights_scheme(const qz_recipe_weights *w, qz_dtype scale_type);
/* The solver is told to sort the inputs into groups of its own (GPTQ's desc_act), which are stored with a permutation.
 */
bool qz_weights_ordered(const qz_recipe_weights *w);
/* What applies to a module: the last override that matches it, else the recipe's own. False: it stays as it is. */
bool qz_recipe_module(const qz_recipe *r, const char *module, const qz_recipe_weights **weights,
                      const qz_recipe_activations **activations);
/* train.init is "ptq": the recipe's own qcal job comes first. */
bool qz_recipe_starts_from_ptq(const qz_recipe *r);
bool qz_patterns_match(const qz_patterns *p, const char *module);
/* Patterns as the NULL-terminated list that qz_model_open wants, in `arena`; NULL when memory is short. */
const char *const *qz_pattern_list(const qz_patterns *p, qz_arena *arena);
/* recipes/recipe.schema.json (JSON Schema draft 2020-12), in `arena`. */
QZ_NODISCARD qz_status qz_recipe_schema(char **out, const qz_recipe_catalog *catalog, qz_arena *arena);
/* The reference table of docs/recipes.md (Markdown), in `arena`. */
QZ_NODISCARD qz_status qz_recipe_reference(char **out, const qz_recipe_catalog *catalog, qz_arena *arena);

#endif
