/* One linear of a bitsandbytes folder, 4-bit or LLM.int8(): the tensors of container_bitsandbytes.c. */
#ifndef QZ_CHECKPOINTS_BNB_WEIGHTS_H
#define QZ_CHECKPOINTS_BNB_WEIGHTS_H

#include "checkpoints/checkpoints.h"

enum { QZ_BNB_BLOCK = 64 };

/* Blocks of `block` along a matrix with k inputs: groups of a row where a row holds whole ones, else flat. The codes
 * are the same; groups are what searches understand. */
void qz_bnb_cut(qz_scheme *s, int64_t block, int64_t k);

bool qz_bnb_holds_4bit(const qz_ckpt *c, const char *module);
QZ_NODISCARD qz_status qz_bnb_read_4bit(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                                        qz_arena *arena);
QZ_NODISCARD qz_status qz_bnb_declare_4bit(qz_shards *s, const qz_export_linear *l);
QZ_NODISCARD qz_status qz_bnb_write_4bit(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q,
                                         qz_arena *scratch);

QZ_NODISCARD qz_status qz_bnb_read_int8(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                                        qz_arena *arena);
QZ_NODISCARD qz_status qz_bnb_declare_int8(qz_shards *s, const qz_export_linear *l);
QZ_NODISCARD qz_status qz_bnb_write_int8(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q,
                                         qz_arena *scratch);

#endif
