/* The static scale (and zero) of one linear input, from its statistics. Private to calib/.
 *
 * An observer proposes a range; with "auto" every observer does, and the one is taken under which the linears that read
 * the input compute best. One scale serves all of them: servers run q, k and v as one, and gate and up. */
#ifndef QZ_CALIB_ACTIVATION_SCALE_H
#define QZ_CALIB_ACTIVATION_SCALE_H

#include "calib/calib.h"

/* A linear that reads the input. */
typedef struct qz_activation_reader {
    const char *module;
    qz_tensor weight;            /* (N, K) F32, not rounded */
    const qz_qtensor *quantized; /* what it will compute with; NULL: `weight` */
} qz_activation_reader;

typedef struct qz_activation_args {
    const qz_backend *backend;
    const qz_stats *stats; /* with a histogram, or rows where a transform rescaled it */
    qz_act_scheme scheme;  /* mode QZ_ACT_TENSOR */
    int observer;          /* in qz_observers(); -1: auto */
    qz_options options;    /* of that observer */
    const qz_activation_reader *reader;
    int readers;
    qz_report *report; /* NULL: nothing is reported */
} qz_activation_args;

typedef struct qz_activation_choice {
    qz_act_values values;
    int observer;         /* that was taken */
    double error;         /* see activation_scale.c; 0 without rows */
    double dynamic_error; /* the same with a scale for each token */
    double clipped, clipped_energy;
    bool needs_dynamic; /* one scale cannot hold this input: a dynamic override is proposed */
} qz_activation_choice;

QZ_NODISCARD qz_status qz_activation_scale(qz_activation_choice *out, const qz_activation_args *args,
                                           qz_arena *scratch);
/* Is a static scale with that error to be given up, when a scale for each token has the other? */
bool qz_activation_needs_dynamic(double error, double dynamic_error);
/* Notes in the report that a module's input asks for a dynamic override. */
void qz_activation_report_need(qz_report *report, const char *module);
/* One note with the overrides that the inputs above ask for, as recipe text; nothing when there is none. To be called
 * once, when all inputs have been reported. */
QZ_NODISCARD qz_status qz_activation_propose(qz_report *report, qz_arena *scratch);

/* The distribution of the input as it is now; its counts come from `arena`. QZ_ARG when the statistics keep neither a
 * histogram nor rows. */
QZ_NODISCARD qz_status qz_activation_distribution(qz_distribution *out, const qz_stats *stats,
                                                  const qz_backend *backend, qz_arena *arena);

/* Errors of several ways to round one input, on the rows that the statistics keep (at most 512): for way w and row t
 * the squared error of all readers' outputs, error[w * rows + t], against energy[t], that of the plain outputs. A mode
 * of QZ_ACT_NONE leaves the input as it is. */
typedef struct qz_activation_way {
    qz_act_scheme scheme;
    qz_act_values values;
} qz_activation_way;

int64_t qz_activation_rows(const qz_stats *stats);
QZ_NODISCARD qz_status qz_activation_errors(double *error, double *energy, const qz_activation_way *way, int ways,
                                            const qz_activation_args *args, qz_arena *scratch);
/* sums[t] += |a_t - b_t|^2 for the rows of two (rows, cols) matrices; b NULL: |a_t|^2. */
void qz_add_squares(double *sums, const float *a, const float *b, int64_t rows, int64_t cols);
/* mean over the rows of error[t] / energy[t]. */
double qz_activation_mean_share(const double *error, const double *energy, int64_t rows);

#endif
