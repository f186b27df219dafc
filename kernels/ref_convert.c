/* Conversion and look-up, plainly: numbers of one type -> numbers of another, ids -> rows, and the search for a number
 * that is none. All conversions are those of numeric/. */
#include <math.h>

#include "kernels/tables.h"

static const void *element(const qz_tensor *x, int64_t i)
{
    return (const char *)x->data + i * (qz_dtype_bits(x->dtype) / 8);
}

static qz_status as_float(float *out, const qz_tensor *x, int64_t i)
{
    return qz_convert(out, QZ_F32, element(x, i), x->dtype, 1);
}

qz_status qz_ref_convert(const qz_tensor *y, const qz_tensor *x)
{
    qz_rows from = qz_rows_of(x), to = qz_rows_of(y);
    for (int64_t r = 0; r < from.rows; r++) {
        void *out = (char *)y->data + r * to.stride * (qz_dtype_bits(y->dtype) / 8);
        QZ_TRY(qz_convert(out, y->dtype, element(x, r * from.stride), x->dtype, from.cols));
    }
    return QZ_OK;
}

qz_status qz_ref_embedding(const qz_tensor *y, const qz_tensor *table, const int32_t *ids)
{
    for (int64_t t = 0; t < y->shape[0]; t++) {
        const void *row = element(table, ids[t] * table->stride[0]);
        QZ_TRY(qz_convert(qz_f32(y) + t * y->stride[0], QZ_F32, row, table->dtype, y->shape[1]));
    }
    return QZ_OK;
}

qz_status qz_ref_first_nonfinite(const qz_tensor *x, int64_t *index)
{
    qz_rows v = qz_rows_of(x);
    for (*index = 0; *index < v.rows * v.cols; ++*index) {
        float value;
        QZ_TRY(as_float(&value, x, *index / v.cols * v.stride + *index % v.cols));
        if (!isfinite(value)) return QZ_OK;
    }
    *index = -1;
    return QZ_OK;
}
