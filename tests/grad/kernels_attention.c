/* Attention, the rotary embedding and their gradients on every backend of the host against differences of a plain
 * attention in double: window, score cap, documents, keys before the first query, grouped heads. */
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "testing/gradient.h"

enum { B = 2, T = 7, PAST = 3, H = 4, HK = 2, D = 6, MOST = B * (T + PAST) * H * D };

typedef struct problem {
    int keys; /* T, or T + PAST */
    qz_attention how;
    double q[MOST], k[MOST], v[MOST], weight[MOST];
} problem;

static const int32_t documents[B * T] = {0, 0, 0, 3, 3, 3, 6, 0, 1, 1, 1, 1, 5, 5};

static bool sees(const problem *p, int b, int t, int s)
{
    const int at = p->keys - T + t;
    if (s > at || (p->how.window && at - s >= p->how.window)) return false;
    return !p->how.first || s >= p->how.first[b * T + t];
}

/* Of one query and head: weights of all keys. */
static void weigh(double *weight, const problem *p, int b, int t, int h)
{
    double sum = 0;
    for (int s = 0; s < p->keys; s++) {
        double score = 0;
        for (int d = 0; d < D; d++)
            score += p->q[((b * T + t) * H + h) * D + d] * p->k[((b * p->keys + s) * HK + h / (H / HK)) * D + d];
        score *= (double)p->how.scale;
        if (p->how.softcap > 0) score = (double)p->how.softcap * tanh(score / (double)p->how.softcap);
        weight[s] = sees(p, b, t, s) ? exp(score) : 0;
        sum += weight[s];
    }
    for (int s = 0; s < p->keys; s++) weight[s] /= sum;
}

static double value(const void *context)
{
    const problem *p = context;
    double sum = 0, weight[T + PAST];
    for (int i = 0; i < B * T * H; i++) {
        const int h = i % H, t = i / H % T, b = i / H / T;
        weigh(weight, p, b, t, h);
        for (int s = 0; s < p->keys; s++) {
            for (int d = 0; d < D; d++)
                sum += p->weight[i * D + d] * weight[s] * p->v[((b * p->keys + s) * HK + h / (H / HK)) * D + d];
        }
    }
    return sum;
}

static void fill(qz_rng *rng, double *x, int count)
{
    for (int i = 0; i < count; i++) x[i] = (double)(float)qz_rng_normal(rng);
}

static qz_tensor view(const double *x, int tokens, int heads, float *data)
{
    for (int i = 0; i < B * tokens * heads * D; i++) data[i] = (float)x[i];
    return qz_tensor_4d(data, QZ_F32, B, tokens, heads, D);
}

/* In fp32: y and the gradients of q, k and v. */
static void run(float out[4][MOST], problem *p, const qz_backend *backend)
{
    static float data[4][MOST], sums[2][B * T * H];
    const int s = p->keys;
    qz_tensor q = view(p->q, T, H, data[0]), k = view(p->k, s, HK, data[1]), v = view(p->v, s, HK, data[2]);
    qz_tensor dy = view(p->weight, T, H, data[3]), y = qz_tensor_4d(out[0], QZ_F32, B, T, H, D);
    qz_tensor dq = qz_tensor_4d(out[1], QZ_F32, B, T, H, D), dk = qz_tensor_4d(out[2], QZ_F32, B, s, HK, D);
    qz_tensor dv = qz_tensor_4d(out[3], QZ_F32, B, s, HK, D), lse = qz_tensor_3d(sums[0], QZ_F32, B, T, H);
    qz_tensor delta = qz_tensor_3d(sums[1], QZ_F32, B, T, H);
    check_ok(qz_op_attention(backend, &y, &lse, &q, &k, &v, &p->how));
    check_ok(qz_op_attention_grad(backend, &dq, &dk, &dv, &delta, &dy, &y, &lse, &q, &k, &v, &p->how));
}

static void check(problem *p, const qz_backend *backend)
{
    static float out[4][MOST];
    run(out, p, backend);
    gradient_check("attention, q", value, p, p->q, out[1], B * T * H * D);
    gradient_check("attention, k", value, p, p->k, out[2], B * p->keys * HK * D);
    gradient_check("attention, v", value, p, p->v, out[3], B * p->keys * HK * D);
}

