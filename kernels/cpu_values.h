/* Values on grids, a run of numbers that share a piece at a time: compiled for several instruction sets, the arithmetic
 * is that of numeric/. */
#ifndef QZ_KERNELS_CPU_VALUES_H
#define QZ_KERNELS_CPU_VALUES_H

#include "kernels/tables.h"

/* The values of the nearest codes of w[count] on the grid of a piece, with `scale` instead of the piece's in the last
 * product: that of double quantization, or 1 for values relative to the scale. out may be w. */
void qz_values_run(float *out, const float *w, int64_t count, const qz_qtensor *q, int64_t piece, float scale);

/* y = x through the codes of an activation's format; y may be x. */
void qz_values_activation(float *y, const float *x, int64_t count, qz_act_values v, qz_format format);
/* The values of x[count] relative to the scale and, for int8, the zero. */
void qz_values_activation_relative(float *out, const float *x, int64_t count, qz_act_values v, qz_format format);

/* Smallest and largest of 0 and the values. */
void qz_values_range(float *lo, float *hi, const float *x, int64_t count);

/* Decides by ratio = w / scale + shift whether a gradient passes: low <= ratio <= high. */
typedef struct qz_gate {
    float scale, shift, low, high;
} qz_gate;

/* That of a piece; the scale of a codebook's piece that is all zero counts as 1. */
qz_gate qz_gate_of(const qz_qtensor *q, int64_t piece, qz_ste rule);
qz_gate qz_gate_of_activation(qz_act_values v, qz_format format, qz_ste rule);

/* Adds to sums[0] the gradient by the scale, with `value` relative to scale and zero, and to sums[1] the dy of values
 * that are outside; `strict` is the gate of QZ_STE_LSQ. */
void qz_values_add_sums(double sums[2], const float *dy, const float *x, const float *value, int64_t count,
                        qz_gate strict);

#endif
