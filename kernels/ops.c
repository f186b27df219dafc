/* qz_op_<name>: what every backend may rely on is checked here once, then the slot is called.
 *
 * A view is checked against a pattern such as "T,K": the first tensor that shows a letter binds it, later ones must
 * agree. Extents are at least 1 and below 2^31, the last dimension is dense, outer strides are at least as long as a
 * row, and data lies on the backend's device. Indices (ids, positions, targets) are checked where the host can read
 * them. */
#include <float.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "kernels/tables.h"

enum { MAX_LETTERS = 8 };
#define TYPE(t) (1u << QZ_##t)
#define PLAIN (TYPE(F32) | TYPE(F16) | TYPE(BF16))
#define CONVERTIBLE (PLAIN | TYPE(F8_E4M3) | TYPE(F8_E5M2))

typedef struct letter {
    char name[4];
    int64_t extent;
    const char *from;
} letter;

typedef struct check {
    const char *op;
    const qz_backend *backend;
    letter letters[MAX_LETTERS];
    int count;
} check;

/* "(18, 40)" */
static const char *shape_text(const qz_tensor *x, char *out, size_t size)
{
    int used = snprintf(out, size, "(");
    for (int i = 0; i < x->ndim && used < (int)size; i++)
        used += snprintf(out + used, size - (size_t)used, "%s%lld", i ? ", " : "", (long long)x->shape[i]);
    if (used < (int)size) snprintf(out + used, size - (size_t)used, ")");
    return out;
}

static void types_text(unsigned types, char *out, size_t size)
{
    int used = 0;
    out[0] = 0;
    for (int t = 0; t < QZ_DTYPE_COUNT; t++) {
        if (types >> t & 1u && used < (int)size)
            used += snprintf(out + used, size - (size_t)used, "%s%s", used ? ", " : "", qz_dtype_name((qz_dtype)t));
    }
}

static qz_status check_type(const check *c, const char *name, const qz_tensor *x, unsigned types)
{
    char allowed[64];
    if (x->dtype < QZ_DTYPE_COUNT && types >> x->dtype & 1u) return QZ_OK;
    types_text(types, allowed, sizeof allowed);
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: %s has type %s, allowed: %s", c->op, name, qz_dtype_name(x->dtype), allowed);
}

static qz_status check_layout(const check *c, const char *name, const qz_tensor *x)
{
    char shape[128];
    if (x->ndim < 1 || x->ndim > 4)
        return QZ_FAIL(QZ_SHAPE, "%s: %s has %d dimensions, allowed: 1 to 4", c->op, name, x->ndim);
    int last = x->ndim - 1;
    for (int i = 0; i <= last; i++) {
        if (x->shape[i] < 1 || x->shape[i] > INT_MAX || x->stride[i] > INT_MAX)
            return QZ_FAIL(QZ_SHAPE, "%s: %s %s, stride %lld: extents are 1 to 2^31 - 1, strides below 2^31", c->op,
                           name, shape_text(x, shape, sizeof shape), (long long)x->stride[i]);
        if (i < last ? x->stride[i] < x->shape[last] : x->stride[i] != 1)
            return QZ_FAIL(QZ_SHAPE,
                           "%s: %s %s has stride %lld in dimension %d; the last must be 1, others a row or more", c->op,
                           name, shape_text(x, shape, sizeof shape), (long long)x->stride[i], i);
    }
    return QZ_OK;
}

static const letter *bind(check *c, const char *name, size_t length, int64_t extent, const char *from)
{
    for (int i = 0; i < c->count; i++) {
        if (strlen(c->letters[i].name) == length && memcmp(c->letters[i].name, name, length) == 0)
            return &c->letters[i];
    }
    letter *l = &c->letters[c->count++];
    memcpy(l->name, name, length);
    l->name[length] = 0;
    l->extent = extent;
    l->from = from;
    return l;
}

