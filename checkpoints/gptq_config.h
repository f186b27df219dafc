/* GPTQ's quantization_config, read for one module and written for a plan. */
#ifndef QZ_CHECKPOINTS_GPTQ_CONFIG_H
#define QZ_CHECKPOINTS_GPTQ_CONFIG_H

#include "checkpoints/checkpoints.h"

#define QZ_GPTQ_HEAD "lm_head" /* the one module outside the layers that the config has a key for, of this name */

typedef struct qz_gptq_config {
    int bits;
    int64_t group; /* 0: the whole row */
    bool symmetric, second_layout;
} qz_gptq_config;

/* What holds for `module` after the rules of `dynamic`; NULL: for modules without a rule, all rules checked. */
QZ_NODISCARD qz_status qz_gptq_config_read(qz_gptq_config *out, const qz_json_node *block, const char *module);
qz_scheme qz_gptq_scheme(const qz_gptq_config *config);
/* Outputs and inputs must be multiples of it; 0: gptq has no such number of bits. */
int64_t qz_gptq_unit(int bits);
QZ_NODISCARD qz_status qz_gptq_config_block(char **out, const qz_export_plan *plan, qz_arena *arena);

#endif
