/* AWQ's scale search; see quant.h for what is minimized. Two judges:
 *
 *     coarse   every point of the grid, with minmax ranges: on all rows and the whole Gram matrix when that is little
 *              work, else on a seeded sample of rows, and, for long inputs, on sampled token rows in place of G
 *     exact    the winner and s = 1, on all rows, with the ranges that will be used
 *
 * An exact loss costs N K^2 operations, at K = 8192 more than the forward that gathered G: hence the two. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/parallel.h"
#include "numeric/intgrid.h"
#include "quant/quant.h"

enum { ROWS = 512, SAMPLE = 256 };
#define SMALL 2e10 /* operations of a grid that are done without sampling */

typedef struct candidate {
    int step; /* r = step / grid */
    bool weight_means;
    double loss;
} candidate;

typedef struct search {
    const qz_search_args *a;
    int64_t k, rows; /* K; rows of all weights */
    double *x;       /* (K) mean |x|, tied */
    double *w;       /* (K) mean of |w| / group's largest, tied */
    float *scale;    /* (K) of the candidate */
    float *sample;   /* (sampled, K) */
    int64_t sampled;
    bool sketch; /* judge on the reservoir instead of G */
} search;

/* ---- the two means ---- */

/* Channels that must share a scale share the mean of what it is computed from. */
static void tie(const qz_search_args *a, double *v)
{
    if (!a->tie_groups) return;
    const int64_t shared = a->tie_heads / a->tie_groups, size = a->tie_size;
    for (int64_t g = 0; g < a->tie_groups; g++)
        for (int64_t d = 0; d < size; d++) {
            double *first = v + g * shared * size + d, sum = 0;
            for (int64_t h = 0; h < shared; h++) sum += first[h * size];
            for (int64_t h = 0; h < shared; h++) first[h * size] = sum / (double)shared;
        }
}

/* Adds |w| / (largest of the group + 1e-6) of one row of a group. */
static void add_row_means(double *sum, const float *w, int64_t width)
{
    float lo, hi;
    qz_range_of(&lo, &hi, w, width);
    const float most = (-lo > hi ? -lo : hi) + 1e-6f;
    for (int64_t j = 0; j < width; j++) sum[j] += (double)(fabsf(w[j]) / most);
}

static void find_weight_means(search *s)
{
    const qz_search_args *a = s->a;
    const int64_t group = a->scheme.piece_cols ? a->scheme.piece_cols : s->k;
    memset(s->w, 0, (size_t)s->k * sizeof *s->w);
    QZ_PARALLEL_FOR
    for (int64_t left = 0; left < s->k; left += group) {
        const int64_t width = s->k - left < group ? s->k - left : group;
        for (int i = 0; i < a->weights; i++) {
            const qz_tensor *w = &a->weight[i].weight;
            for (int64_t n = 0; n < w->shape[0]; n++)
                add_row_means(s->w + left, qz_f32(w) + n * w->stride[0] + left, width);
        }
        for (int64_t j = left; j < left + width; j++) s->w[j] /= (double)s->rows;
    }
    tie(a, s->w);
}

static void find_means(search *s)
{
    const qz_stats *stats = s->a->stats;
    for (int64_t j = 0; j < s->k; j++) s->x[j] = stats->abssum[j] / (double)(stats->tokens ? stats->tokens : 1);
    tie(s->a, s->x);
    if (s->a->weight_means) find_weight_means(s);
}

/* s of a candidate: powers of the means, at least 1e-4, centred so that sqrt(max min) = 1. */
static void fill_scale(const search *s, candidate c)
{
    const double r = (double)c.step / s->a->grid;
    double least = INFINITY, most = 0;
    for (int64_t j = 0; j < s->k; j++) {
        double v = pow(s->x[j], r);
        if (c.weight_means) v /= pow(s->w[j], 1 - r) + 1e-4;
        s->scale[j] = (float)(v > 1e-4 ? v : 1e-4);
        if (s->scale[j] < least) least = s->scale[j];
        if (s->scale[j] > most) most = s->scale[j];
    }
    const double centre = sqrt(least * most);
    for (int64_t j = 0; j < s->k; j++) s->scale[j] = (float)(s->scale[j] / centre);
}

