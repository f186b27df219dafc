/* What was evaluated against the limits of the recipe's evaluate.accept: verdict, reasons, and the mark that a
 * checkpoint below them carries.
 *
 *     qz_acceptance a;
 *     qz_accept_judge(&a, recipe, &original, &quantized, &divergence, report);
 *     QZ_TRY(qz_accept_mark(folder, &a));                                    // NOT_ACCEPTED, when it is not
 *     qz_accept_print(err, "qcal: ", &a);
 *
 * A checkpoint that is not accepted stays whole. Its mark is the file NOT_ACCEPTED, which says why, and "accepted":
 * false in report.json. */
#ifndef QZ_PROGRAMS_ACCEPTANCE_H
#define QZ_PROGRAMS_ACCEPTANCE_H

#include <stdbool.h>
#include <stdio.h>

#include "base/json.h"
#include "base/report.h"
#include "eval/eval.h"
#include "recipes/recipes.h"

typedef enum qz_verdict { QZ_NOT_JUDGED, QZ_ACCEPTED, QZ_NOT_ACCEPTED } qz_verdict;

typedef enum qz_accept_figure {
    QZ_ACCEPT_PERPLEXITY, /* ratio to the original's */
    QZ_ACCEPT_KL,         /* mean, in nats */
    QZ_ACCEPT_TOP1,
    QZ_ACCEPT_LAYER, /* the largest relative output error of a linear */
    QZ_ACCEPT_FIGURES
} qz_accept_figure;

enum { QZ_ACCEPT_WORST = 5 };

typedef struct qz_accept_limit {
    bool asked, known, met;
    double found, limit;
} qz_accept_limit;

typedef struct qz_acceptance {
    qz_verdict verdict;
    qz_accept_limit figure[QZ_ACCEPT_FIGURES];
    struct {
        const char *module; /* of the report's strings */
        double error;
    } worst[QZ_ACCEPT_WORST]; /* largest first */
    int worst_count;
} qz_acceptance;

/* `quantized` NULL: nothing was evaluated; `divergence` NULL: that was not. A figure that is asked for and not known is
 * not met. Layer errors are the report's rows ("linear", module, "relative_output_error"). */
void qz_accept_judge(qz_acceptance *out, const qz_recipe *recipe, const qz_perplexity *original,
                     const qz_perplexity *quantized, const qz_divergence *divergence, const qz_report *report);

/* A sentence for each limit that is not met, and one with the worst layers; nothing when all are. */
void qz_accept_print(FILE *out, const char *prefix, const qz_acceptance *a);
/* Writes the sentences into `folder`/NOT_ACCEPTED when it is not accepted. */
QZ_NODISCARD qz_status qz_accept_mark(const char *folder, const qz_acceptance *a);
/* "" when the figure was not asked for, else ", accepted (limit 1.02)". */
const char *qz_accept_note(char out[64], const qz_acceptance *a, qz_accept_figure figure);
/* "accepted": true, false or null; and "acceptance" with every limit and the worst layers. */
void qz_accept_put(qz_json_writer *w, const qz_acceptance *a);

#endif