static qz_status check_pattern(check *c, const char *name, const qz_tensor *x, const char *pattern)
{
    char shape[128];
    int i = 0;
    for (const char *p = pattern; *p; i++) {
        size_t length = strcspn(p, ",");
        if (i == x->ndim) break;
        const letter *l = bind(c, p, length, x->shape[i], name);
        if (l->extent != x->shape[i])
            return QZ_FAIL(QZ_SHAPE, "%s: %s (%s) is %s: %s is %lld, but %lld in %s", c->op, name, pattern,
                           shape_text(x, shape, sizeof shape), l->name, (long long)x->shape[i], (long long)l->extent,
                           l->from);
        p += length;
        if (*p == ',') p++;
        if (!*p && i + 1 == x->ndim) return QZ_OK;
    }
    return QZ_FAIL(QZ_SHAPE, "%s: %s is %s, expected (%s)", c->op, name, shape_text(x, shape, sizeof shape), pattern);
}

/* `pattern` NULL: any shape, but contiguous unless 2-D. */
static qz_status view(check *c, const char *name, const qz_tensor *x, unsigned types, const char *pattern)
{
    char shape[128];
    if (!x || !x->data) return QZ_FAIL(QZ_ARG, "%s: %s has no data", c->op, name);
    if (x->device != c->backend->device)
        return QZ_FAIL(QZ_DEVICE, "%s: %s is not in the memory of backend %s; copy it there first", c->op, name,
                       c->backend->plugin.name);
    QZ_TRY(check_type(c, name, x, types));
    QZ_TRY(check_layout(c, name, x));
    if (pattern) return check_pattern(c, name, x, pattern);
    if (x->ndim != 2 && !qz_tensor_is_contiguous(x))
        return QZ_FAIL(QZ_SHAPE, "%s: %s %s must be contiguous (only matrices may have a row stride)", c->op, name,
                       shape_text(x, shape, sizeof shape));
    return QZ_OK;
}

static qz_status same_shape(const check *c, const qz_tensor *y, const qz_tensor *x)
{
    char a[128], b[128];
    bool same = y->ndim == x->ndim;
    for (int i = 0; same && i < y->ndim; i++) same = y->shape[i] == x->shape[i];
    if (same) return QZ_OK;
    return QZ_FAIL(QZ_SHAPE, "%s: y is %s, but x is %s", c->op, shape_text(y, a, sizeof a), shape_text(x, b, sizeof b));
}

/* low <= index[i] < limit; negative ones are allowed when low is INT32_MIN. */
static qz_status check_indices(const check *c, const char *name, const int32_t *index, int64_t count, int64_t low,
                               int64_t limit, const char *what)
{
    if (!index) return QZ_FAIL(QZ_ARG, "%s: %s has no data", c->op, name);
    if (c->backend->device != QZ_HOST) return QZ_OK;
    for (int64_t i = 0; i < count; i++) {
        if (index[i] < low || index[i] >= limit)
            return QZ_FAIL(QZ_ARG, "%s: %s[%lld] is %d, but %s has %lld", c->op, name, (long long)i, index[i], what,
                           (long long)limit);
    }
    return QZ_OK;
}

static qz_status missing(const qz_backend *backend, const char *op)
{
    return QZ_FAIL(QZ_UNSUPPORTED, "backend %s has no operation %s; choose another backend (`qcal list backends`)",
                   backend->plugin.name, op);
}

static bool positive(float scale)
{
    return scale > 0 && scale <= FLT_MAX;
}

