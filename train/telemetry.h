/* What happens during training -> FOLDER/log.jsonl, one JSON object a line, and the text of the live line.
 *
 *   {"kind":"step","step":12,"loss":3.41,...}            after each step
 *   {"kind":"layer","step":12,"layer":"model.layers.3.mlp.up_proj","flipped":0.004,...}       of rounded weights
 *   {"kind":"evaluation","step":200,"loss":3.3,"perplexity":27.1,"best":true}
 *
 * Numbers have the digits that give the same double back. Lines of a step are written before its state is saved: a run
 * that goes on from the state of step s keeps the lines up to s and writes the later ones again, so none is lost or
 * doubled. */
#ifndef QZ_TRAIN_TELEMETRY_H
#define QZ_TRAIN_TELEMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QZ_TELEMETRY_NAME "log.jsonl"

typedef struct qz_telemetry qz_telemetry;

typedef struct qz_step_figures {
    int64_t step;
    double loss, cross_entropy, divergence; /* means over tokens, in nats; NaN: that part is not used, left out */
    double gradient_norm, learning_rate;
    int64_t tokens;                    /* that counted in this step's loss */
    double tokens_per_second, seconds; /* of this step */
    uint64_t memory_bytes;
} qz_step_figures;

/* Of the rounded weights of one linear; shares are 0 to 1. */
typedef struct qz_layer_figures {
    int64_t step;
    const char *layer;  /* the linear's name */
    double flipped;     /* share of codes that are others than in the step before */
    double oscillation; /* mean frequency of changes of a code against the direction of its last change: a moving
                         * average with weight 0.01 (Nagel et al. 2022) */
    double scale_drift; /* mean of abs(s / s at the start - 1) */
    double saturation;  /* share of weights beyond the grid */
    double frozen;      /* share of weights that do not change any more */
} qz_layer_figures;

typedef struct qz_evaluation_figures {
    int64_t step;
    double loss, perplexity;
    bool best; /* of all so far */
    double seconds;
} qz_evaluation_figures;

/* Of the log in `folder` the lines up to `step` are kept; 0: a new log. A log that ends before `step` is told by
 * qz_warn. Without `times` what a clock or the machine decides (tokens_per_second, seconds, memory_bytes) is left out,
 * for comparisons byte by byte. */
QZ_NODISCARD qz_status qz_telemetry_open(qz_telemetry **out, const char *folder, int64_t step, bool times);
QZ_NODISCARD qz_status qz_telemetry_step(qz_telemetry *t, const qz_step_figures *f);
QZ_NODISCARD qz_status qz_telemetry_layer(qz_telemetry *t, const qz_layer_figures *f);
QZ_NODISCARD qz_status qz_telemetry_evaluation(qz_telemetry *t, const qz_evaluation_figures *f);
/* What was written is on the disk: before a state is saved. */
QZ_NODISCARD qz_status qz_telemetry_sync(qz_telemetry *t);
void qz_telemetry_close(qz_telemetry *t); /* NULL allowed */

/* "loss 3.412, 12.3k tokens/s, |g| 0.91, rate 2.9e-04": the item of a progress bar. The result is `out`. */
const char *qz_telemetry_text(char *out, size_t size, const qz_step_figures *f);

#endif
