/* One matrix at a time: ranges, solvers, the scale search. Knows no model.
 *
 *     weight (N, K) + statistics + scheme  --range-->  scales, zeros  --solver-->  qz_qtensor
 *
 *     const qz_solver *rtn; const qz_range *clip;
 *     qz_solve_args args = {.backend = be, .weight = w, .stats = &stats, .scheme = scheme, .range = clip, ...};
 *     QZ_TRY(rtn->solve(&q, &info, &args, layer_arena));
 */
#ifndef QZ_QUANT_QUANT_H
#define QZ_QUANT_QUANT_H

#include "base/plugin.h"
#include "numeric/tensor.h"
#include "quant/stats.h"

/* What a method needs of the statistics, as flags. */
enum {
    QZ_NEED_NOTHING = 0,
    QZ_NEED_GRAM = 1,
    QZ_NEED_ABSMAX = 2,
    QZ_NEED_ABSMEAN = 4,
    QZ_NEED_RESERVOIR = 8,
    QZ_NEED_HISTOGRAM = 16
};

/* ---- ranges: scale and zero of each piece (ranges.def) ---- */

typedef struct qz_range {
    qz_plugin plugin;
    unsigned needs;
    /* What takes its place for linears whose outputs meet in a product (q and k); NULL: itself. */
    const struct qz_range *for_products;
    /* Fills out->scales and out->zeros (allocated) for weight (N, K). stats may be NULL when `needs` is 0; a range that
     * reads it honours stats->divisor and stats->diagonal. */
    qz_status (*choose)(qz_qtensor *out, const qz_backend *backend, const qz_tensor *weight, const qz_stats *stats,
                        const qz_options *options);
} qz_range;

const qz_plugins *qz_ranges(void);
const qz_range *qz_range_at(size_t i);

/* ---- solvers: the codes (solvers.def) ---- */

/* What solvers of linears with one input may keep between calls (the factor of the Gram matrix). Zeroed by the caller
 * before the first; everything in it comes from `arena`, which the caller empties when the input or its statistics
 * change. */
typedef struct qz_solve_shared {
    qz_arena *arena;
    void *kept; /* the solver's own */
} qz_solve_shared;

typedef struct qz_solve_args {
    const qz_backend *backend;
    qz_tensor weight; /* (N, K) F32; not changed */
    const qz_stats *stats;
    qz_scheme scheme;
    const qz_range *range;
    qz_options range_options, solver_options;
    const qz_qtensor *given; /* its scales and zeros are to be used (sets that share one); NULL: the range chooses */
    bool may_fall_back;      /* recipe: "on_failure": "rtn" */
    qz_solve_shared *shared; /* NULL: nothing is kept */
} qz_solve_args;

/* What happened, for the report. */
typedef struct qz_solve_info {
    double damping;        /* rung of the ladder that was taken; 0: none was needed */
    int64_t dead_channels; /* inputs that never fired */
    int64_t rows_kept;     /* rows that kept the codes of rounding because these lose less */
    bool fell_back;        /* rounding took the solver's place, as the recipe allows */
} qz_solve_info;

typedef struct qz_solver {
    qz_plugin plugin;
    unsigned needs;
    /* The codes and scales come from `arena`, workspace too; `info` is filled in. */
    qz_status (*solve)(qz_qtensor *out, qz_solve_info *info, const qz_solve_args *args, qz_arena *arena);
    uint64_t (*factor_bytes)(int64_t k); /* at most, of what it makes once for an input of K channels; NULL: nothing */
    uint64_t (*work_bytes)(const qz_scheme *scheme,
                           int64_t k); /* at most, of a thread's workspace; NULL: next to none */
} qz_solver;

/* Scales and zeros of `q` (allocated): the given ones, or those that the range chooses for `weight`. */
QZ_NODISCARD qz_status qz_solve_scales(qz_qtensor *q, const qz_solve_args *args);

const qz_plugins *qz_solvers(void);
const qz_solver *qz_solver_at(size_t i);

/* Codes of round to nearest for the scales and zeros that are in `q`: the solver `rtn`, and the trial of every search.
 */
void qz_round_to_nearest(qz_qtensor *q, const qz_tensor *weight /* (N, K) */);

/* tr((W - Q) G (W - Q)^T) and tr(W G W^T), exact over all rows; `q` NULL: loss of rounding nothing (0). */
QZ_NODISCARD qz_status qz_output_loss(double *loss, double *energy, const qz_backend *backend, const qz_tensor *weight,
                                      const qz_qtensor *q, const qz_stats *stats, qz_arena *scratch);

/* ---- observers: one range for all values of an activation (observers.def) ---- */

/* How the values of a tensor are distributed. */
typedef struct qz_distribution {
    float low, high;           /* extremes, 0 included */
    const uint64_t *histogram; /* [QZ_HISTOGRAM_BINS]; NULL: use the sample */
    const float *sample;       /* (count) values; NULL when there is a histogram */
    int64_t count;
} qz_distribution;

typedef struct qz_observer {
    qz_plugin plugin;
    /* The interval that the codes shall cover, *lo <= 0 <= *hi; for symmetric schemes the larger side counts. */
    qz_status (*finish)(float *lo, float *hi, const qz_distribution *d, const qz_act_scheme *scheme,
                        const qz_options *options);
} qz_observer;

/* sum (x - round(x))^2 / sum x^2 for that scale and zero; 0 when all x are 0. */
double qz_distribution_error_share(const qz_distribution *d, const qz_act_scheme *scheme, qz_act_values v);
/* What a range cuts off: the share of the values beyond it, and their share of the sum of squares. */
void qz_distribution_clipped(double *share, double *energy_share, const qz_distribution *d, float lo, float hi);

const qz_plugins *qz_observers(void);
const qz_observer *qz_observer_at(size_t i);

/* ---- AWQ's scale search in Gram form (scale_search.c) ---- */

/* Lin et al. 2023, eq. 4-5: the s (K) that minimizes sum over the weights of |Q(W s) (x / s) - W x|^2, that is
 * tr(D G D^T) with D = Q(W s) / s - W; s = mean|x|^r (and, with weight_means, mean|x|^r / wm^(1-r)), r on a grid,
 * normalized by sqrt(max min). Candidates are compared with the range minmax, on a seeded subset of rows and a sketch
 * of G where the problem is large; then the winner and s = 1 are scored exactly, on all rows with the ranges that will
 * really be used, and the identity is kept when the winner is not better. */
typedef struct qz_search_weight {
    qz_tensor weight; /* (N, K); the weights of one search share the input */
    const qz_range *range;
    qz_options range_options;
} qz_search_weight;

typedef struct qz_search_args {
    const qz_backend *backend;
    const qz_search_weight *weight; /* [weights] */
    int weights;
    const qz_stats *stats;
    qz_scheme scheme; /* pieces within rows: channel or group */
    int grid;         /* r = i / grid, i = 0 .. grid - 1 */
    bool weight_means;
    int64_t tie_heads, tie_groups, tie_size; /* K = tie_heads * tie_size; channels d of the heads h with equal
                                              * h / (tie_heads / tie_groups) share s; tie_groups 0: all are free */
    uint64_t seed;
} qz_search_args;

typedef struct qz_search_result {
    float *scale;               /* (K), from the caller */
    double loss, identity_loss; /* exact, over all rows */
    double exponent;            /* r of the winner */
    bool used_weight_means, kept_identity;
} qz_search_result;

QZ_NODISCARD qz_status qz_scale_search(qz_search_result *result, const qz_search_args *args, qz_arena *scratch);

#endif