#define BEGIN(name)                                                                                                    \
    check c = {.op = #name, .backend = backend};                                                                       \
    if (!backend->name) return missing(backend, #name);

qz_status qz_op_convert(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x)
{
    BEGIN(convert)
    QZ_TRY(view(&c, "x", x, CONVERTIBLE, NULL));
    QZ_TRY(view(&c, "y", y, CONVERTIBLE, NULL));
    QZ_TRY(same_shape(&c, y, x));
    return backend->convert(y, x);
}

qz_status qz_op_embedding(const qz_backend *backend, const qz_tensor *y, const qz_tensor *table, const int32_t *ids)
{
    BEGIN(embedding)
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,C"));
    QZ_TRY(view(&c, "table", table, PLAIN, "V,C"));
    QZ_TRY(check_indices(&c, "ids", ids, y->shape[0], 0, table->shape[0], "the number of rows of table"));
    return backend->embedding(y, table, ids);
}

qz_status qz_op_rmsnorm(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                        float eps, float weight_offset)
{
    BEGIN(rmsnorm)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,C"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,C"));
    QZ_TRY(view(&c, "w", w, TYPE(F32), "C"));
    return backend->rmsnorm(y, x, w, eps, weight_offset);
}

qz_status qz_op_linear(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                       const qz_tensor *bias, bool accumulate)
{
    BEGIN(linear)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,K"));
    QZ_TRY(view(&c, "w", w, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,N"));
    if (bias) QZ_TRY(view(&c, "bias", bias, TYPE(F32), "N"));
    return backend->linear(y, x, w, bias, accumulate);
}

qz_status qz_op_rope(const qz_backend *backend, const qz_tensor *x, const qz_tensor *cos, const qz_tensor *sin,
                     const int32_t *positions)
{
    BEGIN(rope)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,H,D"));
    QZ_TRY(view(&c, "cos", cos, TYPE(F32), "P,D/2"));
    QZ_TRY(view(&c, "sin", sin, TYPE(F32), "P,D/2"));
    if (x->shape[2] != 2 * cos->shape[1])
        return QZ_FAIL(QZ_SHAPE, "rope: x has heads of %lld, cos and sin have rows of %lld, which must be half of it",
                       (long long)x->shape[2], (long long)cos->shape[1]);
    QZ_TRY(
        check_indices(&c, "positions", positions, x->shape[0], 0, cos->shape[0], "the number of rows of cos and sin"));
    return backend->rope(x, cos, sin, positions);
}

qz_status qz_op_attention(const qz_backend *backend, const qz_tensor *y, const qz_tensor *q, const qz_tensor *k,
                          const qz_tensor *v, float scale, int64_t window, float softcap)
{
    BEGIN(attention)
    QZ_TRY(view(&c, "q", q, TYPE(F32), "B,T,H,D"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "B,T,H,D"));
    QZ_TRY(view(&c, "k", k, TYPE(F32), "B,S,HK,D"));
    QZ_TRY(view(&c, "v", v, TYPE(F32), "B,S,HK,D"));
    if (k->shape[1] < q->shape[1])
        return QZ_FAIL(QZ_SHAPE, "attention: %lld keys for %lld queries; there must be at least as many keys",
                       (long long)k->shape[1], (long long)q->shape[1]);
    if (q->shape[2] % k->shape[2] != 0)
        return QZ_FAIL(QZ_SHAPE, "attention: %lld query heads do not divide into %lld key-value heads",
                       (long long)q->shape[2], (long long)k->shape[2]);
    return backend->attention(y, q, k, v, scale, window, softcap);
}

qz_status qz_op_swiglu(const qz_backend *backend, const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    BEGIN(swiglu)
    QZ_TRY(view(&c, "gate", gate, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "up", up, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,F"));
    return backend->swiglu(y, gate, up);
}

qz_status qz_op_geglu(const qz_backend *backend, const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    BEGIN(geglu)
    QZ_TRY(view(&c, "gate", gate, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "up", up, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,F"));
    return backend->geglu(y, gate, up);
}

qz_status qz_op_softcap(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float cap)
{
    BEGIN(softcap)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,F"));
    if (!positive(cap)) return QZ_FAIL(QZ_ARG, "%s: the cap is %g, must be finite and above 0", c.op, cap);
    return backend->softcap(y, x, cap);
}

qz_status qz_op_scale(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float factor)
{
    BEGIN(scale)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,F"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,F"));
    return backend->scale(y, x, factor);
}

qz_status qz_op_route(const qz_backend *backend, int32_t *expert, const qz_tensor *weight, const qz_tensor *logits,
                      bool normalize)
{
    BEGIN(route)
    QZ_TRY(view(&c, "logits", logits, TYPE(F32), "T,E"));
    QZ_TRY(view(&c, "weight", weight, TYPE(F32), "T,A"));
    if (!expert) return QZ_FAIL(QZ_ARG, "%s: expert has no data", c.op);
    if (weight->shape[1] > logits->shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: %lld experts for a token, but there are %lld", c.op, (long long)weight->shape[1],
                       (long long)logits->shape[1]);
    return backend->route(expert, weight, logits, normalize);
}

qz_status qz_op_add_rows(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const int32_t *rows,
                         const qz_tensor *weight)
{
    BEGIN(add_rows)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "R,C"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,C"));
    QZ_TRY(view(&c, "weight", weight, TYPE(F32), "R"));
    QZ_TRY(check_indices(&c, "rows", rows, x->shape[0], 0, y->shape[0], "the number of rows of y"));
    for (int64_t i = 1; backend->device == QZ_HOST && i < x->shape[0]; i++) {
        if (rows[i] <= rows[i - 1])
            return QZ_FAIL(QZ_ARG, "%s: rows[%lld] is %d after %d, but rows must increase", c.op, (long long)i, rows[i],
                           rows[i - 1]);
    }
    return backend->add_rows(y, x, rows, weight);
}

qz_status qz_op_add(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x)
{
    BEGIN(add)
    QZ_TRY(view(&c, "x", x, TYPE(F32), NULL));
    QZ_TRY(view(&c, "y", y, TYPE(F32), NULL));
    QZ_TRY(same_shape(&c, y, x));
    return backend->add(y, x);
}

qz_status qz_op_gram(const qz_backend *backend, const qz_tensor *g, const qz_tensor *x)
{
    BEGIN(gram)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,K"));
    QZ_TRY(view(&c, "g", g, TYPE(F32), "K,K"));
    return backend->gram(g, x);
}

qz_status qz_op_channel_stats(const qz_backend *backend, const qz_tensor *absmax, const qz_tensor *abssum,
                              const qz_tensor *x)
{
    BEGIN(channel_stats)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,K"));
    QZ_TRY(view(&c, "absmax", absmax, TYPE(F32), "K"));
    QZ_TRY(view(&c, "abssum", abssum, TYPE(F64), "K"));
    return backend->channel_stats(absmax, abssum, x);
}

qz_status qz_op_quadratic_form(const qz_backend *backend, const qz_tensor *out, const qz_tensor *d, const qz_tensor *g)
{
    BEGIN(quadratic_form)
    QZ_TRY(view(&c, "d", d, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "g", g, TYPE(F32), "K,K"));
    QZ_TRY(view(&c, "out", out, TYPE(F64), "N"));
    return backend->quadratic_form(out, d, g);
}

qz_status qz_op_log_prob(const qz_backend *backend, const qz_tensor *out, const qz_tensor *logits,
                         const int32_t *target)
{
    BEGIN(log_prob)
    QZ_TRY(view(&c, "logits", logits, TYPE(F32), "T,V"));
    QZ_TRY(view(&c, "out", out, TYPE(F64), "T"));
    QZ_TRY(check_indices(&c, "target", target, out->shape[0], INT32_MIN, logits->shape[1], "a row of logits"));
    return backend->log_prob(out, logits, target);
}

qz_status qz_op_divergence_sums(const qz_backend *backend, const qz_tensor *sums, const qz_tensor *a,
                                const qz_tensor *b)
{
    BEGIN(divergence_sums)
    QZ_TRY(view(&c, "a", a, TYPE(F32), "T,V"));
    QZ_TRY(view(&c, "b", b, TYPE(F32), "T,V"));
    QZ_TRY(view(&c, "sums", sums, TYPE(F64), "T,S"));
    if (sums->shape[1] != QZ_DIVERGENCE_SUMS)
        return QZ_FAIL(QZ_SHAPE, "divergence_sums: sums has %lld columns, expected %d", (long long)sums->shape[1],
                       QZ_DIVERGENCE_SUMS);
    return backend->divergence_sums(sums, a, b);
}

qz_status qz_op_first_nonfinite(const qz_backend *backend, const qz_tensor *x, int64_t *index)
{
    BEGIN(first_nonfinite)
    QZ_TRY(view(&c, "x", x, PLAIN, NULL));
    return backend->first_nonfinite(x, index);
}

static bool can_round_to(qz_format f)
{
    return f == QZ_FORMAT_INT8 || f == QZ_FORMAT_FP8_E4M3 || f == QZ_FORMAT_FP8_E5M2;
}

static qz_status check_rounding(const check *c, const qz_act_scheme *s, const qz_act_values *v)
{
    if (s->mode == QZ_ACT_NONE) return QZ_FAIL(QZ_ARG, "%s: the scheme rounds nothing", c->op);
    if (!can_round_to(s->format))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s, allowed: int8, fp8_e4m3, fp8_e5m2", c->op,
                       qz_format_of(s->format)->name);
    if (s->mode == QZ_ACT_GROUP && s->group < 1)
        return QZ_FAIL(QZ_ARG, "%s: a group of %lld channels, at least 1 is needed", c->op, (long long)s->group);
    if (s->mode != QZ_ACT_TENSOR && s->format == QZ_FORMAT_INT8 && s->symmetric && !positive(s->divisor))
        return QZ_FAIL(QZ_ARG, "%s: the divisor of int8 scales is %g, must be 127 or 127.5", c->op, s->divisor);
    if (s->mode == QZ_ACT_TENSOR && (!v || !positive(v->scale)))
        return QZ_FAIL(QZ_ARG, "%s: a static scheme with the scale %g, must be finite and above 0", c->op,
                       v ? v->scale : 0);
    return QZ_OK;
}

qz_status qz_op_round_activations(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x,
                                  const qz_act_scheme *scheme, const qz_act_values *values)
{
    BEGIN(round_activations)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,K"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,K"));
    QZ_TRY(check_rounding(&c, scheme, values));
    return backend->round_activations(y, x, scheme, values);
}

qz_status qz_op_round_heads(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *scale,
                            qz_format format)
{
    BEGIN(round_heads)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,HK,D"));
    QZ_TRY(view(&c, "y", y, TYPE(F32), "T,HK,D"));
    QZ_TRY(view(&c, "scale", scale, TYPE(F32), "HK"));
    if (!can_round_to(format))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s, allowed: int8, fp8_e4m3, fp8_e5m2", c.op,
                       qz_format_of(format)->name);
    for (int64_t h = 0; backend->device == QZ_HOST && h < scale->shape[0]; h++) {
        if (!positive(qz_f32(scale)[h]))
            return QZ_FAIL(QZ_ARG, "%s: the scale of head %lld is %g, must be finite and above 0", c.op, (long long)h,
                           qz_f32(scale)[h]);
    }
    return backend->round_heads(y, x, scale, format);
}

