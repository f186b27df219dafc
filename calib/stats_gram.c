/* See stats_gram.h.
 *
 * F32: the numbers as they are. F16: the entries of the correlation matrix c_ij = g_ij / (d_i d_j), d_i = sqrt(g_ii),
 * beside the diagonal g_ii in F32. By Cauchy and Schwarz |c_ij| <= 1, so nothing overflows whatever the tokens and the
 * outlier channels, each entry is within 2^-11 of itself, or 2^-25 d_i d_j where it is tiny, and the diagonal is exact.
 *
 * A chunk of the dataset is packed, or unpacked, and moved at a time. */
#include "calib/stats_gram.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "numeric/minifloat.h"

enum { CHUNK = 1 << 18, NAME = 96 };

/* The next entry of the triangle. */
typedef struct cursor {
    int64_t i, j;
} cursor;

/* A matrix on its way, and room for one chunk. */
typedef struct job {
    qz_h5 *h5;
    char name[NAME], diagonal_name[NAME];
    int64_t k;
    qz_dtype type;
    float *wide;     /* (CHUNK) */
    uint16_t *half;  /* (CHUNK) */
    float *diagonal; /* (K) g_ii, as F16 only */
    float *root;     /* (K) sqrt(g_ii) */
} job;

/* Copies the next n entries between the triangle and `packed`. */
static void copy(float *packed, float *gram, int64_t k, cursor *c, int64_t n, bool pack)
{
    for (int64_t done = 0; done < n;) {
        int64_t run = c->i + 1 - c->j;
        if (run > n - done) run = n - done;
        float *entry = gram + c->i * k + c->j;
        memcpy(pack ? packed + done : entry, pack ? entry : packed + done, (size_t)run * sizeof(float));
        done += run;
        c->j += run;
        if (c->j <= c->i) continue;
        c->i++;
        c->j = 0;
    }
}

/* Dead channels have only zeros. */
static uint16_t to_half(float g, float ri, float rj)
{
    return ri > 0 && rj > 0 ? qz_f16_encode(g / ri / rj) : 0;
}

static void narrow(const job *x, cursor at, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        x->half[e] = to_half(x->wide[e], x->root[at.i], x->root[at.j]);
        if (++at.j > at.i) at = (cursor){at.i + 1, 0};
    }
}

static void widen(const job *x, cursor at, int64_t n)
{
    for (int64_t e = 0; e < n; e++) {
        bool diagonal = at.i == at.j;
        x->wide[e] = diagonal ? x->diagonal[at.i] : qz_f16_decode(x->half[e]) * x->root[at.i] * x->root[at.j];
        if (++at.j > at.i) at = (cursor){at.i + 1, 0};
    }
}

static qz_status job_new(job *out, qz_h5 *h5, const char *folder, int64_t k, qz_dtype type, qz_arena *arena)
{
    *out = (job){.h5 = h5, .k = k, .type = type};
    snprintf(out->name, sizeof out->name, "%s/gram", folder);
    snprintf(out->diagonal_name, sizeof out->diagonal_name, "%s/gram_diagonal", folder);
    out->wide = qz_arena_array(arena, float, CHUNK);
    out->half = qz_arena_array(arena, uint16_t, CHUNK);
    out->diagonal = qz_arena_array(arena, float, (size_t)k);
    out->root = qz_arena_array(arena, float, (size_t)k);
    return out->wide && out->half && out->diagonal && out->root ? QZ_OK : qz_arena_failed(arena);
}

static void take_roots(const job *x)
{
    for (int64_t i = 0; i < x->k; i++) x->root[i] = sqrtf(x->diagonal[i] > 0 ? x->diagonal[i] : 0);
}

static qz_status write_chunk(const job *x, cursor at, uint64_t first, uint64_t n)
{
    if (x->type == QZ_F32) return qz_h5_write_part(x->h5, x->name, QZ_H5_F32, x->wide, 1, &first, &n);
    narrow(x, at, (int64_t)n);
    return qz_h5_write_part(x->h5, x->name, QZ_H5_F16, x->half, 1, &first, &n);
}