/* ---- one trial ---- */

/* d (n, K) = Q(w s) / s - w, `range` choosing the grids. */
static qz_status trial_error(float *d, const search *s, const qz_search_weight *weight, const float *w, int64_t stride,
                             int64_t n, qz_arena *scratch)
{
    const int64_t k = s->k;
    const float *scale = s->scale;
    qz_qtensor q;
    qz_stats seen = *s->a->stats;
    seen.divisor = scale;
    QZ_TRY(qz_qtensor_alloc(&q, &s->a->scheme, n, k, scratch));
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) d[i * k + j] = w[i * stride + j] * scale[j];
    qz_tensor scaled = qz_tensor_2d(d, QZ_F32, n, k);
    QZ_TRY(weight->range->choose(&q, s->a->backend, &scaled, &seen, &weight->range_options));
    qz_round_to_nearest(&q, &scaled);
    QZ_PARALLEL_FOR_STATIC
    for (int64_t i = 0; i < n; i++) {
        qz_qtensor_dequantize(d + i * k, &q, i, 1);
        for (int64_t j = 0; j < k; j++) d[i * k + j] = d[i * k + j] / scale[j] - w[i * stride + j];
    }
    return QZ_OK;
}

/* Sum over rows of d_n^T G d_n, or of |X_r d_n|^2 over the sampled tokens. */
static qz_status judge(double *loss, const search *s, bool sketch, const float *d, int64_t n, qz_arena *scratch)
{
    const qz_stats *stats = s->a->stats;
    qz_tensor error = qz_tensor_2d((void *)(uintptr_t)d, QZ_F32, n, s->k);
    if (!sketch) {
        double *losses = qz_arena_array(scratch, double, (size_t)n);
        if (!losses) return qz_arena_failed(scratch);
        qz_tensor out = qz_tensor_1d(losses, QZ_F64, n), gram = qz_tensor_2d(stats->gram, QZ_F32, s->k, s->k);
        QZ_TRY(qz_op_quadratic_form(s->a->backend, &out, &error, &gram));
        for (int64_t i = 0; i < n; i++) *loss += losses[i];
        return QZ_OK;
    }
    const int64_t tokens = stats->reservoir_rows;
    float *outputs = qz_arena_array(scratch, float, (size_t)(tokens * n));
    if (!outputs) return qz_arena_failed(scratch);
    qz_tensor y = qz_tensor_2d(outputs, QZ_F32, tokens, n), x = qz_tensor_2d(stats->reservoir, QZ_F32, tokens, s->k);
    QZ_TRY(qz_op_linear(s->a->backend, &y, &x, &error, NULL, false));
    for (int64_t i = 0; i < tokens * n; i++) *loss += (double)outputs[i] * outputs[i];
    return QZ_OK;
}

static qz_status rows_loss(double *loss, const search *s, const qz_search_weight *weight, bool sketch, const float *w,
                           int64_t stride, int64_t n, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    float *d = qz_arena_array(scratch, float, (size_t)(n * s->k));
    if (!d) return qz_arena_failed(scratch);
    QZ_TRY(trial_error(d, s, weight, w, stride, n, scratch));
    QZ_TRY(judge(loss, s, sketch, d, n, scratch));
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}

/* ---- coarse ---- */

/* Rows spread evenly over the weights from a seeded start, or all of them. */
static qz_status take_sample(search *s, qz_arena *scratch)
{
    const qz_search_args *a = s->a;
    qz_rng rng;
    qz_rng_seed(&rng, a->seed, (uint64_t)s->k);
    s->sample = qz_arena_array(scratch, float, (size_t)(s->sampled * s->k));
    if (!s->sample) return qz_arena_failed(scratch);
    const double step = (double)s->rows / (double)s->sampled;
    const double start = s->sampled < s->rows ? qz_rng_double(&rng) * step : 0;
    int64_t taken = 0, before = 0;
    for (int i = 0; i < a->weights; i++) {
        const qz_tensor *w = &a->weight[i].weight;
        for (; taken < s->sampled; taken++) {
            const int64_t row = (int64_t)(start + (double)taken * step) - before;
            if (row >= w->shape[0]) break;
            memcpy(s->sample + taken * s->k, qz_f32(w) + row * w->stride[0], (size_t)s->k * sizeof(float));
        }
        before += w->shape[0];
    }
    s->sampled = taken;
    return QZ_OK;
}