qz_status qz_op_histogram(const qz_backend *backend, uint64_t *counts, const qz_tensor *x)
{
    BEGIN(histogram)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "T,K"));
    if (!counts) return QZ_FAIL(QZ_ARG, "%s: counts has no data", c.op);
    return backend->histogram(counts, x);
}

qz_status qz_op_cholesky(const qz_backend *backend, const qz_tensor *a, int64_t size, int64_t *failed)
{
    BEGIN(cholesky)
    QZ_TRY(view(&c, "a", a, TYPE(F64), "P"));
    if (size < 1 || qz_triangle_count(size) != a->shape[0])
        return QZ_FAIL(QZ_SHAPE, "cholesky: a has %lld elements, but the triangle of %lld rows has %lld",
                       (long long)a->shape[0], (long long)size, size < 1 ? 0 : (long long)qz_triangle_count(size));
    return backend->cholesky(a, size, failed);
}

qz_status qz_op_unit_solve(const qz_backend *backend, const qz_tensor *x, const qz_tensor *l)
{
    BEGIN(unit_solve)
    QZ_TRY(view(&c, "x", x, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "l", l, TYPE(F32), "K,K"));
    return backend->unit_solve(x, l);
}

static qz_status check_grids(check *c, const qz_round_grids *g, int64_t cols)
{
    if (qz_format_of(g->scheme->format)->kind == QZ_KIND_PLAIN)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s has no codes", c->op, qz_format_of(g->scheme->format)->name);
    if (cols > QZ_ROUND_COLUMNS)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld columns, at most %d are allowed", c->op, (long long)cols, QZ_ROUND_COLUMNS);
    QZ_TRY(view(c, "scales", &g->scales, TYPE(F32), "G,N"));
    if (g->zeros.data) QZ_TRY(view(c, "zeros", &g->zeros, TYPE(U8), "G,N"));
    return check_indices(c, "row", g->row, cols, 0, g->scales.shape[0], "the number of rows of scales");
}

