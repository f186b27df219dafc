/* The residual stream of all samples, kept between layers in the type the recipe says, and walked in batches of whole
 * windows. Private to calib/. */
#ifndef QZ_CALIB_STREAM_H
#define QZ_CALIB_STREAM_H

#include "calib/calib.h"

typedef struct qz_stream {
    const qz_model *model;
    int64_t windows, length, width; /* (windows, length, width), C for the residual stream */
    int64_t batch;                  /* windows a batch at most */
    qz_dtype type;                  /* F32 or BF16 */
    void *data;
} qz_stream;

/* Windows of a batch: many rows make the matrix product fast, as long as their buffers stay small. */
int64_t qz_stream_batch(const qz_model *m, int64_t length);
uint64_t qz_stream_bytes(const qz_model_config *c, int64_t windows, int64_t length, qz_dtype type);
/* Embeds the windows' ids by `table` (V, C) F32, or, when that is NULL, by the model's own embeddings, which are
 * rounded to `plain_type` as they will be stored. */
QZ_NODISCARD qz_status qz_stream_new(qz_stream *out, const qz_model *model, const qz_windows *w, const qz_tensor *table,
                                     qz_dtype type, qz_dtype plain_type, qz_arena *arena);
/* Another of the same windows, `width` wide, in memory of the caller. */
qz_stream qz_stream_like(const qz_stream *s, int64_t width, void *data);
int64_t qz_stream_batches(const qz_stream *s);
/* Windows of batch i. */
qz_batch qz_stream_shape(const qz_stream *s, int64_t i);
/* residual (T, C) F32 = batch i, and back. */
QZ_NODISCARD qz_status qz_stream_load(const qz_stream *s, int64_t i, const qz_tensor *residual);
QZ_NODISCARD qz_status qz_stream_store(const qz_stream *s, int64_t i, const qz_tensor *residual);

#endif
