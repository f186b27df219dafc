/* The quantization_config of compressed-tensors: what holds for a module, and the block for a plan. */
#ifndef QZ_CHECKPOINTS_CT_CONFIG_H
#define QZ_CHECKPOINTS_CT_CONFIG_H

#include "checkpoints/checkpoints.h"

/* One "args" object: how one kind of tensor is rounded. */
typedef enum qz_ct_strategy {
    QZ_CT_TENSOR,
    QZ_CT_CHANNEL,
    QZ_CT_GROUP,
    QZ_CT_BLOCK,
    QZ_CT_TOKEN,
    QZ_CT_TENSOR_GROUP,
    QZ_CT_ATTN_HEAD,
    QZ_CT_STRATEGIES
} qz_ct_strategy;

typedef struct qz_ct_args {
    bool present; /* false: null, not rounded */
    int bits;
    bool floating, symmetric, dynamic;
    qz_ct_strategy strategy;
    int64_t group, block_rows, block_cols;
} qz_ct_args;

typedef struct qz_ct_group {
    qz_ct_args weights, input;
} qz_ct_group;

QZ_NODISCARD qz_status qz_ct_group_read(qz_ct_group *out, const qz_json_node *group);
/* Everything in the block can be read, and is of a kind that is supported. */
QZ_NODISCARD qz_status qz_ct_config_check(const qz_json_node *block);
/* The first group whose targets name the module, or match it, or, last, its class (Linear), as vLLM searches.
 * QZ_FORMAT when there is none or the module is on the list `ignore`. */
QZ_NODISCARD qz_status qz_ct_config_find(qz_ct_group *out, const qz_json_node *block, const char *module);
QZ_NODISCARD qz_status qz_ct_config_kv(qz_ct_args *out, const qz_json_node *block);
/* Weights of a group as a scheme; scale_type is left to the tensor. */
QZ_NODISCARD qz_status qz_ct_weight_scheme(qz_scheme *out, const qz_ct_args *weights);
QZ_NODISCARD qz_status qz_ct_input_scheme(qz_act_scheme *out, const qz_ct_args *input);

/* The class of embeddings: torch.nn.Embedding, and a part of vLLM's name for it. */
#define QZ_CT_EMBEDDING "Embedding"

/* How the weights of one linear are stored. */
typedef enum qz_ct_form { QZ_CT_PACKED, QZ_CT_INT, QZ_CT_FLOAT, QZ_CT_NAIVE } qz_ct_form;
qz_ct_form qz_ct_form_of(const qz_export_linear *l);
qz_ct_strategy qz_ct_strategy_of(const qz_export_linear *l); /* of its weights */
const char *qz_ct_strategy_name(qz_ct_strategy s);
QZ_NODISCARD qz_status qz_ct_can_express(const qz_export_plan *plan);                        /* ct_express.c */
QZ_NODISCARD qz_status qz_ct_block(char **out, const qz_export_plan *plan, qz_arena *arena); /* ct_block.c */

/* vLLM, the consumer of this container, divides the largest value of a token by 127 (csrc/quantization/w8a8/int8/
 * scaled_quant.cu and csrc/cpu/dnnl_kernels.cpp: absmax / 127). compressed-tensors itself, in transformers, divides by
 * 127.5 (calculate_qparams: amax / (bit_range / 2)), 0.4 % less. Nothing on disk says which. Evaluation follows the
 * server. Static scales are read from the file by both. */
#define QZ_CT_INT8_DIVISOR 127.0f

#endif
