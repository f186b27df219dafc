/* Views: shapes, strides, rows. */
#include "numeric/tensor.h"

#include "testing/testing.h"

Test(tensor, views)
{
    float data[24] = {0};
    const qz_tensor x = qz_tensor_3d(data, QZ_F32, 2, 3, 4), rows = qz_tensor_rows(&x, 1, 1);
    cr_assert(x.ndim == 3 && x.stride[0] == 12 && x.stride[1] == 4 && x.stride[2] == 1);
    cr_assert(qz_tensor_count(&x) == 24 && qz_tensor_is_contiguous(&x) && qz_f32(&x) == data);
    cr_assert(rows.data == data + 12 && rows.shape[0] == 1 && qz_tensor_count(&rows) == 12);
    cr_assert(qz_tensor_count(&(qz_tensor){0}) == 1);
    cr_assert(qz_tensor_count(&(qz_tensor){.ndim = 1}) == 0);
    cr_assert(qz_tensor_1d(data, QZ_F32, 24).shape[0] == 24);
    cr_assert(qz_tensor_4d(data, QZ_F32, 2, 3, 2, 2).stride[0] == 12);
}

Test(tensor, a_wider_stride_is_not_contiguous)
{
    uint16_t data[24] = {0};
    qz_tensor x = qz_tensor_2d(data, QZ_BF16, 3, 4);
    x.stride[0] = 8;
    cr_assert(!qz_tensor_is_contiguous(&x));
    cr_assert(qz_tensor_rows(&x, 2, 1).data == data + 16);
    x.shape[0] = 1;
    cr_assert(qz_tensor_is_contiguous(&x), "the stride of a single row does not matter");
}
