/* M (N, K) -> the factors of its best approximation of rank R (Eckart and Young 1936), by iteration of a subspace:
 *
 *     V (P, K) <- orthonormal rows of V M^T M,  P = R + a few
 *
 * from random rows (Halko, Martinsson and Tropp 2011, "Finding structure with randomness", algorithm 4.4), until the
 * share of M's energy that lies in it grows no more; then the components of V M^T (P, N), from the eigenvectors of its
 * Gram matrix (Jacobi 1846, cyclic). All products are the backend's, so the result does not depend on the number of
 * threads; a full decomposition would take min(N, K) / P times as long. */
#include "train/low_rank.h"

#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "base/rng.h"

enum { MORE = 16, ITERATIONS = 60, SWEEPS = 30 };

static const double enough = 1e-6;    /* growth of the energy at which the iteration ends */
static const double vanishing = 1e-6; /* beside the largest: noise of fp32 */

typedef struct search {
    const qz_backend *be;
    const qz_tensor *m;
    int64_t count;           /* P */
    qz_tensor v, y;          /* (P, K), (P, N) */
    double *gram, *rotation; /* (P, P) each */
    int64_t *order;          /* (P) rows of `rotation`, the largest eigenvalue first */
} search;

/* ---- orthonormal rows ---- */

static double dot(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return sum;
}

static void subtract(float *x, const float *y, double factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] - factor * (double)y[i]);
}

/* Length 1, or 0 where nothing but noise is left of what its length was. */
static void normalize(float *x, int64_t n, double before)
{
    const double length = sqrt(dot(x, x, n)), factor = length > vanishing * before ? 1 / length : 0;
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] * factor);
}

/* Modified Gram-Schmidt. */
static void orthonormalize(const qz_tensor *v, double *length)
{
    const int64_t rows = v->shape[0], n = v->shape[1];
    float *x = qz_f32(v);
    for (int64_t i = 0; i < rows; i++) length[i] = sqrt(dot(x + i * n, x + i * n, n));
    for (int64_t i = 0; i < rows; i++) {
        normalize(x + i * n, n, length[i]);
        QZ_PARALLEL_FOR_STATIC
        for (int64_t j = i + 1; j < rows; j++) subtract(x + j * n, x + i * n, dot(x + i * n, x + j * n, n), n);
    }
}

/* ---- eigenvectors of a small symmetric matrix ---- */

/* One rotation that makes g[p][q] zero; the rows of r turn with it. */
static void rotate(double *g, double *r, int64_t n, int64_t p, int64_t q)
{
    const double theta = (g[q * n + q] - g[p * n + p]) / (2 * g[p * n + q]);
    const double t = copysign(1, theta) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int64_t k = 0; k < n; k++) {
        const double a = g[k * n + p], b = g[k * n + q];
        g[k * n + p] = c * a - s * b;
        g[k * n + q] = s * a + c * b;
    }
    for (int64_t k = 0; k < n; k++) {
        const double a = g[p * n + k], b = g[q * n + k], x = r[p * n + k], y = r[q * n + k];
        g[p * n + k] = c * a - s * b;
        g[q * n + k] = s * a + c * b;
        r[p * n + k] = c * x - s * y;
        r[q * n + k] = s * x + c * y;
    }
}

static bool is_small(const double *g, int64_t n, int64_t p, int64_t q)
{
    return fabs(g[p * n + q]) <= 1e-14 * sqrt(fabs(g[p * n + p] * g[q * n + q]));
}

/* g becomes diagonal; row i of r is the eigenvector of g[i][i]. */
static void diagonalize(double *g, double *r, int64_t n)
{
    bool turned = true;
    memset(r, 0, (size_t)(n * n) * sizeof *r);
    for (int64_t i = 0; i < n; i++) r[i * n + i] = 1;
    for (int sweep = 0; sweep < SWEEPS && turned; sweep++) {
        turned = false;
        for (int64_t p = 0; p < n; p++) {
            for (int64_t q = p + 1; q < n; q++) {
                if (is_small(g, n, p, q)) continue;
                rotate(g, r, n, p, q);
                turned = true;
            }
        }
    }
}

static void sort_by_size(search *s)
{
    const int64_t n = s->count;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i;
        for (; at > 0 && s->gram[s->order[at - 1] * (n + 1)] < s->gram[i * (n + 1)]; at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = i;
    }
}

