/* What containers have in common when they say why a plan cannot be written: a list of reasons, one a line, and the
 * checks that every serving stack makes. */
#ifndef QZ_CHECKPOINTS_PLAN_CHECK_H
#define QZ_CHECKPOINTS_PLAN_CHECK_H

#include "checkpoints/checkpoints.h"

enum { QZ_REASONS_WIDTHS = 8 };

typedef struct qz_reasons {
    const char *container; /* its name, for the sentences */
    char text[800];
    size_t used, count, dropped;
    int64_t width[QZ_REASONS_WIDTHS]; /* K of the linears whose group was complained of */
    int widths;
} qz_reasons;

void qz_reasons_add(qz_reasons *r, const char *format, ...) QZ_PRINTF(2, 3);
/* QZ_OK when there is none, else QZ_UNSUPPORTED with all that fit. */
QZ_NODISCARD qz_status qz_reasons_status(const qz_reasons *r);

/* K must divide into the groups, and the group be one of `usual` (0-terminated) or the whole row; one reason for each
 * K. */
void qz_reasons_group(qz_reasons *r, const qz_export_linear *l, const int64_t *usual);
/* Linears that servers fuse must agree in being quantized and in scheme. */
void qz_reasons_fused(qz_reasons *r, const qz_export_plan *plan);
/* All quantized linears must have the same group: for configs that state one. */
void qz_reasons_one_group(qz_reasons *r, const qz_export_plan *plan);

const qz_export_linear *qz_export_first_quantized(const qz_export_plan *plan); /* NULL: none */
bool qz_scheme_same(const qz_scheme *a, const qz_scheme *b);

#endif
