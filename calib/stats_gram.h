/* A Gram matrix's lower triangle <-> a dataset of K (K + 1) / 2 numbers, row after row. Private to calib/. */
#ifndef QZ_CALIB_STATS_GRAM_H
#define QZ_CALIB_STATS_GRAM_H

#include "base/arena.h"
#include "base/h5.h"
#include "numeric/tensor.h"

/* Writes the datasets FOLDER/gram and, as F16, FOLDER/gram_diagonal. */
QZ_NODISCARD qz_status qz_stats_gram_write(qz_h5 *h5, const char *folder, const float *gram, int64_t k, qz_dtype type);
/* The lower triangle of gram (K, K); the rest is left as it is. */
QZ_NODISCARD qz_status qz_stats_gram_read(float *gram, qz_h5 *h5, const char *folder, int64_t k, qz_dtype type);

#endif