/* ---- the iteration ---- */

/* y = v M^T, and the components of y. */
static qz_status project(search *s)
{
    const int64_t n = s->count, width = s->y.shape[1];
    const float *y = qz_f32(&s->y);
    QZ_TRY(qz_op_linear(s->be, &s->y, &s->v, s->m, NULL, false));
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i; j < n; j++)
            s->gram[i * n + j] = s->gram[j * n + i] = dot(y + i * width, y + j * width, width);
    diagonalize(s->gram, s->rotation, n);
    sort_by_size(s);
    return QZ_OK;
}

static double eigenvalue(const search *s, int64_t i)
{
    const double x = s->gram[s->order[i] * (s->count + 1)];
    return x > 0 ? x : 0;
}

static double energy(const search *s, int64_t rank)
{
    double sum = 0;
    for (int64_t i = 0; i < rank; i++) sum += eigenvalue(s, i);
    return sum;
}

static qz_status iterate(search *s, int64_t rank, double *length)
{
    double last = -1;
    orthonormalize(&s->v, length);
    QZ_TRY(project(s));
    for (int i = 0; i < ITERATIONS && energy(s, rank) > last * (1 + enough); i++) {
        last = energy(s, rank);
        QZ_TRY(qz_op_linear_grad_x(s->be, &s->v, &s->y, s->m, false));
        orthonormalize(&s->v, length);
        orthonormalize(&s->v, length); /* twice is enough (Parlett 1980, section 6.9) */
        QZ_TRY(project(s));
    }
    return QZ_OK;
}

/* Component i of the rows of x. */
static double turned(const search *s, const qz_tensor *x, int64_t i, int64_t column)
{
    const double *r = s->rotation + s->order[i] * s->count;
    double sum = 0;
    for (int64_t j = 0; j < s->count; j++) sum += r[j] * (double)qz_f32(x)[j * x->shape[1] + column];
    return sum;
}

static void take(const search *s, const qz_tensor *b, const qz_tensor *a, double factor)
{
    const int64_t rank = a->shape[0], n = b->shape[0], k = a->shape[1];
    const double largest = sqrt(eigenvalue(s, 0));
    memset(b->data, 0, (size_t)(n * rank) * sizeof(float));
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < rank; i++) {
        const double singular = sqrt(eigenvalue(s, i)), root = sqrt(singular);
        if (singular <= vanishing * largest) continue;
        for (int64_t j = 0; j < n; j++)
            qz_f32(b)[j * rank + i] = (float)(turned(s, &s->y, i, j) / (root * sqrt(factor)));
        for (int64_t j = 0; j < k; j++) qz_f32(a)[i * k + j] = (float)(turned(s, &s->v, i, j) * root / sqrt(factor));
    }
}

static void draw(const qz_tensor *v)
{
    qz_rng rng;
    qz_rng_seed(&rng, 0, 0);
    for (int64_t i = 0; i < qz_tensor_count(v); i++) qz_f32(v)[i] = (float)qz_rng_normal(&rng);
}

qz_status qz_low_rank(const qz_backend *be, const qz_tensor *m, const qz_tensor *b, const qz_tensor *a, double factor,
                      qz_arena *scratch)
{
    const int64_t n = m->shape[0], k = m->shape[1], least = n < k ? n : k, rank = a->shape[0];
    const int64_t count = rank + MORE < least ? rank + MORE : least;
    const qz_arena_mark mark = qz_arena_save(scratch);
    float *v = qz_arena_array(scratch, float, (size_t)(count * k)),
          *y = qz_arena_array(scratch, float, (size_t)(count * n));
    double *gram = qz_arena_array(scratch, double, (size_t)(count * count)),
           *rotation = qz_arena_array(scratch, double, (size_t)(count * count)),
           *length = qz_arena_array(scratch, double, (size_t)count);
    int64_t *order = qz_arena_array(scratch, int64_t, (size_t)count);
    if (!v || !y || !gram || !rotation || !length || !order) return qz_arena_failed(scratch);
    search s = {be,   m,        count, qz_tensor_2d(v, QZ_F32, count, k), qz_tensor_2d(y, QZ_F32, count, n),
                gram, rotation, order};
    draw(&s.v);
    QZ_TRY(iterate(&s, rank, length));
    take(&s, b, a, factor);
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
