/* Conversion, look-up and the search for NaN or infinity, in pieces of rows over all cores. The numbers are made by
 * qz_convert, which is already compiled for several instruction sets. */
#include <assert.h>
#include <stdatomic.h>

#include "base/parallel.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"

static void *element(const qz_tensor *x, int64_t i)
{
    return (char *)x->data + i * (qz_dtype_bits(x->dtype) / 8);
}

/* Types were checked before the loop, so this cannot fail. */
static void convert_row(const qz_tensor *y, int64_t to, const qz_tensor *x, int64_t from, int64_t count)
{
    const qz_status status = qz_convert(element(y, to), y->dtype, element(x, from), x->dtype, count);
    assert(status == QZ_OK);
    (void)status;
}

qz_status qz_cpu_convert(const qz_tensor *y, const qz_tensor *x)
{
    const qz_rows to = qz_rows_of(y), from = qz_rows_of(x);
    const qz_pieces pieces = qz_pieces_of(to.rows, to.cols);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t r = p.row; r < p.row + p.rows; r++)
            convert_row(y, r * to.stride + p.col, x, r * from.stride + p.col, p.cols);
    }
    return QZ_OK;
}

qz_status qz_cpu_embedding(const qz_tensor *y, const qz_tensor *table, const int32_t *ids)
{
    const qz_pieces pieces = qz_pieces_of(y->shape[0], y->shape[1]);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        for (int64_t t = p.row; t < p.row + p.rows; t++)
            convert_row(y, t * y->stride[0] + p.col, table, ids[t] * table->stride[0] + p.col, p.cols);
    }
    return QZ_OK;
}

/* Does one of the elements have all bits of `exponent` set? */
QZ_WIDE static bool any_nonfinite_16(const uint16_t *x, int64_t count, uint16_t exponent)
{
    uint16_t found = 0;
    for (int64_t i = 0; i < count; i++) found |= (uint16_t)((x[i] & exponent) == exponent);
    return found;
}

QZ_WIDE static bool any_nonfinite_32(const uint32_t *x, int64_t count, uint32_t exponent)
{
    uint32_t found = 0;
    for (int64_t i = 0; i < count; i++) found |= (uint32_t)((x[i] & exponent) == exponent);
    return found;
}

static bool any_nonfinite(const qz_tensor *x, int64_t first, int64_t count)
{
    if (x->dtype == QZ_F32) return any_nonfinite_32(element(x, first), count, 0x7f800000);
    return any_nonfinite_16(element(x, first), count, x->dtype == QZ_F16 ? 0x7c00 : 0x7f80);
}

/* Flat index of the first one in a piece that has one. */
static int64_t first_in_piece(const qz_tensor *x, const qz_rows *v, const qz_piece *p)
{
    for (int64_t r = p->row; r < p->row + p->rows; r++) {
        const int64_t first = r * v->stride + p->col;
        if (!any_nonfinite(x, first, p->cols)) continue;
        for (int64_t c = 0; c < p->cols; c++) {
            if (any_nonfinite(x, first + c, 1)) return r * v->cols + p->col + c;
        }
    }
    return INT64_MAX;
}

static void lower(_Atomic int64_t *best, int64_t found)
{
    int64_t old = atomic_load(best);
    while (found < old && !atomic_compare_exchange_weak(best, &old, found)) continue;
}

qz_status qz_cpu_first_nonfinite(const qz_tensor *x, int64_t *index)
{
    const qz_rows v = qz_rows_of(x);
    const qz_pieces pieces = qz_pieces_of(v.rows, v.cols);
    _Atomic int64_t best = INT64_MAX;
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces.count; i++)
    {
        const qz_piece p = qz_piece_at(&pieces, i);
        if (p.row * v.cols + p.col < atomic_load(&best)) lower(&best, first_in_piece(x, &v, &p));
    }
    *index = best == INT64_MAX ? -1 : best;
    return QZ_OK;
}
