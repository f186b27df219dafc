/* The statistics of one layer, from running it over the text or from a file. Private to calib/. */
#ifndef QZ_CALIB_LOOK_H
#define QZ_CALIB_LOOK_H

#include "calib/gather.h"

typedef struct qz_look_args {
    const qz_calib_args *run;
    const qz_recipe *recipe;
    qz_stats_wants wants; /* of linear inputs */
    bool kv;              /* keys and values too */
    const qz_stream *stream;
    bool move_on; /* the stream becomes the layer's output */
    qz_arena *arena, *scratch;
} qz_look_args;

/* `out` comes from args->arena; statistics are finished (qz_stats_finish). An expert that got fewer tokens than the
 * recipe's expert_tokens is looked at again with all tokens of the layer, as though it were sent each. */
QZ_NODISCARD qz_status qz_look(qz_layer_stats *out, float *peak, const qz_look_args *args, const qz_layer *layer);

/* The same of the output head's input, once the stream is the last layer's output. */
QZ_NODISCARD qz_status qz_look_head(qz_stats *out, const qz_look_args *args);
/* A statistics file is to have it: the model has a head of its own, and the recipe does not leave it out. */
bool qz_look_keeps_head(const qz_recipe *recipe, const qz_model *m);

#endif