qz_status qz_op_round_columns(const qz_backend *backend, const qz_tensor *codes, const qz_tensor *d,
                              const qz_tensor *loss, const qz_tensor *w, const qz_tensor *feedback, const qz_tensor *l,
                              const qz_tensor *weight, const qz_round_grids *grids)
{
    BEGIN(round_columns)
    QZ_TRY(view(&c, "w", w, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "c", feedback, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "d", d, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "codes", codes, TYPE(U8), "N,K"));
    QZ_TRY(view(&c, "l", l, TYPE(F32), "K,K"));
    QZ_TRY(view(&c, "loss", loss, TYPE(F64), "N"));
    QZ_TRY(view(&c, "weight", weight, TYPE(F64), "K"));
    QZ_TRY(check_grids(&c, grids, w->shape[1]));
    return backend->round_columns(codes, d, loss, w, feedback, l, weight, grids);
}

/* Runs of one row that each lie in one piece. */
static int64_t runs_of(const qz_scheme *s, int64_t cols, int64_t row)
{
    int64_t runs = 0, piece;
    for (int64_t k = 0; k < cols; k = qz_scheme_run(&piece, s, cols, row, k)) runs++;
    return runs;
}

qz_status qz_op_rounding_sums(const qz_backend *backend, const qz_tensor *sums, const qz_tensor *w,
                              const qz_tensor *weight, const qz_qtensor *q)
{
    BEGIN(rounding_sums)
    QZ_TRY(view(&c, "w", w, TYPE(F32), "N,K"));
    QZ_TRY(view(&c, "weight", weight, TYPE(F32), "K"));
    QZ_TRY(view(&c, "sums", sums, TYPE(F64), "N,S"));
    if (q->rows != w->shape[0] || q->cols != w->shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: q is (%lld, %lld), but w (%lld, %lld)", c.op, (long long)q->rows,
                       (long long)q->cols, (long long)w->shape[0], (long long)w->shape[1]);
    if (qz_format_of(q->scheme.format)->kind == QZ_KIND_PLAIN)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s has no codes", c.op, qz_format_of(q->scheme.format)->name);
    for (int64_t n = 0; n < (q->scheme.flat ? q->rows : 1); n++)
        if (4 * runs_of(&q->scheme, q->cols, n) > sums->shape[1])
            return QZ_FAIL(QZ_SHAPE, "%s: rows of sums have %lld elements, %lld are needed", c.op,
                           (long long)sums->shape[1], (long long)(4 * runs_of(&q->scheme, q->cols, n)));
    return backend->rounding_sums(sums, w, weight, q);
}
