/* The best approximation of a matrix by one of low rank. Private to train/. */
#ifndef QZ_TRAIN_LOW_RANK_H
#define QZ_TRAIN_LOW_RANK_H

#include "kernels/kernels.h"

/* b (N, R), a (R, K): factor b a is the sum of the R largest components of m (N, K), each with the root of its singular
 * value on either side. Components that m does not have leave b's column 0 and a's row as it is. */
QZ_NODISCARD qz_status qz_low_rank(const qz_backend *be, const qz_tensor *m, const qz_tensor *b, const qz_tensor *a,
                                   double factor, qz_arena *scratch);

#endif
