/* Rotary position embedding: parameters from config.json, inverse frequencies, cos and sin tables.
 * Su et al. 2021, eq. 34; scaled as in transformers, modeling_rope_utils.py. */
#ifndef QZ_MODELS_ROPE_H
#define QZ_MODELS_ROPE_H

#include "models/models.h"

/* rope_parameters (transformers 5), or rope_theta and rope_scaling (4) -> out->rope. out->context and out->head_dim are
 * already read. */
QZ_NODISCARD qz_status qz_config_rope(qz_model_config *out, const qz_json_node *config, const qz_family *family,
                                      qz_arena *arena);

/* inv_freq (D/2), in fp32 as transformers computes it; D here is the number of channels that are rotated. */
void qz_rope_frequencies(float *inv_freq, const qz_rope *rope, int64_t head_dim);
/* cos, sin (length, D/2): angle = fp32 product of position and frequency; times the attention factor. */
void qz_rope_tables(float *cos, float *sin, const qz_rope *rope, const float *inv_freq, int64_t length,
                    int64_t head_dim);

#endif
