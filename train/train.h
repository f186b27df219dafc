/* `qat train`: a recipe's `train` object, a model and a text -> a trained student.
 *
 *     loader -> batch -> student on a tape (rounded weights, adapters) -> loss (and teacher) -> gradients
 *            -> clip -> AdamW -> state file, log, now and then an evaluation
 *
 *     qz_trained *t;
 *     QZ_TRY(qz_train_run(&t, &args));
 *     ... qz_trained_student(t) is exported by the program ...
 *     qz_trained_free(t);
 *
 * Everything that a step depends on is in the state file, so that N steps are k steps, an end of any kind, and N - k
 * steps more, bit for bit, with any number of threads. */
#ifndef QZ_TRAIN_TRAIN_H
#define QZ_TRAIN_TRAIN_H

#include "base/progress.h"
#include "base/report.h"
#include "data/data.h"
#include "recipes/recipes.h"
#include "train/step.h"

/* Steps between the figures of layers in the log (telemetry.h); the last step has them too. */
enum { QZ_TRAIN_LAYERS_EVERY = 10 };

/* A text that training is judged by while it runs. */
typedef struct qz_train_text {
    qz_step_batch batch;
    char hash[QZ_HASH_TEXT];
} qz_train_text;

typedef struct qz_train_args {
    const qz_recipe *recipe;
    const qz_model *model;      /* the student starts from it */
    const qz_model *teacher;    /* NULL: none */
    const qz_export_plan *plan; /* what is rounded, as it will be stored; NULL: nothing */
    qz_loader *loader;
    const qz_train_text *judged;           /* NULL: none */
    const char *folder;                    /* of states and log; exists */
    const char *model_hash, *teacher_hash; /* NULL: not known */
    /* What the student begins with may be changed, before the first step or a resumed state; NULL: nothing is. */
    qz_status (*begin)(void *context, qz_student *s);
    void *context;
    bool resume;        /* go on from the newest state, if there is one */
    bool times;         /* the log says what a clock says */
    int64_t stop_after; /* for tests: leave after so many steps; 0: do not */
    qz_progress *progress;
} qz_train_args;

typedef struct qz_train_plan_row {
    const char *tier;
    uint64_t bytes;
} qz_train_plan_row;

typedef struct qz_train_plan {
    qz_train_plan_row memory[8];
    int rows;
    uint64_t memory_bytes, memory_available;
    uint64_t state_bytes; /* of one state file */
    int64_t states;       /* that are there at once, one of them being written */
    int64_t tokens;       /* of all steps */
    double flops;         /* of all steps and evaluations while training */
    double seconds;       /* an estimate, from the rate of sgemm given; 0: not known */
    int64_t parameters;   /* numbers that are trained */
} qz_train_plan;

/* Exact: every shape of a step is walked through without data. Of the data nothing is looked at. QZ_MEMORY when
 * the machine cannot hold it, saying what to change; the plan is filled in all the same. */
QZ_NODISCARD qz_status qz_train_plan_make(qz_train_plan *out, const qz_train_args *args, double gflops);

typedef struct qz_train_result {
    int64_t steps, resumed_from;       /* done; the state that the run went on from, 0: none */
    int64_t tokens;                    /* that counted in the loss */
    int64_t tokens_of_run;             /* of these, since the state that it went on from */
    double seconds, tokens_per_second; /* of this run */
    double loss;                       /* of the last step */
    double first_perplexity;           /* before the first step; NaN, as the next two: no evaluation */
    double last_perplexity, best_perplexity;
    int64_t best_step;
    bool stopped_early;
    uint64_t memory_bytes; /* peak of what the plan counts */
} qz_train_result;

typedef struct qz_trained qz_trained;

/* A loss or gradient that is not finite is QZ_NUMERIC naming the step and the parameter; the state before stays. */
QZ_NODISCARD qz_status qz_train_run(qz_trained **out, const qz_train_args *args);
void qz_trained_free(qz_trained *t);
qz_student *qz_trained_student(qz_trained *t);
const qz_train_result *qz_trained_result(const qz_trained *t);

/* ---- without training, for merging an adapter (train_student.c) ---- */

/* The student that training would begin with; of `args` recipe, model and plan count. `arena` must outlive it. */
QZ_NODISCARD qz_status qz_train_student(qz_student **out, const qz_train_args *args, qz_arena *arena);
/* Its mean cross entropy in nats on windows, as perplexity takes them. A phase of `progress`. */
QZ_NODISCARD qz_status qz_train_judge(double *loss, qz_student *s, const qz_windows *w, qz_progress *progress);

#endif
