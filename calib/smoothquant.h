/* SmoothQuant's factors and how good one is. Private to calib/. */
#ifndef QZ_CALIB_SMOOTHQUANT_H
#define QZ_CALIB_SMOOTHQUANT_H

#include "calib/calib.h"

/* Xiao et al. 2023, eq. 4: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha); both maxima at least 1e-5, and 1 for a channel
 * that never fired. */
void qz_smoothquant_scales(float *s, const float *absmax_x, const float *absmax_w, int64_t k, double alpha);

/* The linears of one input as a search sees them: all that is quantized, and how. */
typedef struct qz_smoothing_linear {
    qz_tensor weight; /* (N, K) */
    qz_scheme scheme;
} qz_smoothing_linear;

typedef struct qz_smoothing {
    const qz_backend *backend;
    const qz_stats *stats;
    const qz_smoothing_linear *linear;
    int linears;
    qz_act_scheme activation;
    /* filled by qz_smoothing_begin */
    int64_t tokens;       /* the first of the sampled rows */
    float *const *plain;  /* [linears] their outputs (tokens, sampled outputs), nothing rounded */
    const double *energy; /* (tokens) */
} qz_smoothing;

/* What all factors are compared with; it lives in `arena`. `activation` may be changed afterwards. */
QZ_NODISCARD qz_status qz_smoothing_begin(qz_smoothing *s, qz_arena *arena);

/* Error of the outputs when x / s and W s are rounded by their schemes (the weights' ranges by minmax; a static scale
 * by the better of minmax and mse), on sampled tokens and outputs: the larger of the
 * error's share of the outputs' energy, and the mean of that share over tokens. `scale` NULL: 1. */
QZ_NODISCARD qz_status qz_smoothing_error(double *error, const qz_smoothing *s, const float *scale, qz_arena *scratch);

#endif
