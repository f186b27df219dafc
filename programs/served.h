/* A folder as its consumer sees it: config.json, the stored tensors by name, and each linear with what the config says
 * of it and what is stored. For the files serving_*.c. */
#ifndef QZ_PROGRAMS_SERVED_H
#define QZ_PROGRAMS_SERVED_H

#include "models/models.h"
#include "programs/serving.h"

typedef enum qz_quant_method {
    QZ_METHOD_NONE, /* no quantization_config */
    QZ_METHOD_AWQ,
    QZ_METHOD_GPTQ,
    QZ_METHOD_COMPRESSED,
    QZ_METHOD_FP8,
    QZ_METHOD_BITSANDBYTES,
    QZ_METHOD_MODELOPT,
    QZ_METHOD_OTHER
} qz_quant_method;

typedef enum qz_granularity { QZ_PER_TENSOR, QZ_PER_CHANNEL, QZ_PER_GROUP, QZ_PER_BLOCK } qz_granularity;
typedef enum qz_served_inputs { QZ_INPUTS_PLAIN, QZ_INPUTS_STATIC, QZ_INPUTS_DYNAMIC } qz_served_inputs;

/* What the config says of one linear. */
typedef struct qz_served_scheme {
    int bits;
    bool floating, symmetric, ordered; /* ordered: with g_idx */
    qz_granularity granularity;
    int64_t group; /* per group: inputs; per block: the side */
    qz_served_inputs inputs;
    bool inputs_floating, inputs_symmetric;
    const char *format; /* of compressed-tensors; "" */
} qz_served_scheme;

typedef struct qz_served_linear {
    const char *module;
    int layer, expert; /* layer -1: the output head */
    qz_role role;
    int roles; /* it holds the rows of so many roles */
    int64_t n, k;
    bool said, stored; /* quantized: by the config; by its tensors */
    qz_served_scheme scheme;
} qz_served_linear;

typedef struct qz_served {
    qz_arena *arena;
    const char *folder;
    qz_json *document;
    const qz_json_node *config, *quant; /* root, quantization_config */
    qz_quant_method method;
    const char *method_name;
    qz_consumer consumer;
    qz_model_config model;
    const qz_tensor_names *names;
    qz_safetensors **file;
    size_t files;
    struct qz_strmap *index;
    const qz_stored **tensor;
    qz_served_linear *linear; /* layer by layer in the order of the roles; the head last unless it is tied */
    size_t linears;
} qz_served;

/* served.c */
QZ_NODISCARD qz_status qz_served_open(qz_served *out, const char *folder, qz_consumer consumer, qz_arena *arena);
void qz_served_close(qz_served *s);
const qz_stored *qz_served_find(const qz_served *s, const char *name);
/* "<module>.<suffix>", or NULL. */
const qz_stored *qz_served_part(const qz_served *s, const char *module, const char *suffix);
/* "model.layers.3.self_attn" */
const char *qz_served_attention(const qz_served *s, int layer);
/* The single number of a tensor; NaN when there is none, or more than one. */
double qz_served_number(const qz_stored *t);
/* Linears that servers fuse: the first of a set gives the number of linears in it, others and lone ones 0. */
size_t qz_served_fused(const qz_served *s, size_t i);

/* serving_config.c */
void qz_served_read_method(qz_served *s);
/* Fills `said` and `scheme` of a linear. */
QZ_NODISCARD qz_status qz_served_say(const qz_served *s, qz_served_linear *l);
/* Members with a default where they are absent or of another type. */
int64_t qz_served_int(const qz_json_node *object, const char *key, int64_t otherwise);
bool qz_served_bool(const qz_json_node *object, const char *key, bool otherwise);
const char *qz_served_text(const qz_json_node *object, const char *key, const char *otherwise);

/* ---- rules ---- */

struct qz_serving_rule {
    const char *name, *help;
    unsigned consumers;
    qz_status (*check)(const qz_served *s, qz_findings *f);
};

#define QZ_SERVING_RULE(id, name, consumers, help) qz_status qz_serving_##id(const qz_served *s, qz_findings *f);
#include "programs/serving_rules.def"
#undef QZ_SERVING_RULE

/* A finding of the rule that runs. The same harm, words and advice at another place only count. `advice` is static. */
void qz_finding_add(qz_findings *f, qz_harm harm, const char *where, const char *advice, const char *format, ...)
    QZ_PRINTF(5, 6);

#endif
