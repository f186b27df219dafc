/* The recipe that an adapter was trained by, as report.json beside it has it. */
#ifndef QZ_PROGRAMS_ADAPTER_ORIGIN_H
#define QZ_PROGRAMS_ADAPTER_ORIGIN_H

#include "recipes/recipes.h"

/* Warns (qz_warn) of each number format that it was trained with and `recipe` does not have: the base that it was
 * fitted to and, where it is merge_aware, what the merged weights, inputs and cache are rounded to. Silent where there
 * is no report of ours: an adapter made elsewhere. */
void qz_adapter_warn_other_grid(const char *folder, const qz_recipe *recipe);

#endif
