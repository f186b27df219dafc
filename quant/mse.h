/* Parts of the range mse: how a scale (and zero) is improved while the codes stay. */
#ifndef QZ_QUANT_MSE_H
#define QZ_QUANT_MSE_H

#include "numeric/piece.h"
#include "quant/quant.h"

typedef struct qz_mse_options {
    int steps;     /* shrinks that are tried */
    double shrink; /* what the last of them takes off */
    int rounds;    /* of scale, then codes, from the best of these */
} qz_mse_options;

/* Sums over a piece, products in the Gram matrix of its inputs: <a, b> = a^T G b with t = value / scale, o = 1. */
typedef struct qz_mse_sums {
    double tt, tw, to, oo, ow;
} qz_mse_sums;

/* Scale and zero of `piece` for the shrink `step`; [lo, hi] are the extremes of its weights. */
void qz_mse_shrunk(qz_qtensor *q, int64_t piece, const qz_mse_options *o, float lo, float hi, int step);
/* The scale, and for asymmetric integers the zero, that lose least with the codes that gave the sums. */
void qz_mse_refit(qz_qtensor *q, int64_t piece, const qz_mse_sums *s);

/* Errors weighted by stats->diagonal, or else by diag(G); any pieces. */
QZ_NODISCARD qz_status qz_mse_choose_diagonal(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight,
                                              const qz_stats *stats, const qz_mse_options *o, qz_arena *arena);

#endif
