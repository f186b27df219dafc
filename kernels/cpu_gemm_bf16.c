/* See cpu_gemm_bf16.h. The result is cut into tiles; a thread takes one through all of k, a block at a time: the block
 * of the right factor is rounded into panels as wide as the register tile, which then meet blocks of rows of the left
 * factor, rounded in the order in which they lie (Goto and van de Geijn 2008, with both blocks on the stack). What is
 * rounded becomes words of 32 bits, an fp32 number or two BF16 numbers that are neighbours in k; a step is a word's
 * part of k. */
#include "kernels/cpu_gemm_bf16.h"

#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_micro.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/minifloat.h"

/* Of a block: 48 and 192 KiB. Rows of a tile; tiles that there should be. */
enum { STEPS = QZ_MICRO_STEPS, ROWS = 4 * QZ_MICRO_ROWS, COLS = 256, TALL = 1024, TILES = 8 };
/* The register tile. */
enum { MR = QZ_MICRO_ROWS, NR = QZ_MICRO_COLS };

typedef struct blocks {
    _Alignas(64) union {
        uint32_t word[STEPS * QZ_MICRO_ACROSS];
        float number[STEPS * QZ_MICRO_ACROSS];
    } a;
    _Alignas(64) union {
        uint32_t word[STEPS * COLS];
        float number[STEPS * COLS];
    } b;
} blocks;
_Static_assert(sizeof(blocks) <= 256 << 10, "what kernels may have on the stack");
_Static_assert((int)ROWS *QZ_MICRO_ALONG <= STEPS * QZ_MICRO_ACROSS, "rows by steps fit");
_Static_assert((int)ROWS <= (int)QZ_MICRO_ACROSS, "steps by rows fit");
_Static_assert((int)NR <= (int)ROWS, "the left block has room for a panel that is to be turned");

bool qz_gemm_has(qz_gemm_path path)
{
    return path == QZ_GEMM_BLAS || (path == QZ_GEMM_SINGLE ? qz_micro_has_single() : qz_micro_has_pairs());
}

qz_gemm_path qz_gemm_best(void)
{
    return qz_micro_likes_pairs() ? QZ_GEMM_PAIRS : qz_micro_has_single() ? QZ_GEMM_SINGLE : QZ_GEMM_BLAS;
}

/* ---- words ---- */

static inline uint32_t single(float x)
{
    return (uint32_t)qz_bf16_encode(x) << 16;
}

static inline uint32_t pair(float x, float y)
{
    return (uint32_t)qz_bf16_encode(x) | (uint32_t)qz_bf16_encode(y) << 16;
}

/* From elements that lie one after another in k. */
QZ_WIDE static void words_along(uint32_t *out, const float *x, int64_t k, bool pairs)
{
    if (!pairs) {
        for (int64_t p = 0; p < k; p++) out[p] = single(x[p]);
        return;
    }
    for (int64_t p = 0; p < k / 2; p++) out[p] = pair(x[2 * p], x[2 * p + 1]);
    if (k % 2) out[k / 2] = single(x[k - 1]);
}

/* A panel from rows of steps. */
QZ_WIDE static void turn(uint32_t *out, int64_t stride, const uint32_t *rows, int64_t steps)
{
    for (int64_t p = 0; p < steps; p++)
        for (int64_t j = 0; j < NR; j++) out[p * stride + j] = rows[j * QZ_MICRO_ALONG + p];
}

/* ---- blocks ---- */

/* A part of a factor: `count` rows or columns from `first` on, `k` places from `at` on. */
typedef struct part {
    const float *data;
    int64_t stride, count, k;
    bool across, pairs;
} part;

static part part_of(const qz_factor *f, int64_t first, int64_t count, int64_t at, int64_t k, bool pairs)
{
    const float *data = f->data + (f->across ? at * f->stride + first : first * f->stride + at);
    return (part){data, f->stride, count, k, f->across, pairs};
}

static int64_t steps_of(const part *x)
{
    return x->pairs ? (x->k + 1) / 2 : x->k;
}

/* Rows ahead that are fetched early: they are too far apart for the processor's own guess. */
enum { AHEAD = 16, LINE = 16 };

/* Words from `count` rows or columns of one place in k, zeros up to a multiple of NR; NR of them are `jump` words away
 * from the next NR. */
