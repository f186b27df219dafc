/* What of a model's two ends, the output head and the embeddings, a recipe quantizes. Private to calib/. */
#ifndef QZ_CALIB_OUTSIDE_H
#define QZ_CALIB_OUTSIDE_H

#include "calib/calib.h"

typedef struct qz_outside {
    qz_end end;
    const char *module;
    const qz_recipe_weights *weights;
    bool quantized; /* false: it is in the source, and is to be dequantized */
} qz_outside;

/* Those that are quantized, here or in the source, the head first. The head is here, unless the recipe skips it; the
 * embeddings only where an override names them by a pattern that matches no linear, so that "*" means linears. QZ_ARG
 * when the model has one table for both. */
QZ_NODISCARD qz_status qz_outside_find(qz_outside out[QZ_ENDS], int *count, const qz_recipe *recipe,
                                       const qz_model *model);
/* A warning for each pattern of weights.skip and of the overrides that matches no module of the model. */
void qz_outside_warn_unmatched(const qz_recipe *recipe, const qz_model *model);
/* What the embeddings are rounded with: every row is looked up alike, so each weight counts the same. From `arena`. */
QZ_NODISCARD qz_status qz_outside_even(qz_stats *out, int64_t k, qz_arena *arena);
/* The plan's entry of one of the model's ends; NULL: it stays plain. */
const qz_export_linear *qz_outside_planned(const qz_export_plan *plan, const qz_model *model, qz_end end);

#endif
