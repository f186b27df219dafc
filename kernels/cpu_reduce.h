/* Sums and maxima of a row in lanes: the order is fixed by the length alone, so every instruction set gives one result.
 * Nothing outside kernels/cpu_*.c includes this. */
#ifndef QZ_KERNELS_CPU_REDUCE_H
#define QZ_KERNELS_CPU_REDUCE_H

#include <stdint.h>

float qz_reduce_max(const float *x, int64_t count);
/* In double. */
double qz_reduce_sum(const float *x, int64_t count);
double qz_reduce_squares(const float *x, int64_t count);
/* sum of a[i] (w[i] + offset) b[i] in double, the weight in fp32 */
double qz_reduce_weighted(const float *a, const float *w, float offset, const float *b, int64_t count);
/* sum of exp(x[i] - max), exponentials in fp32, their sum in double */
double qz_reduce_exp(const float *x, int64_t count, float max);

#endif
