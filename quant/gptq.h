/* Parts of the solver gptq. With V the order in which columns are visited and H = G[V, V] + damping,
 *
 *     H = R R^T, R upper triangular          gptq_factor.c; kept as l_kj = R_jk / R_kk (unit lower) and R_kk^2
 *     d H d^T = sum_k R_kk^2 (d_k + sum_{j<k} d_j l_kj)^2
 *
 * so that column k, when those before it are rounded with errors d_j = w_j - q_j, loses least at the code nearest to
 * w_k + sum_{j<k} d_j l_kj: the update of Frantar et al. 2022 (eq. 3) without any inverse. */
#ifndef QZ_QUANT_GPTQ_H
#define QZ_QUANT_GPTQ_H

#include "quant/quant.h"

typedef enum qz_gptq_order { QZ_GPTQ_NATURAL, QZ_GPTQ_STATIC, QZ_GPTQ_GAR, QZ_GPTQ_DESC } qz_gptq_order;

/* What all linears of one input share. */
typedef struct qz_gptq_factor {
    struct qz_gptq_factor *next;
    const qz_stats *stats; /* these three are the key */
    qz_gptq_order order;
    int64_t group;
    int32_t *visit; /* (K) V */
    float *l;       /* (K, K) diagonal 1, above it 0 */
    double *weight; /* (K) R_kk^2 of visited columns; 0 for a dead channel */
    float *cost;    /* (K) the same by channel: what rounding it costs, which is what ranges are to weigh by */
    double damping; /* rung of the ladder */
    double added;   /* damping times the mean of the diagonal, over channels that fired */
    int64_t dead;
} qz_gptq_factor;

/* The order; `group` counts for QZ_GPTQ_GAR alone. */
QZ_NODISCARD qz_status qz_gptq_visit(int32_t *visit, const qz_stats *stats, qz_gptq_order order, int64_t group,
                                     qz_arena *scratch);
/* Bytes that one takes: the lower triangle in FP64, in whose memory the FP32 factor is kept. */
uint64_t qz_gptq_factor_bytes(int64_t k);
/* From `shared` if it is there, else made in the shared arena or `arena`. *out is NULL when every rung failed. */
QZ_NODISCARD qz_status qz_gptq_factor_get(const qz_gptq_factor **out, const qz_solve_args *args, qz_gptq_order order,
                                          int64_t group, qz_arena *arena);
/* "0.01, 0.03, 0.1, 0.3, 1" */
const char *qz_gptq_ladder(void);

/* One call of round_columns: visited columns [first, last). */
typedef struct qz_gptq_step {
    int64_t first, last;
    int64_t panel_end; /* > 0: a panel begins here, whose columns get the errors of all columns before in one product */
    int64_t group_end; /* > 0: a group begins here, whose scales are to be chosen from the updated columns */
} qz_gptq_step;

typedef struct qz_gptq_plan {
    const qz_solve_args *args;
    const qz_gptq_factor *factor;
    qz_qtensor *out;
    const qz_qtensor *plain; /* scales and zeros of rounding: those of `out`, or others when these are refreshed */
    bool refresh;            /* scales are chosen again as a group begins */
    bool compare;            /* rows that lose more than rounding's keep rounding's */
    int64_t groups;          /* of a row */
    int32_t *group;          /* (K) group of each visited column */
    qz_gptq_step *step;      /* [steps] */
    int64_t steps, panel;    /* columns of the widest panel */
    int64_t rows;            /* of a strip */
} qz_gptq_plan;

/* Workspace of one thread, and what it found. */
typedef struct qz_gptq_strip {
    const qz_gptq_plan *plan;
    int64_t first, rows;    /* of the matrix */
    float *d;               /* (rows, K) w - q in visited order */
    float *other;           /* (rows, K) the same of rounding */
    float *w, *c, *u;       /* (rows, panel) weights, what errors before add to them, columns as updated */
    float *row;             /* (K) */
    float *scales;          /* (groups, rows) */
    uint8_t *zeros;         /* (groups, rows) or NULL */
    uint8_t *codes;         /* (rows, QZ_ROUND_COLUMNS) */
    double *loss, *partial; /* (rows) damped loss of d; of `other` over the columns so far */
    double *exact;          /* (2, rows) */
    int64_t *active;        /* (rows) rows of the strip that still have to be compared */
    qz_stats stats;         /* of one group: its costs */
    float *cost;            /* (panel) */
    int64_t kept;           /* rows that kept rounding's codes, of all strips so far */
} qz_gptq_strip;

/* A matrix inside another. */
static inline qz_tensor qz_gptq_view(float *data, int64_t rows, int64_t cols, int64_t stride)
{
    qz_tensor t = qz_tensor_2d(data, QZ_F32, rows, cols);
    t.stride[0] = stride;
    return t;
}

/* Bytes that one takes at most. */
uint64_t qz_gptq_strip_bytes(int64_t rows, int64_t panel, int64_t groups, int64_t k);
QZ_NODISCARD qz_status qz_gptq_strip_new(qz_gptq_strip *s, const qz_gptq_plan *plan, qz_arena *arena);
/* Codes (and refreshed scales) of the rows [first, first + rows) of the plan's matrix. */
QZ_NODISCARD qz_status qz_gptq_strip_solve(qz_gptq_strip *s, int64_t first, int64_t rows);
/* Rows whose exact loss exceeds rounding's get rounding's codes, scales and zeros. */
QZ_NODISCARD qz_status qz_gptq_strip_compare(qz_gptq_strip *s);

#endif
