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
/* Linears that servers fuse must agree in being quantized, in scheme, in how inputs are rounded and in order. */
void qz_reasons_fused(qz_reasons *r, const qz_export_plan *plan);
/* All quantized linears must have the same group: for configs that state one. */
void qz_reasons_one_group(qz_reasons *r, const qz_export_plan *plan);

/* A quantized embedding, which only compressed-tensors' readers take. */
void qz_reasons_embedding(qz_reasons *r, const qz_export_linear *l);
/* Neither inputs nor the cache are rounded: for containers that hold nothing but weights. One reason for each kind. */
void qz_reasons_weights_only(qz_reasons *r, const qz_export_plan *plan);

const qz_export_linear *qz_export_first_quantized(const qz_export_plan *plan); /* NULL: none */
/* The group as configs say it: -1 when it is the whole row and not one of 32, 64 and 128, which readers know. */
int64_t qz_export_group(const qz_export_linear *l);
/* No earlier linear of the plan is served under the same fused name. */
bool qz_export_first_of_set(const qz_export_plan *plan, size_t at);

#endif
