/* Training: a recipe and opened models -> states, a log, and what is exported, in a folder. */
#ifndef QZ_TRAIN_TRAIN_H
#define QZ_TRAIN_TRAIN_H

#include "base/progress.h"
#include "base/report.h"
#include "eval/eval.h"
#include "recipes/recipes.h"

typedef struct qz_train_args {
    const qz_recipe *recipe;
    const qz_model *source;        /* the recipe's model: its shape, its side files, "the model before training" */
    const qz_model *model;         /* what training starts from: `source`, or the quantized folder of train.init */
    const qz_model *teacher;       /* NULL: no divergence */
    const qz_tokenizer *tokenizer; /* NULL: the text is token ids */
    const qz_export_plan *plan;    /* which linears are rounded and how, and the checkpoint; none quantized: plain */
    const qz_windows *evaluation;  /* none: nothing is evaluated */
    const char *folder;            /* log.jsonl, state-*.h5, and at the end the checkpoint or the adapter */
    bool resume;
    qz_report *report;     /* NULL for a plan */
    qz_progress *progress; /* NULL for a plan */
} qz_train_args;

typedef struct qz_train_result {
    int64_t steps;   /* done, fewer than asked for after an early stop */
    int64_t resumed; /* of them before this process */
    int64_t best;    /* step of what was exported, where train.keep_best chose it; else 0 */
    int64_t tokens;  /* that were trained on */
    double loss;     /* mean of the last steps */
    double seconds;  /* of the steps of this process */
    bool evaluated;
    qz_perplexity start, trained; /* of the model as it computes in training, before the first step and at the end */
    const char *data_hash;        /* in the arena of the report's owner */
} qz_train_result;

typedef struct qz_train_plan {
    struct {
        const char *what;
        uint64_t bytes;
    } memory[12];
    int rows;
    uint64_t memory_bytes, disk_bytes; /* the largest of the phases; states and checkpoint */
    double flops;                      /* of all steps */
} qz_train_plan;

/* Needs no folder and no data. */
QZ_NODISCARD qz_status qz_train_plan_make(qz_train_plan *out, const qz_train_args *args);
QZ_NODISCARD qz_status qz_train_run(qz_train_result *out, const qz_train_args *args);

typedef struct qz_merge_args {
    const qz_recipe *recipe;
    const qz_model *source;
    const char *adapter; /* folder as PEFT writes it */
    const qz_export_plan *plan;
    const qz_windows *evaluation, *calibration; /* none: not evaluated; nothing needs statistics */
    const char *folder;
    qz_report *report;
    qz_progress *progress;
} qz_merge_args;

/* In nats a token; gain kept = (base - merged) / (base - adapted). */
typedef struct qz_merge_result {
    bool evaluated;
    qz_perplexity base, adapted, merged;
} qz_merge_result;

QZ_NODISCARD qz_status qz_train_merge(qz_merge_result *out, const qz_merge_args *args);

#endif
