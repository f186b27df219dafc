/* One decoder, many families: config.json and tensor names -> hidden states and logits.
 *
 * A family is a table (families.def): how to read its config and where its weights lie. The decoder runs in four
 * stages a layer, so that calibration can look at a stage's input, quantize its linears, and then run it:
 *
 *     stage     input                linears        result
 *     QKV       norm(residual)       q k v          attention output
 *     O         attention output     o              residual += o(input)
 *     GATE_UP   norm(residual)       gate up        act(gate) * up
 *     DOWN      act(gate) * up       down           residual += down(input)
 *
 *     qz_model *m;
 *     QZ_TRY(qz_model_open(&m, ckpt, backend, NULL));
 *     qz_layer layer;
 *     QZ_TRY(qz_model_layer(m, 3, &layer, layer_arena));          // widens (or dequantizes) that layer's weights
 *     QZ_TRY(qz_layer_forward(m, &layer, (qz_batch){B, L}, &residual, scratch));
 *
 * Three ways to number what a layer has:
 *     role     what a matrix does: q, k, v, o, gate, up, down; the last three once for each expert
 *     linear   a matrix as it is stored: usually one role, but phi3 stores q, k and v in one
 *     input    what linears read: 0 of q k v, 1 of o, then 2 + 2 e of gate and up and 3 + 2 e of down of expert e
 * A layer without a router is one with a single expert 0.
 *
 * A model knows nothing of quantization: a tap, when installed, is called at each named point and may change values. */
#ifndef QZ_MODELS_MODELS_H
#define QZ_MODELS_MODELS_H

#include <stdbool.h>
#include <stdint.h>

#include "autograd/autograd.h"
#include "base/plugin.h"
#include "checkpoints/checkpoints.h"
#include "kernels/kernels.h"

typedef enum qz_stage { QZ_STAGE_QKV, QZ_STAGE_O, QZ_STAGE_GATE_UP, QZ_STAGE_DOWN, QZ_STAGES } qz_stage;

/* Linears of a decoder layer. Those of one stage share an input; servers fuse them. */
typedef enum qz_role {
    QZ_ROLE_Q,
    QZ_ROLE_K,
    QZ_ROLE_V,
    QZ_ROLE_O,
    QZ_ROLE_GATE,
    QZ_ROLE_UP,
    QZ_ROLE_DOWN,
    QZ_ROLES
} qz_role;

qz_stage qz_role_stage(qz_role role);
const char *qz_stage_name(qz_stage stage); /* "qkv", "o", "gate_up", "down" */

static inline int qz_input_of(qz_stage stage, int expert)
{
    return stage < QZ_STAGE_GATE_UP ? (int)stage : (int)stage + 2 * expert;
}

static inline qz_stage qz_input_stage(int input)
{
    return (qz_stage)(input < QZ_STAGES ? input : QZ_STAGE_GATE_UP + input % 2);
}

static inline int qz_input_expert(int input)
{
    return input < QZ_STAGES ? 0 : (input - QZ_STAGE_GATE_UP) / 2;
}

/* Norms over the residual stream: before attention and before the MLP, and on what either adds (Gemma 2). */
typedef enum qz_norm { QZ_NORM_ATTENTION, QZ_NORM_MLP, QZ_NORM_AFTER_ATTENTION, QZ_NORM_AFTER_MLP, QZ_NORMS } qz_norm;

typedef enum qz_rope_kind { QZ_ROPE_DEFAULT, QZ_ROPE_LINEAR, QZ_ROPE_LLAMA3, QZ_ROPE_YARN, QZ_ROPE_LONG } qz_rope_kind;

typedef struct qz_rope {
    qz_rope_kind kind;
    int64_t dims; /* channels of a head that are rotated, the first ones; D unless the family rotates a part */
    double theta, factor;
    double low_freq_factor, high_freq_factor, original_context; /* llama3; original_context also yarn and long */
    double beta_fast, beta_slow;                                /* yarn */
    double attention_factor;            /* cos and sin are multiplied by it; 1 unless yarn or long */
    bool truncate;                      /* yarn */
    const float *factors, *far_factors; /* (dims/2) long: divisors of the frequencies for sequences of up to
                                         * original_context tokens, and for longer ones */
} qz_rope;

