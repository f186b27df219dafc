/* The main job: stream samples through a model, collect statistics, transform, quantize, write.
 *
 * Layer by layer: (1) run the layer as it is on all samples and gather the statistics of its four inputs, (2) fit every
 * transform and fold it into the weights, re-expressing the statistics, (3) choose ranges and codes, hand each linear
 * to the exporter, (4) run the layer with its quantized weights to make the next layer's input. */
#ifndef QZ_CALIB_CALIB_H
#define QZ_CALIB_CALIB_H

#include "base/progress.h"
#include "base/report.h"
#include "calib/stats_file.h"
#include "data/data.h"
#include "models/models.h"
#include "quant/quant.h"
#include "recipes/recipes.h"

/* ---- transforms (transforms.def) ---- */

/* One layer with the statistics of its inputs; fit chooses factors, folds them into the layer's weights and rescales
 * the statistics. */
typedef struct qz_transform_args {
    const qz_model *model;
    qz_layer *layer;
    qz_stats *stats;                /* [inputs] */
    const qz_export_linear *plan;   /* [linears] what becomes of each: quantized, scheme, activation */
    const qz_search_weight *ranges; /* [linears] range and options that each linear will be quantized with */
    qz_dtype plain_type;            /* the type that norms will be stored in */
    const qz_options *options;
    qz_report *report;
    uint64_t seed;
} qz_transform_args;

typedef struct qz_transform {
    qz_plugin plugin;
    unsigned needs; /* QZ_NEED_* */
    qz_status (*apply)(const qz_transform_args *args, qz_arena *scratch);
} qz_transform;

const qz_plugins *qz_transforms(void);
const qz_transform *qz_transform_at(size_t i);

/* ---- the plan ---- */

typedef struct qz_plan_row {
    const char *tier; /* "weights of one layer, fp32" */
    uint64_t bytes;
} qz_plan_row;

typedef struct qz_plan {
    qz_plan_row memory[12];
    int rows;
    uint64_t memory_bytes, memory_available; /* anonymous pages; mapped files aside */
    uint64_t bound_bytes;                    /* largest layer + its statistics + one factor + activations + 200 MB */
    uint64_t disk_bytes, disk_free, source_bytes;
    uint64_t disk_scratch; /* beside disk_bytes, while it runs: the original's last hidden states */
    double seconds;        /* from a measurement of the matrix product */
    double replay_seconds; /* at most, to pass finished layers again when an interrupted run goes on */
    double flops;
    double bits_per_weight;
} qz_plan;

/* ---- the run ---- */

/* Fills the export plan from the model and the recipe; checks groups and the container (can_express). */
QZ_NODISCARD qz_status qz_calib_export_plan(qz_export_plan *out, const qz_recipe *recipe, const qz_model *model,
                                            qz_arena *arena);

/* One checkpoint of the run. */
typedef struct qz_calib_output {
    const qz_recipe *recipe;
    const qz_export_plan *plan;
    const char *folder; /* where the checkpoint is written: exists and is empty, or is resumed */
    qz_report *report;
} qz_calib_output;

typedef struct qz_calib_args {
    const qz_model *model;
    const qz_recipe *recipe;       /* what concerns calibration; NULL: the first output's */
    const qz_windows *windows;     /* NULL or none: nothing needs statistics, or they come from a file */
    const qz_calib_output *output; /* [outputs]; their recipes agree in `calibration`; may be none */
    int outputs;
    qz_stats_file *read;  /* NULL, or where statistics come from: nothing is run then */
    qz_stats_file *write; /* NULL, or where they go */
    qz_report *report;    /* NULL, or what the statistics themselves say, when there is no output */
    bool journal;         /* keep one in each folder, so that an interrupted run can be resumed */
    bool resume;          /* go on after the layers that the journals name */
    qz_progress *progress;
} qz_calib_args;

/* Needs neither windows nor folders. QZ_MEMORY or QZ_IO when the machine cannot hold it, saying what to change; the
 * plan is filled in all the same. */
QZ_NODISCARD qz_status qz_calib_plan(qz_plan *out, const qz_calib_args *args, double gflops);

/* Do the inputs of a layer come from the already quantized layers before it? One output may say so, or leave it to us;
 * several, or statistics from a file, describe the original model. */
bool qz_calib_propagates_quantized(const qz_calib_args *args);

/* Writes every checkpoint whole, then reopens it and compares every code, scale and zero with a fingerprint of what was
 * in memory; a difference is QZ_FORMAT naming the tensor. */
QZ_NODISCARD qz_status qz_calib_run(const qz_calib_args *args);

#endif
