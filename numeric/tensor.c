/* Views: making them, cutting rows, and asking about their layout. */
#include "numeric/tensor.h"

#include <assert.h>

static qz_tensor view(void *data, qz_dtype t, int ndim, const int64_t *shape)
{
    qz_tensor x = {.data = data, .dtype = t, .device = QZ_HOST, .ndim = ndim};
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        x.shape[i] = shape[i];
        x.stride[i] = stride;
        stride *= shape[i];
    }
    return x;
}

qz_tensor qz_tensor_1d(void *data, qz_dtype t, int64_t a)
{
    return view(data, t, 1, (const int64_t[]){a});
}

qz_tensor qz_tensor_2d(void *data, qz_dtype t, int64_t a, int64_t b)
{
    return view(data, t, 2, (const int64_t[]){a, b});
}

qz_tensor qz_tensor_3d(void *data, qz_dtype t, int64_t a, int64_t b, int64_t c)
{
    return view(data, t, 3, (const int64_t[]){a, b, c});
}

qz_tensor qz_tensor_4d(void *data, qz_dtype t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return view(data, t, 4, (const int64_t[]){a, b, c, d});
}

qz_tensor qz_tensor_rows(const qz_tensor *x, int64_t first, int64_t count)
{
    assert(x->ndim >= 1 && first >= 0 && count >= 0 && first + count <= x->shape[0]);
    assert(qz_dtype_bits(x->dtype) % 8 == 0);
    qz_tensor y = *x;
    y.data = (char *)x->data + first * x->stride[0] * (qz_dtype_bits(x->dtype) / 8);
    y.shape[0] = count;
    return y;
}

int64_t qz_tensor_count(const qz_tensor *x)
{
    int64_t count = 1;
    for (int i = 0; i < x->ndim; i++) count *= x->shape[i];
    return count;
}

bool qz_tensor_is_contiguous(const qz_tensor *x)
{
    int64_t stride = 1;
    for (int i = x->ndim - 1; i >= 0; i--) {
        if (x->shape[i] != 1 && x->stride[i] != stride) return false;
        stride *= x->shape[i];
    }
    return true;
}

float *qz_f32(const qz_tensor *x)
{
    assert(x->dtype == QZ_F32 && x->device == QZ_HOST);
    return (float *)x->data;
}
