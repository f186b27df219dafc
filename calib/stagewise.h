/* One layer in one forward: each input is looked at when the linears before it are quantized already. Private to
 * calib/. */
#ifndef QZ_CALIB_STAGEWISE_H
#define QZ_CALIB_STAGEWISE_H

#include "calib/target.h"

typedef struct qz_stagewise {
    qz_target *target;
    const qz_stream *stream; /* becomes the layer's output, unless it is the last */
    bool last;
    qz_stats_wants wants;
    uint64_t seed;
    void *kept; /* room of qz_stagewise_bytes; its contents do not matter */
    qz_arena *layer, *scratch;
} qz_stagewise;

/* Is this output made so? Cache scales are chosen from the whole layer, the inputs of experts are not kept, and with
 * transforms, which need a look at the layer as it is, it takes a second forward: only a solver that compensates gains
 * from that. */
bool qz_stagewise_fits(const qz_calib_output *output, const qz_model *m);
/* `looked`: statistics of the whole layer for the transforms; NULL when there are none. */
QZ_NODISCARD qz_status qz_stagewise_layer(const qz_stagewise *s, float *peak, qz_layer *layer, qz_stats *looked);
/* Bytes that it keeps beside the stream: what the widest stage leaves for the next, of all samples. */
uint64_t qz_stagewise_bytes(const qz_model *m, int64_t tokens, qz_dtype type);

#endif