static void check_all(const qz_backend *backend)
{
    static const struct {
        int past, window, documents;
        float cap;
    } kinds[] = {{0, 0, 0, 0}, {0, 3, 0, 0}, {0, 0, 0, 1.5f}, {0, 0, 1, 0}, {0, 2, 1, 2}, {1, 0, 0, 0}, {1, 4, 0, 3}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        static problem p;
        qz_rng rng;
        qz_rng_seed(&rng, 5, i);
        p.keys = kinds[i].past ? T + PAST : T;
        p.how = (qz_attention){.scale = 0.4f, .softcap = kinds[i].cap, .window = kinds[i].window};
        if (kinds[i].documents) p.how.first = documents;
        fill(&rng, p.q, B * T * H * D);
        fill(&rng, p.k, B * p.keys * HK * D);
        fill(&rng, p.v, B * p.keys * HK * D);
        fill(&rng, p.weight, B * T * H * D);
        check(&p, backend);
    }
}

Test(kernels_attention_gradient, equals_differences)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (backend->available() && backend->device == QZ_HOST) check_all(backend);
    }
}

static int count_denormal(const float *x, int count)
{
    int found = 0;
    for (int i = 0; i < count; i++) found += fpclassify(x[i]) == FP_SUBNORMAL;
    return found;
}

/* Scores up to hundreds apart: weights that no sum can tell from 0 are 0, and products stay as fast as others. */
Test(kernels_attention_gradient, has_no_denormals)
{
    static problem p;
    static float plain[4][MOST], fast[4][MOST];
    static const int counts[4] = {B * T * H * D, B * T * H * D, B * T * HK * D, B * T * HK * D};
    qz_rng rng;
    qz_rng_seed(&rng, 7, 0);
    p.keys = T;
    p.how = (qz_attention){.scale = 22};
    fill(&rng, p.q, counts[1]);
    fill(&rng, p.k, counts[2]);
    fill(&rng, p.v, counts[3]);
    fill(&rng, p.weight, counts[0]);
    const qz_backend *ref, *cpu;
    check_ok(qz_backend_find(&ref, "ref"));
    check_ok(qz_backend_find(&cpu, "cpu"));
    run(plain, &p, ref);
    run(fast, &p, cpu);
    int denormal = 0;
    for (int i = 0; i < 4; i++) {
        float largest = 0, error = 0;
        for (int j = 0; j < counts[i]; j++) {
            largest = fmaxf(largest, fabsf(plain[i][j]));
            error = fmaxf(error, fabsf(fast[i][j] - plain[i][j]));
        }
        cr_assert(error <= (float)TOL_FAR_SCORES * largest, "result %d: off by %g of %g", i, (double)error,
                  (double)largest);
        cr_assert(count_denormal(fast[i], counts[i]) == 0, "result %d has denormal numbers", i);
        denormal += count_denormal(plain[i], counts[i]);
    }
    cr_assert(denormal > 0, "ref has none either: the scores are too near");
}

/* ---- rope: x (T, H, D) ---- */

typedef struct rotation {
    double x[T * H * D], weight[T * H * D];
    float cos[T * D / 2], sin[T * D / 2];
} rotation;

static double rotated(const void *context)
{
    const rotation *r = context;
    double sum = 0;
    for (int i = 0; i < T * H; i++) {
        for (int d = 0; d < D / 2; d++) {
            const double c = (double)r->cos[i / H * D / 2 + d], s = (double)r->sin[i / H * D / 2 + d];
            const double a = r->x[i * D + d], b = r->x[i * D + d + D / 2];
            sum += r->weight[i * D + d] * (a * c - b * s) + r->weight[i * D + d + D / 2] * (b * c + a * s);
        }
    }
    return sum;
}

Test(kernels_attention_gradient, rope_backwards)
{
    static rotation r;
    static float dx[T * H * D];
    int32_t rows[T];
    qz_rng rng;
    qz_rng_seed(&rng, 6, 0);
    fill(&rng, r.x, T * H * D);
    fill(&rng, r.weight, T * H * D);
    for (int i = 0; i < T * D / 2; i++) {
        r.cos[i] = cosf((float)i);
        r.sin[i] = sinf((float)i);
    }
    for (int t = 0; t < T; t++) rows[t] = t;
    qz_tensor c = qz_tensor_2d(r.cos, QZ_F32, T, D / 2), s = qz_tensor_2d(r.sin, QZ_F32, T, D / 2);
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available() || backend->device != QZ_HOST) continue;
        for (int i = 0; i < T * H * D; i++) dx[i] = (float)r.weight[i];
        qz_tensor view3 = qz_tensor_3d(dx, QZ_F32, T, H, D);
        check_ok(qz_op_rope(backend, &view3, &c, &s, rows, true));
        gradient_check("rope", rotated, &r, r.x, dx, T * H * D);
    }
}
