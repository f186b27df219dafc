/* The learning rate of each step: a linear rise to the peak, then a fall to a share of it.
 *
 * Steps count from 1. The rise takes `warmup` of all steps, at least one: step s of W has s / W of the peak, so no step
 * is without effect and step W has the peak. From there to the last step, which has final_rate of the peak:
 *   cosine    Loshchilov and Hutter 2017 (SGDR), eq. 5, one cycle
 *   linear    a straight line
 *   constant  no fall; final_rate is not looked at
 * A pure function of the step: nothing has to be kept for a resumed run. */
#ifndef QZ_TRAIN_SCHEDULE_H
#define QZ_TRAIN_SCHEDULE_H

#include "recipes/recipes.h"

typedef struct qz_schedule {
    qz_train_schedule shape;
    double peak;       /* the learning rate at its largest */
    double warmup;     /* share of the steps, 0 to 1 */
    double final_rate; /* share of the peak at the last step */
    int64_t steps;     /* of the whole run, at least 1 */
} qz_schedule;

/* What a recipe asks for; its scales have a factor on this rate (optimizer.h). */
qz_schedule qz_schedule_of(const qz_recipe_train *train);
/* Steps of the rise. */
int64_t qz_schedule_warmup(const qz_schedule *s);
/* `step` in [1, steps]. */
double qz_schedule_rate(const qz_schedule *s, int64_t step);

#endif
