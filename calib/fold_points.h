/* Where factors of a linear's input channels can go in a layer: what every transform that scales channels walks over.
 * Private to calib/.
 *
 *     attention norm -> q k v      MLP norm -> gate up      v -> o      up -> down */
#ifndef QZ_CALIB_FOLD_POINTS_H
#define QZ_CALIB_FOLD_POINTS_H

#include "calib/calib.h"

typedef struct qz_fold_point {
    qz_stage stage;
    int norm;         /* of layer->norm, or -1 */
    qz_role producer; /* when norm is -1 */
    int expert;       /* of producer and readers; behind a norm the linears of all experts read, and this is 0 */
} qz_fold_point;

/* Calls `fn` for every point (for v and up only with `linears`), for v -> o and up -> down of every expert; scratch is
 * given back after each. A producer that stays plain is left out: its stored type would round every weight of a row. */
QZ_NODISCARD qz_status qz_fold_each(const qz_transform_args *args, bool linears,
                                    qz_status (*fn)(const qz_transform_args *args, const qz_fold_point *p,
                                                    qz_arena *scratch),
                                    qz_arena *scratch);
/* Does linear number i of the layer read what is scaled there, and is it quantized? */
bool qz_fold_is_reader(const qz_transform_args *args, const qz_fold_point *p, int i);
/* "layer 3 down of expert 5", for the report. */
void qz_fold_name(char out[64], const qz_transform_args *args, const qz_fold_point *p);
/* The statistics of what is scaled, behind a norm those of all experts together; from `arena` where that is a copy. */
QZ_NODISCARD qz_status qz_fold_stats(qz_stats *out, const qz_transform_args *args, const qz_fold_point *p,
                                     qz_arena *arena);
/* Divides the producer by scale (K), multiplies the readers, and re-expresses the statistics. */
void qz_fold_apply(const qz_transform_args *args, const qz_fold_point *p, float *scale);

#endif
