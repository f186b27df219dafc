/* The lower triangle of a matrix (K, K) in little more than half of its memory: bands of at most QZ_TRIANGLE_BAND rows,
 * stored one after another. The rows of a band are as long as its last one, so a tile that stays within a band is a
 * matrix with one stride, as BLAS takes it. */
#ifndef QZ_KERNELS_TRIANGLE_H
#define QZ_KERNELS_TRIANGLE_H

#include <stdint.h>

enum { QZ_TRIANGLE_BAND = 768 };

typedef struct qz_triangle {
    double *data;
    int64_t size, band; /* rows of the matrix, and of a band; the last band may have fewer */
} qz_triangle;

static inline qz_triangle qz_triangle_of(double *data, int64_t size)
{
    const int64_t bands = (size + QZ_TRIANGLE_BAND - 1) / QZ_TRIANGLE_BAND;
    return (qz_triangle){data, size, bands ? (size + bands - 1) / bands : 1};
}

/* From one row to the next of the band that holds `row`. */
static inline int64_t qz_triangle_stride(qz_triangle t, int64_t row)
{
    const int64_t end = (row / t.band + 1) * t.band;
    return end < t.size ? end : t.size;
}

/* Elements before `row`; before row K: of all. */
static inline int64_t qz_triangle_offset(qz_triangle t, int64_t row)
{
    const int64_t bands = row / t.band;
    return t.band * t.band * (bands * (bands + 1) / 2) + row % t.band * qz_triangle_stride(t, row);
}

static inline double *qz_triangle_row(qz_triangle t, int64_t row)
{
    return t.data + qz_triangle_offset(t, row);
}

static inline int64_t qz_triangle_count(int64_t size)
{
    return qz_triangle_offset(qz_triangle_of(0, size), size);
}

#endif