/* What config.json says, after the family's defaults. */
typedef struct qz_model_config {
    const char *family;
    int64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary, context;
    double norm_eps;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    int64_t window;             /* sliding window, 0: none */
    int64_t first_window_layer; /* layers from this one on slide (qwen: max_window_layers) */
    uint8_t *layer_slides;      /* (layers) from layer_types when given, else derived from the two above */
    int64_t experts;            /* of a layer with a router; 0: the family has none */
    int64_t active_experts;     /* that a token is sent to */
    int64_t expert_ffn;         /* F of one expert */
    bool normalize_routing;     /* weights of the active experts are divided by their sum */
    uint8_t *layer_routes;      /* (layers) 1: with a router */
    double norm_offset;         /* norms multiply by w + this (Gemma: 1) */
    double embedding_scale;     /* 1 but for Gemma */
    double attention_scale;     /* of q k^T; 0: 1 / sqrt(D) */
    double attention_softcap;   /* 0: none */
    double logit_softcap;       /* 0: none */
    bool gelu_tanh;             /* gate passes gelu (tanh form), else silu */
    bool norms_after;           /* QZ_NORM_AFTER_... are there */
    qz_rope rope;
    int32_t bos;     /* -1: none */
    qz_dtype stored; /* torch_dtype / dtype */
} qz_model_config;

/* Where a family keeps its tensors. Names under `layer` are those of one layer: "<layer>.<index>.<name>". A linear that
 * is NULL lies in the one before it, as further rows. */
typedef struct qz_tensor_names {
    const char *embedding, *final_norm, *head;    /* full names: "model.embed_tokens.weight" */
    const char *layer;                            /* "model.layers" */
    const char *linear[QZ_ROLES];                 /* modules: "self_attn.q_proj" */
    const char *norm[QZ_NORMS], *q_norm, *k_norm; /* tensors: "input_layernorm.weight"; NULL: none */
    const char *router;                           /* tensor "block_sparse_moe.gate.weight" */
    const char *experts;                          /* module "block_sparse_moe.experts", then ".<e>." and: */
    const char *expert_linear[3];                 /* gate, up, down: "w1", "w3", "w2" */
    const char *const *derived;                   /* globs of full names: tables computed from the config, not read */
} qz_tensor_names;

typedef struct qz_family {
    qz_plugin plugin;
    const char *architecture; /* "LlamaForCausalLM" */
    const char *model_type;   /* "llama" */
    int64_t default_kv_heads; /* when config.json has no num_key_value_heads; 0: as many as heads */
    int64_t default_head_dim; /* when config.json has no head_dim; 0: hidden_size / num_attention_heads */
    double default_theta;     /* when it has no rope_theta; 0: 10000 */
    double default_norm_eps;  /* when it has no rms_norm_eps; 0: 1e-6 */
    bool default_tied;        /* when it has no tie_word_embeddings */
    bool default_gelu_tanh;   /* when it has no activation; else silu */
    bool partial_rotation;    /* partial_rotary_factor may be less than 1 */
    const char *activation;   /* key of config.json; NULL: "hidden_act" */
    const qz_tensor_names *names;
    /* Reads what is particular to the family on top of what all share. */
    qz_status (*read_config)(qz_model_config *out, const qz_json_node *config);
} qz_family;

const qz_plugins *qz_families(void);
const qz_family *qz_family_at(size_t i);

/* Reads and checks config.json: unknown architecture, missing or nonsensical fields are errors naming the field. */
QZ_NODISCARD qz_status qz_model_config_read(qz_model_config *out, const qz_json_node *config, qz_arena *arena);

/* ---- taps ---- */

typedef enum qz_point { QZ_POINT_INPUT, QZ_POINT_KEY, QZ_POINT_VALUE } qz_point;

struct qz_layer;

/* `x`: an input (T, K), for an expert the tokens that it gets; or k after rope / v (T, HK, D), with input 0. */
typedef struct qz_tap {
    qz_status (*fn)(void *context, const struct qz_layer *layer, int input, qz_point point, const qz_tensor *x);
    void *context;
} qz_tap;

/* ---- a model ---- */

typedef struct qz_model qz_model;

/* A linear without its values. */
typedef struct qz_linear_place {
    qz_role role; /* of its first rows */
    int roles;    /* it holds the rows of so many roles, from `role` on */
    int expert, input;
    int64_t n, k;
    bool has_bias;
} qz_linear_place;

typedef struct qz_linear {
    const char *module; /* full name, lives as long as the model; NULL for a part of a linear */
    qz_role role;
    int expert, input;
    qz_tensor weight; /* (N, K) F32 */
    qz_tensor bias;   /* (N) F32; data NULL: none */
} qz_linear;