QZ_WIDE static void words_of_place(uint32_t *restrict out, int64_t jump, const float *restrict x, int64_t count)
{
    for (; count >= NR; count -= NR, x += NR, out += jump)
        for (int64_t i = 0; i < NR; i++) out[i] = single(x[i]);
    const int64_t whole = count / 8 * 8;
    for (int64_t i = 0; i < whole; i++) out[i] = single(x[i]);
    for (int64_t i = whole; i < NR && count > 0; i++) out[i] = i < count ? single(x[i]) : 0;
}

/* The same from two places, `next` elements apart. */
QZ_WIDE static void words_of_places(uint32_t *restrict out, int64_t jump, const float *restrict x, int64_t next,
                                    int64_t count)
{
    for (; count >= NR; count -= NR, x += NR, out += jump)
        for (int64_t i = 0; i < NR; i++) out[i] = pair(x[i], x[next + i]);
    const int64_t whole = count / 8 * 8;
    for (int64_t i = 0; i < whole; i++) out[i] = pair(x[i], x[next + i]);
    for (int64_t i = whole; i < NR && count > 0; i++) out[i] = i < count ? pair(x[i], x[next + i]) : 0;
}

/* Step by step, `stride` words apart. */
static void words_across(uint32_t *out, int64_t stride, int64_t jump, const part *x)
{
    const float *row = x->data;
    const int64_t each = x->pairs ? 2 : 1;
    for (int64_t p = 0; p < x->k; p += each, row += each * x->stride, out += stride) {
        const float *ahead = row + (p + AHEAD < x->k ? AHEAD * x->stride : 0);
        for (int64_t i = 0; i < x->count; i += LINE) __builtin_prefetch(ahead + i);
        if (x->pairs && p + 1 < x->k)
            words_of_places(out, jump, row, x->stride, x->count);
        else
            words_of_place(out, jump, row, x->count);
    }
}

/* Rows as the register tile reads them; zeros below. */
static void pack_left(uint32_t *out, const part *x)
{
    if (x->across) {
        words_across(out, QZ_MICRO_ACROSS, NR, x);
        return;
    }
    const int64_t height = qz_ceil_div(x->count, MR) * MR, steps = steps_of(x);
    for (int64_t i = 0; i < x->count; i++) {
        const float *ahead = x->data + qz_min(i + 4, x->count - 1) * x->stride;
        for (int64_t p = 0; p < x->k; p += LINE) __builtin_prefetch(ahead + p);
        words_along(out + i * QZ_MICRO_ALONG, x->data + i * x->stride, x->k, x->pairs);
    }
    for (int64_t i = x->count; i < height; i++) memset(out + i * QZ_MICRO_ALONG, 0, (size_t)steps * sizeof *out);
}

/* NR columns from `first` on of a factor whose columns are dense; `room` is as large as the left block. */
static void pack_panel(uint32_t *out, int64_t stride, const part *x, int64_t first, uint32_t *room)
{
    const int64_t count = qz_min(NR, x->count - first), steps = steps_of(x);
    for (int64_t j = 0; j < count; j++)
        words_along(room + j * QZ_MICRO_ALONG, x->data + (first + j) * x->stride, x->k, x->pairs);
    for (int64_t j = count; j < NR; j++) memset(room + j * QZ_MICRO_ALONG, 0, (size_t)steps * sizeof *out);
    turn(out, stride, room, steps);
}

/* Panels one after another; for OpenBLAS side by side. */
static void pack_right(blocks *to, const part *x, qz_gemm_path path)
{
    const int64_t stride = path == QZ_GEMM_BLAS ? COLS : NR, jump = path == QZ_GEMM_BLAS ? NR : NR * STEPS;
    if (x->across) {
        words_across(to->b.word, stride, jump, x);
        return;
    }
    for (int64_t j = 0; j < x->count; j += NR) pack_panel(to->b.word + j / NR * jump, stride, x, j, to->a.word);
}

/* ---- products ---- */

/* The register tile where fewer rows or columns are wanted. */
static void multiply_edge(qz_micro *micro, qz_tile c, bool add, int64_t m, int64_t n, const uint32_t *a, bool across,
                          const uint32_t *b, int64_t steps)
{
    float sums[MR * NR];
    micro((qz_tile){sums, NR}, false, a, across, b, steps);
    for (int64_t i = 0; i < m; i++) {
        float *row = c.data + i * c.stride;
        for (int64_t j = 0; j < n; j++) row[j] = sums[i * NR + j] + (add ? row[j] : 0);
    }
}

