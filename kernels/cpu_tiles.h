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