typedef struct qz_layer {
    int index;
    int linears, experts;            /* experts: at least 1 */
    qz_linear *linear;               /* [linears] as stored */
    qz_linear *part;                 /* [4 + 3 experts] the rows of each role: views of `linear`; see qz_layer_part */
    const char *norm_name[QZ_NORMS]; /* full tensor names; NULL: none */
    qz_tensor norm[QZ_NORMS];        /* (C) F32; data NULL: none */
    double norm_offset;              /* norms multiply by w + this */
    qz_tensor q_norm, k_norm;        /* (D) F32; data NULL: none */
    const char *router_name;         /* full tensor name; NULL: every token goes to expert 0 */
    qz_tensor router;                /* (E, C) F32; data NULL: none */
    const uint8_t *all_tokens;       /* (E) 1: the expert's inputs are shown for all tokens, not only for those that it
                                      * is sent; the output stays. NULL: for none */
    qz_tap tap;                      /* of this layer; fn NULL: the model's */
} qz_layer;

/* The rows of one role, of one expert (0 where the role has only one). */
static inline qz_linear *qz_layer_part(const qz_layer *layer, qz_role role, int expert)
{
    return &layer->part[role < QZ_ROLE_GATE ? (int)role : (int)role + 3 * expert];
}

/* Checks that every tensor the family needs is there with its shape, and that no other is, unless its name matches one
 * of the globs in `pass_through` (NULL-terminated; may be NULL). */
QZ_NODISCARD qz_status qz_model_open(qz_model **out, const qz_ckpt *ckpt, const qz_backend *backend,
                                     const char *const *pass_through);
void qz_model_close(qz_model *m);
const qz_model_config *qz_model_config_of(const qz_model *m);
const qz_family *qz_model_family(const qz_model *m);
const qz_ckpt *qz_model_ckpt(const qz_model *m);
const qz_backend *qz_model_backend(const qz_model *m);
void qz_model_set_tap(qz_model *m, qz_tap tap); /* {NULL, NULL}: none */

/* The linears of a layer, and the full module name of each (valid as long as the model). */
int qz_model_linears(const qz_model *m, int layer);
const qz_linear_place *qz_model_linear(const qz_model *m, int layer, int linear);
const char *qz_model_linear_name(const qz_model *m, int layer, int linear);
/* The linear that holds a role's rows (of expert 0), and which: [*first, *first + *rows). */
int qz_model_role_rows(const qz_model *m, int layer, qz_role role, int64_t *first, int64_t *rows);
/* "model.layers.3.self_attn": where servers keep the scales of the cache. */
const char *qz_model_attention_name(const qz_model *m, int layer);
/* The module of a layer's router, "model.layers.3.mlp.gate"; NULL: it has none. */
const char *qz_model_router_name(const qz_model *m, int layer);
/* Inputs of a layer, and the channels K of one. */
int qz_model_inputs(const qz_model *m, int layer);
int64_t qz_model_input_width(const qz_model *m, int layer, int input);

/* Weights of layer `index` as F32 in `arena`; qz_model_layer_bytes says how much that takes for the largest layer. */
QZ_NODISCARD qz_status qz_model_layer(const qz_model *m, int index, qz_layer *out, qz_arena *arena);
uint64_t qz_model_layer_bytes(const qz_model *m);
/* The same without linear weights' data (norms only), for layers whose weights come from elsewhere. */
QZ_NODISCARD qz_status qz_model_layer_norms(const qz_model *m, int index, qz_layer *out, qz_arena *arena);

/* The two tables outside the layers. A tied model has no head of its own. */
typedef enum qz_end { QZ_END_HEAD, QZ_END_EMBEDDING, QZ_ENDS } qz_end;

/* The module of a table, "lm_head", as long as the model; NULL: the model has none of its own. */
const char *qz_model_end_name(const qz_model *m, qz_end end);
/* One of its own as a linear that has no role (QZ_ROLES): its weight (V, C) F32 in `arena`. */
QZ_NODISCARD qz_status qz_model_end(const qz_model *m, qz_end end, qz_linear *out, qz_arena *arena);

/* residual (T, C) = embeddings of ids (T). */
QZ_NODISCARD qz_status qz_model_embed(const qz_model *m, const int32_t *ids, const qz_tensor *residual);

/* What a stage works on: `sequences` of `length` tokens, T = sequences * length, positions from 0 in each. */
typedef struct qz_batch {
    int64_t sequences, length;
} qz_batch;

/* Stage by stage, for layers without a router.
 * x (T, stage width) = the stage's input: the norm of residual (T, C), or a copy of `carry` (T, stage width). */
QZ_NODISCARD qz_status qz_stage_input(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch,
                                      const qz_tensor *residual, const qz_tensor *carry, const qz_tensor *x);
/* Runs the stage's linears and what follows on x: QKV and GATE_UP write `carry` (T, width of the next stage), O and
 * DOWN add to `residual`. The tap is called with x first. */
