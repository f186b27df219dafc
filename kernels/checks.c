/* Checks of views, shapes, types and indices (checks.h), and the sentences that say what is wrong with them. */
#include "kernels/checks.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

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

static qz_status check_type(const qz_check *c, const char *name, const qz_tensor *x, unsigned types)
{
    char allowed[64];
    if (x->dtype < QZ_DTYPE_COUNT && types >> x->dtype & 1u) return QZ_OK;
    types_text(types, allowed, sizeof allowed);
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: %s has type %s, allowed: %s", c->op, name, qz_dtype_name(x->dtype), allowed);
}

static qz_status check_layout(const qz_check *c, const char *name, const qz_tensor *x)
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

static const qz_check_letter *bind(qz_check *c, const char *name, size_t length, int64_t extent, const char *from)
{
    for (int i = 0; i < c->count; i++) {
        if (strlen(c->letters[i].name) == length && memcmp(c->letters[i].name, name, length) == 0)
            return &c->letters[i];
    }
    qz_check_letter *l = &c->letters[c->count++];
    memcpy(l->name, name, length);
    l->name[length] = 0;
    l->extent = extent;
    l->from = from;
    return l;
}

static qz_status check_pattern(qz_check *c, const char *name, const qz_tensor *x, const char *pattern)
{
    char shape[128];
    int i = 0;
    for (const char *p = pattern; *p; i++) {
        size_t length = strcspn(p, ",");
        if (i == x->ndim) break;
        const qz_check_letter *l = bind(c, p, length, x->shape[i], name);
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

qz_status qz_check_view(qz_check *c, const char *name, const qz_tensor *x, unsigned types, const char *pattern)
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

qz_status qz_check_same_shape(const qz_check *c, const qz_tensor *y, const qz_tensor *x)
{
    char a[128], b[128];
    bool same = y->ndim == x->ndim;
    for (int i = 0; same && i < y->ndim; i++) same = y->shape[i] == x->shape[i];
    if (same) return QZ_OK;
    return QZ_FAIL(QZ_SHAPE, "%s: y is %s, but x is %s", c->op, shape_text(y, a, sizeof a), shape_text(x, b, sizeof b));
}

qz_status qz_check_indices(const qz_check *c, const char *name, const int32_t *index, int64_t count, int64_t low,
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

qz_status qz_check_missing(const qz_backend *backend, const char *op)
{
    return QZ_FAIL(QZ_UNSUPPORTED, "backend %s has no operation %s; choose another backend (`qcal list backends`)",
                   backend->plugin.name, op);
}

bool qz_check_can_round(qz_format f)
{
    return f == QZ_FORMAT_INT8 || f == QZ_FORMAT_FP8_E4M3 || f == QZ_FORMAT_FP8_E5M2;
}

qz_status qz_check_activations(const qz_check *c, const qz_act_scheme *s, const qz_act_values *v)
{
    if (s->mode == QZ_ACT_NONE) return QZ_FAIL(QZ_ARG, "%s: the scheme rounds nothing", c->op);
    if (!qz_check_can_round(s->format))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s, allowed: int8, fp8_e4m3, fp8_e5m2", c->op,
                       qz_format_of(s->format)->name);
    if (s->mode == QZ_ACT_GROUP && s->group < 1)
        return QZ_FAIL(QZ_ARG, "%s: a group of %lld channels, at least 1 is needed", c->op, (long long)s->group);
    if (s->mode != QZ_ACT_TENSOR && s->format == QZ_FORMAT_INT8 && s->symmetric && !qz_check_positive(s->divisor))
        return QZ_FAIL(QZ_ARG, "%s: the divisor of int8 scales is %g, must be 127 or 127.5", c->op, s->divisor);
    if (s->mode == QZ_ACT_TENSOR && (!v || !qz_check_positive(v->scale)))
        return QZ_FAIL(QZ_ARG, "%s: a static scheme with the scale %g, must be finite and above 0", c->op,
                       v ? v->scale : 0);
    return QZ_OK;
}

qz_status qz_check_grids(const qz_check *c, const qz_qtensor *q, const qz_tensor *w)
{
    const qz_format_info *f = qz_format_of(q->scheme.format);
    if (q->rows != w->shape[0] || q->cols != w->shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: q is (%lld, %lld), but w (%lld, %lld)", c->op, (long long)q->rows,
                       (long long)q->cols, (long long)w->shape[0], (long long)w->shape[1]);
    if (f->kind == QZ_KIND_PLAIN) return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s has no codes", c->op, f->name);
    if (!q->scales) return QZ_FAIL(QZ_ARG, "%s: q has no scales", c->op);
    if (q->scheme.double_quant && !(q->scale_codes && q->second_scales))
        return QZ_FAIL(QZ_ARG, "%s: q has double quantization, but no codes of scales", c->op);
    return QZ_OK;
}
