/* See schedule.h. */
#include "train/schedule.h"

#include <assert.h>
#include <math.h>

qz_schedule qz_schedule_of(const qz_recipe_train *train)
{
    return (qz_schedule){train->schedule, train->learning_rate, train->warmup, train->final_rate, train->steps};
}

int64_t qz_schedule_warmup(const qz_schedule *s)
{
    const int64_t steps = llround(s->warmup * (double)s->steps);
    return steps < 1 ? 1 : steps > s->steps ? s->steps : steps;
}

/* What is left of the fall at `progress` in [0, 1]: 1 at its begin, 0 at its end. */
static double remaining(qz_train_schedule shape, double progress)
{
    static const double pi = 3.14159265358979323846;
    switch (shape) {
    case QZ_TRAIN_COSINE:
        return 0.5 * (1 + cos(pi * progress));
    case QZ_TRAIN_LINEAR:
        return 1 - progress;
    default:
        return 1;
    }
}

double qz_schedule_rate(const qz_schedule *s, int64_t step)
{
    assert(step >= 1 && step <= s->steps);
    const int64_t rise = qz_schedule_warmup(s);
    if (step <= rise) return s->peak * ((double)step / (double)rise);
    const double progress = (double)(step - rise) / (double)(s->steps - rise);
    return s->peak * (s->final_rate + (1 - s->final_rate) * remaining(s->shape, progress));
}
