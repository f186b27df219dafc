/* How the `cpu` backend cuts work: pieces that depend on shapes alone, never on the number of threads. */
#ifndef QZ_KERNELS_CPU_TILES_H
#define QZ_KERNELS_CPU_TILES_H

#include <stdint.h>

#include "kernels/tables.h"

static inline int64_t qz_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t qz_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* `side` halved, down to `least`, until `extent` is cut into `wanted` tiles. */
static inline int64_t qz_tile_side(int64_t extent, int64_t side, int64_t least, int64_t wanted)
{
    while (side > least && qz_ceil_div(extent, side) < wanted) side /= 2;
    return side;
}

/* A matrix in tiles. */
typedef struct qz_tiles {
    int64_t rows, cols;   /* of a tile */
    int64_t down, across; /* tiles */
} qz_tiles;

/* Tiles of (rows, cols), the longer side halved, down to `least`, until there are `wanted`. */
static inline qz_tiles qz_tiles_of(int64_t height, int64_t width, int64_t rows, int64_t cols, int64_t least,
                                   int64_t wanted)
{
    qz_tiles t = {.rows = rows, .cols = cols};
    for (;;) {
        t.down = qz_ceil_div(height, t.rows);
        t.across = qz_ceil_div(width, t.cols);
        if (t.down * t.across >= wanted || (t.rows <= least && t.cols <= least)) return t;
        if (t.cols > t.rows)
            t.cols /= 2;
        else
            t.rows /= 2;
    }
}

/* Tiles of a product, each the work of one core. Large ones cost less packing (512 x 512 instead of 2048 x 1024: a
 * tenth of the rate of sgemm), so they are halved until MANY cores find work, but no further than BROAD; where that
 * makes fewer than FEW, down to `least`. */
static inline qz_tiles qz_tiles_of_product(int64_t height, int64_t width, int64_t rows, int64_t cols, int64_t least)
{
    enum { MANY = 32, FEW = 8, BROAD = 512 };
    const qz_tiles t = qz_tiles_of(height, width, rows, cols, BROAD, MANY);
    return t.down * t.across >= FEW ? t : qz_tiles_of(height, width, rows, cols, least, FEW);
}

/* As many tiles, of about one size, whose sides are multiples of 16 (a multiple of the kernels of every core). */
static inline qz_tiles qz_tiles_even(qz_tiles t, int64_t height, int64_t width)
{
    t.rows = qz_ceil_div(qz_ceil_div(height, t.down), 16) * 16;
    t.cols = qz_ceil_div(qz_ceil_div(width, t.across), 16) * 16;
    t.down = qz_ceil_div(height, t.rows);
    t.across = qz_ceil_div(width, t.cols);
    return t;
}

/* Pieces of about QZ_PIECE elements: several short rows, or a part of a long one. */
enum { QZ_PIECE = 16384 };

typedef struct qz_pieces {
    int64_t count, rows_each, parts, rows, cols;
} qz_pieces;

typedef struct qz_piece {
    int64_t row, rows, col, cols;
} qz_piece;

static inline qz_pieces qz_pieces_of(int64_t rows, int64_t cols)
{
    qz_pieces p = {.rows_each = cols < QZ_PIECE ? QZ_PIECE / cols : 1, .parts = qz_ceil_div(cols, QZ_PIECE)};
    p.rows = rows;
    p.cols = cols;
    p.count = qz_ceil_div(rows, p.rows_each) * p.parts;
    return p;
}

static inline qz_piece qz_piece_at(const qz_pieces *p, int64_t i)
{
    qz_piece out = {.row = i / p->parts * p->rows_each, .col = i % p->parts * QZ_PIECE};
    out.rows = qz_min(p->rows_each, p->rows - out.row);
    out.cols = qz_min(QZ_PIECE, p->cols - out.col);
    return out;
}

#endif
