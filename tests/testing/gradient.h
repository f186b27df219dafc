/* Gradients against differences: what an operation says its gradient is, in fp32, beside the fourth-order central
 * difference (Fornberg 1988, table 1) of a plain function in double that the test writes down itself. */
#ifndef QZ_TESTING_GRADIENT_H
#define QZ_TESTING_GRADIENT_H

#include <math.h>
#include <stdint.h>

#include "testing/testing.h"
#include "testing/tolerances.h"

/* A number that depends on doubles which `context` leads to. */
typedef double gradient_function(const void *context);

/* d f / d *x, *x being one of those doubles; its value is restored. Step h: error of the order h^4, and of 1e-16 f / h
 * from rounding. */
static inline double gradient_difference(gradient_function *f, const void *context, double *x, double h)
{
    static const double at[4] = {-2, -1, 1, 2}, weight[4] = {1, -8, 8, -1};
    const double middle = *x;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *x = middle + at[i] * h;
        sum += weight[i] * f(context);
    }
    *x = middle;
    return sum / (12 * h);
}

/* Elements that are compared at most; of more, every n-th is. */
enum { GRADIENT_CAP = 64 };

/* got (count), the gradient of x (count), is within TOL_GRADIENT of the largest difference. `name` says of what. */
static inline void gradient_check(const char *name, gradient_function *f, const void *context, double *x,
                                  const float *got, int64_t count)
{
    const int64_t each = count < GRADIENT_CAP ? 1 : (count + GRADIENT_CAP - 1) / GRADIENT_CAP;
    double want[GRADIENT_CAP], largest = 0, worst = 0;
    for (int64_t i = 0; i < count; i += each) {
        want[i / each] = gradient_difference(f, context, x + i, 1e-3);
        largest = fmax(largest, fabs(want[i / each]));
    }
    cr_assert(largest > 0, "%s: no element has a gradient", name);
    for (int64_t i = 0; i < count; i += each) {
        const double error = fabs((double)got[i] - want[i / each]);
        cr_assert(error <= TOL_GRADIENT * largest, "%s, element %lld: gradient %.9g, difference %.9g (largest %.3g)",
                  name, (long long)i, got[i], want[i / each], largest);
        worst = fmax(worst, error);
    }
    cr_log_info("%s: %.3g of the largest", name, worst / largest);
}

#endif
