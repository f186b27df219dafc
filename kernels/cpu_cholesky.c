/* A = L L^T in place, blocked (the right-looking form): for each PANEL of columns the square on the diagonal is
 * factored, the rows below are solved with it, and their products leave the triangle to the right.
 *
 * That triangle is cut into tiles no wider than a band, so that each has one stride, and large while much is left:
 * a product reads its operands once more for each tile. Tiles are worked on in parallel, each by one call on one
 * thread, and are cut by the size alone, so the factor does not depend on the number of threads. */
#include <math.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"

enum { PANEL = 384, FINEST = 4, WANTED = 4 };

typedef struct matrix {
    qz_triangle a;
    int64_t first, width; /* of the panel */
} matrix;

/* Rows [first, first + count), all of one band. */
typedef struct rows {
    int64_t first, count;
} rows;

/* How what lies right of the panel is cut: `each` pieces a band, from the first one that has rows there. */
typedef struct cut {
    int64_t each, side, begin, end;
} cut;

static qz_tile64 tile_at(const matrix *m, int64_t row, int64_t col)
{
    return (qz_tile64){qz_triangle_row(m->a, row) + col, qz_triangle_stride(m->a, row)};
}

static cut cut_into(const matrix *m, int64_t each)
{
    const int64_t band = m->a.band, from = m->first + m->width;
    cut c = {.each = each, .side = qz_ceil_div(band, each)};
    c.begin = from / band * each + from % band / c.side;
    c.end = qz_ceil_div(m->a.size, band) * each;
    return c;
}

/* May be empty at the matrix's end. */
static rows rows_of(const matrix *m, const cut *c, int64_t i)
{
    const int64_t band = i / c->each * m->a.band, from = m->first + m->width;
    const int64_t start = band + i % c->each * c->side, first = start < from ? from : start;
    const int64_t end = qz_min(qz_min(start + c->side, band + m->a.band), m->a.size);
    return (rows){first, end - first};
}

/* The first column of the panel without a positive finite pivot, or -1. In a parallel region of one piece, where
 * OpenBLAS stays on the calling thread. */
static int64_t factor_diagonal(const matrix *m)
{
    int64_t failed = -1;
    QZ_PARALLEL_FOR for (int64_t piece = 0; piece < 1; piece++)
    {
        failed = qz_lapack_cholesky(m->width, tile_at(m, m->first, m->first));
    }
    for (int64_t i = m->first; failed < 0 && i < m->first + m->width; i++)
        if (!isfinite(qz_triangle_row(m->a, i)[i])) failed = i - m->first;
    return failed < 0 ? -1 : m->first + failed;
}

static void solve_below(const matrix *m)
{
    const cut c = cut_into(m, FINEST);
    QZ_PARALLEL_FOR for (int64_t i = c.begin; i < c.end; i++)
    {
        const rows r = rows_of(m, &c, i);
        if (r.count > 0)
            qz_blas64_solve(r.count, m->width, tile_at(m, m->first, m->first), tile_at(m, r.first, m->first));
    }
}

/* Tile i of the triangle right of the panel, counted by rows. */
static void update_tile(const matrix *m, const cut *c, int64_t i)
{
    int64_t row = 0;
    for (; i > row; row++) i -= row + 1;
    const rows r = rows_of(m, c, c->begin + row), s = rows_of(m, c, c->begin + i);
    if (r.count <= 0 || s.count <= 0) return;
    const qz_tile64 a = tile_at(m, r.first, m->first), out = tile_at(m, r.first, s.first);
    if (row == i)
        qz_blas64_syrk(r.count, m->width, a, out);
    else
        qz_blas64_nt(r.count, s.count, m->width, a, tile_at(m, s.first, m->first), out);
}

static void update(const matrix *m)
{
    const int64_t left = m->a.size - m->first - m->width;
    int64_t each = 1;
    while (each < FINEST && left * each < WANTED * m->a.band) each *= 2;
    const cut c = cut_into(m, each);
    const int64_t pieces = c.end - c.begin;
    QZ_PARALLEL_FOR for (int64_t i = 0; i < pieces * (pieces + 1) / 2; i++)
    {
        update_tile(m, &c, i);
    }
}

qz_status qz_cpu_cholesky(const qz_tensor *a, int64_t size, int64_t *failed)
{
    matrix m = {.a = qz_triangle_of(a->data, size)};
    for (; m.first < size; m.first += m.width) {
        const int64_t band_end = (m.first / m.a.band + 1) * m.a.band;
        m.width = qz_min(qz_min(PANEL, band_end - m.first), size - m.first);
        *failed = factor_diagonal(&m);
        if (*failed >= 0) return QZ_OK;
        solve_below(&m);
        update(&m);
    }
    return QZ_OK;
}
