/* The tensors of one module, "<module>.<suffix>": found and checked, declared, written. What containers share. */
#ifndef QZ_CHECKPOINTS_TENSOR_PARTS_H
#define QZ_CHECKPOINTS_TENSOR_PARTS_H

#include "checkpoints/checkpoints.h"
#include "checkpoints/packed_words.h"

/* The part must be there, with this type and shape; QZ_DTYPE_COUNT stands for F32, F16 or BF16. */
QZ_NODISCARD qz_status qz_part_find(const qz_stored **out, const qz_ckpt *c, const char *module, const char *suffix,
                                    qz_dtype type, int ndim, const int64_t *shape);
/* The type alone; where more than one shape is right. */
QZ_NODISCARD qz_status qz_part_check_type(const qz_ckpt *c, const qz_stored *t, qz_dtype type);
/* All values of an F32, F16 or BF16 part as fp32, in stored order; each must be finite. */
QZ_NODISCARD qz_status qz_part_floats(float *out, const qz_ckpt *c, const qz_stored *t);

QZ_NODISCARD qz_status qz_part_declare(qz_shards *s, const char *module, const char *suffix, qz_dtype type, int ndim,
                                       const int64_t *shape);
QZ_NODISCARD qz_status qz_part_write(qz_shards *s, const char *module, const char *suffix, const void *data,
                                     size_t bytes);
/* Writes x as `type` (F32, F16, BF16). Every value must be a number of that type: nothing is rounded here. */
QZ_NODISCARD qz_status qz_part_write_floats(qz_shards *s, const char *module, const char *suffix, qz_dtype type,
                                            const float *x, int64_t count, qz_arena *scratch);

/* Packs the codes and writes the words. */
QZ_NODISCARD qz_status qz_part_write_words(qz_shards *s, const char *module, const char *suffix, const uint8_t *codes,
                                           const qz_packing *p, qz_arena *scratch);

/* The integer format of so many bits; QZ_FORMAT_COUNT: there is none. */
qz_format qz_part_int_format(int bits);
/* The matrix to be written is the declared one. */
QZ_NODISCARD qz_status qz_part_check_matrix(const qz_export_linear *l, const qz_qtensor *q);
/* The writer's text without the newline at its end, from `arena`; frees the writer. */
QZ_NODISCARD qz_status qz_part_finish_text(char **out, qz_json_writer *w, qz_arena *arena);

#endif