static void multiply_panels(qz_micro *micro, qz_tile c, bool add, const blocks *x, const part *a, int64_t n)
{
    const int64_t steps = steps_of(a), next = a->across ? 1 : QZ_MICRO_ALONG;
    for (int64_t j = 0; j < n; j += NR) {
        for (int64_t i = 0; i < a->count; i += MR) {
            const uint32_t *left = x->a.word + i * next, *right = x->b.word + j * STEPS;
            if (a->count - i >= MR && n - j >= NR)
                micro(qz_tile_at(c, i, j), add, left, a->across, right, steps);
            else
                multiply_edge(micro, qz_tile_at(c, i, j), add, qz_min(MR, a->count - i), qz_min(NR, n - j), left,
                              a->across, right, steps);
        }
    }
}

static void multiply_blas(qz_tile c, bool add, blocks *x, const part *a, int64_t n)
{
    const qz_tile right = {x->b.number, COLS};
    if (!a->across) {
        qz_blas_nn(a->count, n, a->k, (qz_tile){x->a.number, QZ_MICRO_ALONG}, right, add, c);
        return;
    }
    for (int64_t i = 0; i < a->count && !add; i++) memset(c.data + i * c.stride, 0, (size_t)n * sizeof(float));
    qz_blas_tn(a->count, n, a->k, (qz_tile){x->a.number, QZ_MICRO_ACROSS}, right, c);
}

/* c (a->count, n) = the blocks' product (+ c) */
static void multiply(qz_tile c, bool add, blocks *x, const part *a, int64_t n, qz_gemm_path path)
{
    if (path == QZ_GEMM_BLAS)
        multiply_blas(c, add, x, a, n);
    else
        multiply_panels(path == QZ_GEMM_PAIRS ? qz_micro_pairs : qz_micro_single, c, add, x, a, n);
}

/* ---- tiles ---- */

static int64_t multiple(int64_t x, int64_t of)
{
    return qz_ceil_div(x, of) * of;
}

/* Rows [row, row + m), columns [col, col + n) of the result, n <= COLS. */
static void take_tile(const qz_gemm *g, qz_gemm_path path, int64_t row, int64_t m, int64_t col, int64_t n)
{
    const bool pairs = path == QZ_GEMM_PAIRS;
    const int64_t room = pairs ? 2 * STEPS : STEPS, most = multiple(qz_ceil_div(g->k, qz_ceil_div(g->k, room)), 2);
    blocks x;
    for (int64_t p = 0; p < g->k; p += most) {
        const part right = part_of(&g->b, col, n, p, qz_min(most, g->k - p), pairs);
        pack_right(&x, &right, path);
        for (int64_t i = 0; i < m; i += ROWS) {
            const part left = part_of(&g->a, row + i, qz_min(ROWS, m - i), p, right.k, pairs);
            pack_left(x.a.word, &left);
            multiply(qz_tile_at(g->c, row + i, col), p > 0 || g->add, &x, &left, n, path);
        }
    }
}

static qz_tiles tiles_of(const qz_gemm *g)
{
    qz_tiles t = {.across = qz_ceil_div(g->n, COLS), .down = qz_ceil_div(g->m, TALL)};
    if (t.down * t.across < TILES) t.down = qz_min(qz_ceil_div(TILES, t.across), qz_ceil_div(g->m, ROWS));
    t.rows = multiple(qz_ceil_div(g->m, t.down), MR);
    t.cols = multiple(qz_ceil_div(g->n, t.across), NR);
    t.down = qz_ceil_div(g->m, t.rows);
    t.across = qz_ceil_div(g->n, t.cols);
    return t;
}

void qz_gemm_bf16(const qz_gemm *g, qz_gemm_path path)
{
    const qz_tiles t = tiles_of(g);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < t.down * t.across; i++)
    {
        const int64_t row = i % t.down * t.rows, col = i / t.down * t.cols;
        take_tile(g, path, row, qz_min(t.rows, g->m - row), col, qz_min(t.cols, g->n - col));
    }
}
