/* What the recipe chose, in the terms of quant/ and calib/. Private to calib/. */
#ifndef QZ_CALIB_CHOICES_H
#define QZ_CALIB_CHOICES_H

#include "calib/calib.h"

/* Of a linear: the last override that matches its name, else the recipe's own. */
const qz_recipe_weights *qz_choice_weights(const qz_recipe *r, const char *module);
/* Range and options for a linear whose first rows have the role. The published AWQ leaves q and k out of the clip
 * search: their outputs meet in a product, where a clipped outlier costs more than the error of either output says. A
 * range says itself what takes its place there. */
qz_search_weight qz_choice_range(const qz_recipe_weights *w, qz_role role);
/* What all methods of the recipe need of the statistics, QZ_NEED_*. */
unsigned qz_choice_needs(const qz_recipe *r);

#endif
