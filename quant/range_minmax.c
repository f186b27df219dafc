/* The range of a piece as it is: smallest and largest weight, 0 included. */
#include "base/parallel.h"
#include "numeric/piece.h"
#include "quant/quant.h"

/* Rows [first, last) and columns [left, right) of one piece. */
static void range_of_piece(float *lo, float *hi, const qz_tensor *w, int64_t first, int64_t last, int64_t left,
                           int64_t right)
{
    *lo = *hi = 0;
    for (int64_t n = first; n < last; n++) {
        float low, high;
        qz_range_of(&low, &high, qz_f32(w) + n * w->stride[0] + left, right - left);
        if (low < *lo) *lo = low;
        if (high > *hi) *hi = high;
    }
}

/* Elements [first, last) of the matrix read row by row. */
static void range_of_flat(float *lo, float *hi, const qz_tensor *w, int64_t first, int64_t last)
{
    const int64_t cols = w->shape[1];
    *lo = *hi = 0;
    while (first < last) {
        const int64_t row = first / cols, left = first % cols, rest = last - first;
        const int64_t right = left + rest < cols ? left + rest : cols;
        float low, high;
        range_of_piece(&low, &high, w, row, row + 1, left, right);
        if (low < *lo) *lo = low;
        if (high > *hi) *hi = high;
        first += right - left;
    }
}

static void choose_flat(qz_qtensor *q, const qz_tensor *weight)
{
    const int64_t flat = q->scheme.flat, count = q->rows * q->cols;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < qz_scheme_pieces(&q->scheme, q->rows, q->cols); i++) {
        float lo, hi;
        range_of_flat(&lo, &hi, weight, i * flat, (i + 1) * flat < count ? (i + 1) * flat : count);
        qz_piece_fit(q, i, lo, hi);
    }
}

static qz_status choose(qz_qtensor *q, const qz_backend *backend, const qz_tensor *weight, const qz_stats *stats,
                        const qz_options *options)
{
    (void)backend, (void)stats, (void)options;
    if (q->scheme.flat) {
        choose_flat(q, weight);
        return QZ_OK;
    }
    const int64_t rows = qz_scheme_scale_rows(&q->scheme, q->rows), cols = qz_scheme_scale_cols(&q->scheme, q->cols);
    const int64_t height = q->scheme.piece_rows ? q->scheme.piece_rows : q->rows;
    const int64_t width = q->scheme.piece_cols ? q->scheme.piece_cols : q->cols;
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            const int64_t last = (i + 1) * height < q->rows ? (i + 1) * height : q->rows;
            const int64_t right = (j + 1) * width < q->cols ? (j + 1) * width : q->cols;
            float lo, hi;
            range_of_piece(&lo, &hi, weight, i * height, last, j * width, right);
            qz_piece_fit(q, i * cols + j, lo, hi);
        }
    return QZ_OK;
}

const qz_range qz_range_minmax = {
    .plugin = {"minmax", "smallest and largest weight of the piece, 0 included", "", NULL},
    .needs = QZ_NEED_NOTHING,
    .choose = choose,
};