static qz_status read_chunk(const job *x, cursor at, uint64_t first, uint64_t n)
{
    if (x->type == QZ_F32) return qz_h5_read_part(x->h5, x->name, QZ_H5_F32, x->wide, 1, &first, &n);
    QZ_TRY(qz_h5_read_part(x->h5, x->name, QZ_H5_F16, x->half, 1, &first, &n));
    widen(x, at, (int64_t)n);
    return QZ_OK;
}

static qz_status move(const job *x, float *gram, bool pack)
{
    const int64_t total = x->k * (x->k + 1) / 2;
    cursor at = {0, 0};
    for (int64_t first = 0; first < total; first += CHUNK) {
        int64_t n = total - first < CHUNK ? total - first : CHUNK;
        cursor start = at;
        if (pack) copy(x->wide, gram, x->k, &at, n, true);
        QZ_TRY(pack ? write_chunk(x, start, (uint64_t)first, (uint64_t)n)
                    : read_chunk(x, start, (uint64_t)first, (uint64_t)n));
        if (!pack) copy(x->wide, gram, x->k, &at, n, false);
    }
    return QZ_OK;
}

static qz_status write_diagonal(const job *x, const float *gram)
{
    if (x->type == QZ_F32) return QZ_OK;
    for (int64_t i = 0; i < x->k; i++) x->diagonal[i] = gram[i * x->k + i];
    take_roots(x);
    return qz_h5_write(x->h5, x->diagonal_name, QZ_H5_F32, x->diagonal, 1, &(uint64_t){(uint64_t)x->k});
}

static qz_status read_diagonal(const job *x)
{
    if (x->type == QZ_F32) return QZ_OK;
    QZ_TRY(qz_h5_read(x->h5, x->diagonal_name, QZ_H5_F32, x->diagonal, (size_t)x->k));
    take_roots(x);
    return QZ_OK;
}

static qz_status write_all(const job *x, const float *gram)
{
    const uint64_t total = (uint64_t)x->k * ((uint64_t)x->k + 1) / 2, chunk = CHUNK;
    QZ_TRY(write_diagonal(x, gram));
    QZ_TRY(qz_h5_make(x->h5, x->name, x->type == QZ_F16 ? QZ_H5_F16 : QZ_H5_F32, 1, &total, &chunk));
    return move(x, (float *)(uintptr_t)gram, true);
}

static qz_status check_length(const job *x)
{
    int rank;
    uint64_t shape[8], total = (uint64_t)x->k * ((uint64_t)x->k + 1) / 2;
    QZ_TRY(qz_h5_shape(x->h5, x->name, &rank, shape, NULL));
    if (rank == 1 && shape[0] == total) return QZ_OK;
    return QZ_FAIL(QZ_SHAPE, "%s: expected %llu numbers in one dimension for %lld channels", x->name,
                   (unsigned long long)total, (long long)x->k);
}

qz_status qz_stats_gram_write(qz_h5 *h5, const char *folder, const float *gram, int64_t k, qz_dtype type)
{
    qz_arena *arena;
    job x;
    QZ_TRY(qz_arena_new(&arena, "statistics file"));
    qz_status status = job_new(&x, h5, folder, k, type, arena);
    if (status == QZ_OK) status = write_all(&x, gram);
    qz_arena_free(arena);
    return status;
}

qz_status qz_stats_gram_read(float *gram, qz_h5 *h5, const char *folder, int64_t k, qz_dtype type)
{
    qz_arena *arena;
    job x;
    QZ_TRY(qz_arena_new(&arena, "statistics file"));
    qz_status status = job_new(&x, h5, folder, k, type, arena);
    if (status == QZ_OK) status = check_length(&x);
    if (status == QZ_OK) status = read_diagonal(&x);
    if (status == QZ_OK) status = move(&x, gram, false);
    qz_arena_free(arena);
    return status;
}
