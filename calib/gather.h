/* Running one layer over the whole stream: to look (gather) or to move on (advance). Private to calib/. */
#ifndef QZ_CALIB_GATHER_H
#define QZ_CALIB_GATHER_H

#include "calib/stream.h"

typedef struct qz_layer_stats {
    qz_stats *input;    /* [inputs] */
    qz_stats *kv;       /* [2] of keys after rope and of values; NULL: not gathered */
    const bool *wanted; /* [inputs] those to be added to; NULL: all */
} qz_layer_stats;

/* Runs the layer with its present weights up to the input of its last linear and adds to the statistics of each input.
 * With `move_on` the last linear is run too and the stream becomes the layer's output, else it stays as it is. `peak`
 * is raised to the largest |activation| seen. Non-finite activations are QZ_NUMERIC naming layer and token. */
QZ_NODISCARD qz_status qz_gather(const qz_layer_stats *stats, float *peak, const qz_stream *s, const qz_layer *layer,
                                 bool move_on, qz_progress *progress, qz_arena *scratch);
/* Mirrors the Gram matrices and checks that everything is finite. */
QZ_NODISCARD qz_status qz_gather_finish(const qz_layer_stats *stats, float *peak, const qz_model *m,
                                        const qz_layer *layer, qz_arena *scratch);
/* Runs the layer and replaces the stream by its output; raises `peak` in the same way. */
QZ_NODISCARD qz_status qz_advance(float *peak, const qz_stream *s, const qz_layer *layer, qz_progress *progress,
                                  qz_arena *scratch);
/* QZ_NUMERIC naming layer, window, token and channel when x (T, K), of batch i, is not finite; `what` it is. */
QZ_NODISCARD qz_status qz_gather_check(const qz_stream *s, int64_t batch, const qz_layer *layer, const char *what,
                                       const qz_tensor *x);
/* Raises *peak to the largest of |x|. */
QZ_NODISCARD qz_status qz_gather_peak(float *peak, const qz_tensor *x, qz_arena *scratch);
/* Adds the final norm of the stream, which is the last layer's output: what the output head reads; finished. */
QZ_NODISCARD qz_status qz_gather_head(qz_stats *stats, const qz_stream *s, qz_progress *progress, qz_arena *scratch);
/* Bytes of scratch that each takes at most. */
uint64_t qz_gather_bytes(const qz_model *m, int64_t length);

#endif
