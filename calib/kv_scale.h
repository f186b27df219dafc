/* Scales of the key-value cache, from the statistics of keys after rope and of values. Private to calib/. */
#ifndef QZ_CALIB_KV_SCALE_H
#define QZ_CALIB_KV_SCALE_H

#include "calib/calib.h"

/* What the statistics of keys and values keep: records of HK * D channels without a Gram matrix. */
qz_stats_wants qz_kv_wants(void);
/* Adds x (T, HK, D), as the taps QZ_POINT_KEY and QZ_POINT_VALUE show it. */
QZ_NODISCARD qz_status qz_kv_add(qz_stats *s, const qz_backend *backend, const qz_tensor *x);

typedef struct qz_kv_args {
    const qz_backend *backend;
    qz_kv_scheme scheme;
    int observer;       /* in qz_observers(); -1: the one with the least rounding error */
    qz_options options; /* of that observer */
    const char *module; /* "model.layers.0.self_attn" */
    const qz_stats *key, *value;
    int64_t kv_heads;
    qz_report *report; /* NULL: nothing is reported */
} qz_kv_args;

/* key, value (HK): amax / 448 (e4m3), / 57344 (e5m2) or / 127 (int8) of each head, or the same for all. A head that was
 * always zero gets 1, and a note says so. */
QZ_NODISCARD qz_status qz_kv_scales(float *key, float *value, const qz_kv_args *args, qz_arena *scratch);

#endif
