/* How much a linear's output changes, on the sampled token rows. Private to calib/. */
#ifndef QZ_CALIB_LAYER_ERROR_H
#define QZ_CALIB_LAYER_ERROR_H

#include "quant/quant.h"

/* |X Q^T - X W^T|^2 / |X W^T|^2 over the reservoir X; 0 when there is none. `weight` (N, K) is left as it was. */
QZ_NODISCARD qz_status qz_layer_error(double *error, const qz_backend *backend, const qz_tensor *weight,
                                      const qz_qtensor *q, const qz_stats *stats, qz_arena *scratch);

#endif