QZ_NODISCARD qz_status qz_stage_apply(const qz_model *m, const qz_layer *layer, qz_stage stage, qz_batch batch,
                                      const qz_tensor *x, const qz_tensor *residual, const qz_tensor *carry,
                                      qz_arena *scratch);
/* All four stages. */
QZ_NODISCARD qz_status qz_layer_forward(const qz_model *m, const qz_layer *layer, qz_batch batch,
                                        const qz_tensor *residual, qz_arena *scratch);
/* The same, but the last linears are left out: every tap is called, and residual is left without the MLP's share. */
QZ_NODISCARD qz_status qz_layer_observe(const qz_model *m, const qz_layer *layer, qz_batch batch,
                                        const qz_tensor *residual, qz_arena *scratch);
/* Bytes of scratch that one of the two above takes at most for a batch. */
uint64_t qz_model_scratch_bytes(const qz_model *m, qz_batch batch);

/* y (T, C) = the final norm of residual (T, C). y may be residual. */
QZ_NODISCARD qz_status qz_model_final_norm(const qz_model *m, const qz_tensor *residual, const qz_tensor *y);
/* logits (T, V) of normed hidden states (T, C); the head's weights are widened a tile at a time. */
QZ_NODISCARD qz_status qz_model_logits(const qz_model *m, const qz_tensor *hidden, const qz_tensor *logits,
                                       qz_arena *scratch);
/* Of the vocabulary entries [first, first + count) alone: logits (T, count). */
QZ_NODISCARD qz_status qz_model_logits_part(const qz_model *m, const qz_tensor *hidden, int64_t first,
                                            const qz_tensor *logits, qz_arena *scratch);
/* log_prob (T) F64 of targets (T) given normed hidden states, without holding more than a block of logits. */
QZ_NODISCARD qz_status qz_model_log_prob(const qz_model *m, const qz_tensor *hidden, const int32_t *targets,
                                         const qz_tensor *log_probs, qz_arena *scratch);
/* The same; the tap sees the logits (T, count) of the entries [first, first + count), block after block. */
typedef struct qz_logits_tap {
    qz_status (*fn)(void *context, int64_t first, const qz_tensor *logits);
    void *context;
} qz_logits_tap;
QZ_NODISCARD qz_status qz_model_log_prob_tapped(const qz_model *m, const qz_tensor *hidden, const int32_t *targets,
                                                const qz_tensor *log_probs, qz_logits_tap tap, qz_arena *scratch);
/* Bytes of scratch that log_prob takes at most for `tokens`; logits takes less. */
uint64_t qz_model_head_bytes(const qz_model *m, int64_t tokens);

/* Names of all plain tensors that are not linears of a layer (embeddings, norms, head; not a table that is stored
 * quantized), in the order of the model, then those that were passed through, in the order of the files; for exporters;
 * count through *count. */
QZ_NODISCARD qz_status qz_model_plain_names(const qz_model *m, const char ***names, size_t *count, qz_arena *arena);

/* ---- on a tape (tape_forward.c) ---- */

/* What is fed: ids (B, L); first (B, L): where in its row the document of a token begins, NULL: at 0. Attention stays
 * inside a document and its positions begin at 0. */
typedef struct qz_tape_batch {
    int64_t sequences, length;
    const int32_t *ids, *first;
} qz_tape_batch;

/* Where the weights of a model on a tape come from: whoever trains decides what is a leaf, what is rounded, and what
 * has an adapter beside it. */
typedef struct qz_tape_weights {
    void *context;
    /* y (T, N) = the rows of `role` of a layer applied to x (T, K), plus residual (NULL: none) */
    qz_status (*linear)(void *context, qz_tape *t, int layer, qz_role role, qz_var *x, qz_var *residual, qz_var **y);
    /* a tensor that is no linear of a layer, by its full name: embeddings, norms, head */
    qz_status (*plain)(void *context, qz_tape *t, const char *name, qz_var **w);
    /* what linears read and what the cache holds may be replaced; *x is the one to use. NULL: nothing is */
    qz_status (*point)(void *context, qz_tape *t, int layer, int input, qz_point point, qz_var **x);
    bool recompute; /* of a layer only its input is kept */
} qz_tape_weights;

/* hidden (B L, C) after the final norm, and the table that makes logits of it. `arena` holds what the backward pass
 * reads (positions, rotations), until then. Families with experts are QZ_UNSUPPORTED. */
QZ_NODISCARD qz_status qz_model_tape_forward(const qz_model *m, qz_tape *t, const qz_tape_weights *weights,
                                             qz_tape_batch batch, qz_var **hidden, qz_var **head, qz_arena *arena);

#endif