/* How much to look at, from the sizes alone. */
static void choose_effort(search *s)
{
    const qz_search_args *a = s->a;
    const double points = (double)a->grid * (a->weight_means ? 2 : 1), k = (double)s->k;
    const bool small = (double)s->rows * k * k * points <= SMALL;
    s->sampled = small || s->rows < SAMPLE ? s->rows : SAMPLE;
    s->sketch = !small && a->stats->reservoir_rows > 0 && s->k > 2 * a->stats->reservoir_rows;
}

static qz_status coarse_winner(candidate *best, search *s, qz_arena *scratch)
{
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    const qz_search_weight plain = {.range = minmax};
    *best = (candidate){.loss = INFINITY};
    QZ_TRY(take_sample(s, scratch));
    for (int means = 0; means <= (int)s->a->weight_means; means++)
        for (int step = 0; step < s->a->grid; step++) {
            candidate c = {.step = step, .weight_means = means != 0};
            fill_scale(s, c);
            QZ_TRY(rows_loss(&c.loss, s, &plain, s->sketch, s->sample, s->k, s->sampled, scratch));
            if (c.loss < best->loss) *best = c;
        }
    return QZ_OK;
}

/* ---- exact ---- */

static qz_status exact_loss(double *loss, const search *s, qz_arena *scratch)
{
    *loss = 0;
    for (int i = 0; i < s->a->weights; i++) {
        const qz_tensor *w = &s->a->weight[i].weight;
        for (int64_t first = 0; first < w->shape[0]; first += ROWS) {
            const int64_t n = w->shape[0] - first < ROWS ? w->shape[0] - first : ROWS;
            QZ_TRY(rows_loss(loss, s, &s->a->weight[i], false, qz_f32(w) + first * w->stride[0], w->stride[0], n,
                             scratch));
        }
    }
    return QZ_OK;
}

static qz_status search_new(search *s, const qz_search_args *a, float *scale, qz_arena *scratch)
{
    *s = (search){.a = a, .k = a->stats->k, .scale = scale};
    for (int i = 0; i < a->weights; i++) s->rows += a->weight[i].weight.shape[0];
    assert(!a->stats->divisor && (!a->tie_groups || a->tie_heads * a->tie_size == s->k));
    if (a->scheme.piece_rows != 1 || a->scheme.flat)
        return QZ_FAIL(QZ_UNSUPPORTED, "the scale search needs pieces within rows (a group or a channel)");
    s->x = qz_arena_array(scratch, double, (size_t)s->k);
    s->w = qz_arena_array(scratch, double, (size_t)s->k);
    if (!s->x || !s->w) return qz_arena_failed(scratch);
    find_means(s);
    choose_effort(s);
    return QZ_OK;
}

static void use_identity(qz_search_result *r, int64_t k)
{
    for (int64_t j = 0; j < k; j++) r->scale[j] = 1.0f;
    r->kept_identity = true;
    r->used_weight_means = false;
    r->exponent = 0;
    r->loss = r->identity_loss;
}

qz_status qz_scale_search(qz_search_result *r, const qz_search_args *a, qz_arena *scratch)
{
    search s;
    candidate best;
    qz_arena_mark mark = qz_arena_save(scratch);
    QZ_TRY(search_new(&s, a, r->scale, scratch));
    QZ_TRY(coarse_winner(&best, &s, scratch));
    for (int64_t j = 0; j < s.k; j++) r->scale[j] = 1.0f;
    QZ_TRY(exact_loss(&r->identity_loss, &s, scratch));
    fill_scale(&s, best);
    QZ_TRY(exact_loss(&r->loss, &s, scratch));
    r->kept_identity = false;
    r->exponent = (double)best.step / a->grid;
    r->used_weight_means = best.weight_means;
    if (!(r->loss < r->identity_loss)) use_identity(r, s.k);
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
