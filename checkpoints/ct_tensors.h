/* The tensors of compressed-tensors (container_compressed_tensors.c has the list): read, declared, written. */
#ifndef QZ_CHECKPOINTS_CT_TENSORS_H
#define QZ_CHECKPOINTS_CT_TENSORS_H

#include "checkpoints/ct_config.h"
#include "checkpoints/packed_words.h"

/* Codes (N, K) <-> words (N, K b / 32), and zeros (N, G) <-> words (N b / 32, G). */
qz_packing qz_ct_weight_packing(int64_t n, int64_t k, int bits);
qz_packing qz_ct_zero_packing(int64_t n, int64_t groups, int bits);

QZ_NODISCARD qz_status qz_ct_read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                                         qz_arena *arena);
QZ_NODISCARD qz_status qz_ct_declare_linear(qz_shards *s, const qz_export_linear *l);
QZ_NODISCARD qz_status qz_ct_write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q,
                                          const qz_act_values *act, qz_arena *scratch);

/* What config.json says of a module. */
QZ_NODISCARD qz_status qz_ct_find_group(qz_ct_group *out, const qz_ckpt *c, const char *module);

/* Static inputs and the cache (ct_inputs.c). */
QZ_NODISCARD qz_status qz_ct_declare_input(qz_shards *s, const qz_export_linear *l);
QZ_NODISCARD qz_status qz_ct_write_input(qz_shards *s, const qz_export_linear *l, const qz_act_values *act);
QZ_NODISCARD qz_status qz_ct_read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme,
                                             qz_act_values *values);
QZ_NODISCARD qz_status qz_ct_declare_kv(qz_shards *s, const qz_export_plan *plan, int layer);
QZ_NODISCARD qz_status qz_ct_write_kv(qz_shards *s, const qz_export_plan *plan, int layer, const qz_kv_values *values);
QZ_NODISCARD qz_status qz_ct_read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme,
                                     float *key, float *value);

#endif
