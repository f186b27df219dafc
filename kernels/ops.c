/* qz_op_<name>: what every backend may rely on is checked here once (checks.h), then the slot is called. */
#include "kernels/checks.h"

qz_status qz_op_convert(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(convert)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_CONVERTIBLE, NULL));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_CONVERTIBLE, NULL));
    QZ_TRY(qz_check_same_shape(&c, y, x));
    return backend->convert(y, x);
}

qz_status qz_op_embedding(const qz_backend *backend, const qz_tensor *y, const qz_tensor *table, const int32_t *ids)
{
    QZ_CHECK_BEGIN(embedding)
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,C"));
    QZ_TRY(qz_check_view(&c, "table", table, QZ_CHECK_PLAIN, "V,C"));
    QZ_TRY(qz_check_indices(&c, "ids", ids, y->shape[0], 0, table->shape[0], "the number of rows of table"));
    return backend->embedding(y, table, ids);
}

qz_status qz_op_rmsnorm(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                        float eps, float weight_offset)
{
    QZ_CHECK_BEGIN(rmsnorm)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,C"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,C"));
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "C"));
    return backend->rmsnorm(y, x, w, eps, weight_offset);
}

qz_status qz_op_linear(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                       const qz_tensor *bias, bool accumulate)
{
    QZ_CHECK_BEGIN(linear)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,N"));
    if (bias) QZ_TRY(qz_check_view(&c, "bias", bias, QZ_CHECK_TYPE(F32), "N"));
    return backend->linear(y, x, w, bias, accumulate);
}

qz_status qz_op_swiglu(const qz_backend *backend, const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    QZ_CHECK_BEGIN(swiglu)
    QZ_TRY(qz_check_view(&c, "gate", gate, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "up", up, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,F"));
    return backend->swiglu(y, gate, up);
}

qz_status qz_op_geglu(const qz_backend *backend, const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    QZ_CHECK_BEGIN(geglu)
    QZ_TRY(qz_check_view(&c, "gate", gate, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "up", up, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,F"));
    return backend->geglu(y, gate, up);
}

qz_status qz_op_softcap(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float cap)
{
    QZ_CHECK_BEGIN(softcap)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,F"));
    if (!qz_check_positive(cap)) return QZ_FAIL(QZ_ARG, "%s: the cap is %g, must be finite and above 0", c.op, cap);
    return backend->softcap(y, x, cap);
}

qz_status qz_op_scale(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, float factor)
{
    QZ_CHECK_BEGIN(scale)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,F"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,F"));
    return backend->scale(y, x, factor);
}

qz_status qz_op_route(const qz_backend *backend, int32_t *expert, const qz_tensor *weight, const qz_tensor *logits,
                      bool normalize)
{
    QZ_CHECK_BEGIN(route)
    QZ_TRY(qz_check_view(&c, "logits", logits, QZ_CHECK_TYPE(F32), "T,E"));
    QZ_TRY(qz_check_view(&c, "weight", weight, QZ_CHECK_TYPE(F32), "T,A"));
    if (!expert) return QZ_FAIL(QZ_ARG, "%s: expert has no data", c.op);
    if (weight->shape[1] > logits->shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: %lld experts for a token, but there are %lld", c.op, (long long)weight->shape[1],
                       (long long)logits->shape[1]);
    return backend->route(expert, weight, logits, normalize);
}

qz_status qz_op_add_rows(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const int32_t *rows,
                         const qz_tensor *weight)
{
    QZ_CHECK_BEGIN(add_rows)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "R,C"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,C"));
    QZ_TRY(qz_check_view(&c, "weight", weight, QZ_CHECK_TYPE(F32), "R"));
    QZ_TRY(qz_check_indices(&c, "rows", rows, x->shape[0], 0, y->shape[0], "the number of rows of y"));
    for (int64_t i = 1; backend->device == QZ_HOST && i < x->shape[0]; i++) {
        if (rows[i] <= rows[i - 1])
            return QZ_FAIL(QZ_ARG, "%s: rows[%lld] is %d after %d, but rows must increase", c.op, (long long)i, rows[i],
                           rows[i - 1]);
    }
    return backend->add_rows(y, x, rows, weight);
}

qz_status qz_op_add(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(add)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), NULL));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), NULL));
    QZ_TRY(qz_check_same_shape(&c, y, x));
    return backend->add(y, x);
}

qz_status qz_op_gram(const qz_backend *backend, const qz_tensor *g, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(gram)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "g", g, QZ_CHECK_TYPE(F32), "K,K"));
    return backend->gram(g, x);
}

qz_status qz_op_channel_stats(const qz_backend *backend, const qz_tensor *absmax, const qz_tensor *abssum,
                              const qz_tensor *x)
{
    QZ_CHECK_BEGIN(channel_stats)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "absmax", absmax, QZ_CHECK_TYPE(F32), "K"));
    QZ_TRY(qz_check_view(&c, "abssum", abssum, QZ_CHECK_TYPE(F64), "K"));
    return backend->channel_stats(absmax, abssum, x);
}

qz_status qz_op_quadratic_form(const qz_backend *backend, const qz_tensor *out, const qz_tensor *d, const qz_tensor *g)
{
    QZ_CHECK_BEGIN(quadratic_form)
    QZ_TRY(qz_check_view(&c, "d", d, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "g", g, QZ_CHECK_TYPE(F32), "K,K"));
    QZ_TRY(qz_check_view(&c, "out", out, QZ_CHECK_TYPE(F64), "N"));
    return backend->quadratic_form(out, d, g);
}

qz_status qz_op_log_prob(const qz_backend *backend, const qz_tensor *out, const qz_tensor *logits,
                         const int32_t *target)
{
    QZ_CHECK_BEGIN(log_prob)
    QZ_TRY(qz_check_view(&c, "logits", logits, QZ_CHECK_TYPE(F32), "T,V"));
    QZ_TRY(qz_check_view(&c, "out", out, QZ_CHECK_TYPE(F64), "T"));
    QZ_TRY(qz_check_indices(&c, "target", target, out->shape[0], INT32_MIN, logits->shape[1], "a row of logits"));
    return backend->log_prob(out, logits, target);
}

qz_status qz_op_divergence_sums(const qz_backend *backend, const qz_tensor *sums, const qz_tensor *a,
                                const qz_tensor *b)
{
    QZ_CHECK_BEGIN(divergence_sums)
    QZ_TRY(qz_check_view(&c, "a", a, QZ_CHECK_TYPE(F32), "T,V"));
    QZ_TRY(qz_check_view(&c, "b", b, QZ_CHECK_TYPE(F32), "T,V"));
    QZ_TRY(qz_check_view(&c, "sums", sums, QZ_CHECK_TYPE(F64), "T,S"));
    if (sums->shape[1] != QZ_DIVERGENCE_SUMS)
        return QZ_FAIL(QZ_SHAPE, "divergence_sums: sums has %lld columns, expected %d", (long long)sums->shape[1],
                       QZ_DIVERGENCE_SUMS);
    return backend->divergence_sums(sums, a, b);
}

qz_status qz_op_first_nonfinite(const qz_backend *backend, const qz_tensor *x, int64_t *index)
{
    QZ_CHECK_BEGIN(first_nonfinite)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_PLAIN, NULL));
    return backend->first_nonfinite(x, index);
}

qz_status qz_op_round_activations(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x,
                                  const qz_act_scheme *scheme, const qz_act_values *values)
{
    QZ_CHECK_BEGIN(round_activations)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,K"));
    QZ_TRY(qz_check_activations(&c, scheme, values));
    return backend->round_activations(y, x, scheme, values);
}

qz_status qz_op_round_heads(const qz_backend *backend, const qz_tensor *y, const qz_tensor *x, const qz_tensor *scale,
                            qz_format format)
{
    QZ_CHECK_BEGIN(round_heads)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,HK,D"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "T,HK,D"));
    QZ_TRY(qz_check_view(&c, "scale", scale, QZ_CHECK_TYPE(F32), "HK"));
    if (!qz_check_can_round(format))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s, allowed: int8, fp8_e4m3, fp8_e5m2", c.op,
                       qz_format_of(format)->name);
    for (int64_t h = 0; backend->device == QZ_HOST && h < scale->shape[0]; h++) {
        if (!qz_check_positive(qz_f32(scale)[h]))
            return QZ_FAIL(QZ_ARG, "%s: the scale of head %lld is %g, must be finite and above 0", c.op, (long long)h,
                           qz_f32(scale)[h]);
    }
    return backend->round_heads(y, x, scale, format);
}

qz_status qz_op_histogram(const qz_backend *backend, uint64_t *counts, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(histogram)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,K"));
    if (!counts) return QZ_FAIL(QZ_ARG, "%s: counts has no data", c.op);
    return backend->histogram(counts, x);
}

qz_status qz_op_cholesky(const qz_backend *backend, const qz_tensor *a, int64_t size, int64_t *failed)
{
    QZ_CHECK_BEGIN(cholesky)
    QZ_TRY(qz_check_view(&c, "a", a, QZ_CHECK_TYPE(F64), "P"));
    if (size < 1 || qz_triangle_count(size) != a->shape[0])
        return QZ_FAIL(QZ_SHAPE, "cholesky: a has %lld elements, but the triangle of %lld rows has %lld",
                       (long long)a->shape[0], (long long)size, size < 1 ? 0 : (long long)qz_triangle_count(size));
    return backend->cholesky(a, size, failed);
}

qz_status qz_op_unit_solve(const qz_backend *backend, const qz_tensor *x, const qz_tensor *l)
{
    QZ_CHECK_BEGIN(unit_solve)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "l", l, QZ_CHECK_TYPE(F32), "K,K"));
    return backend->unit_solve(x, l);
}

static qz_status check_grids(qz_check *c, const qz_round_grids *g, int64_t cols)
{
    if (qz_format_of(g->scheme->format)->kind == QZ_KIND_PLAIN)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: format %s has no codes", c->op, qz_format_of(g->scheme->format)->name);
    if (cols > QZ_ROUND_COLUMNS)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld columns, at most %d are allowed", c->op, (long long)cols, QZ_ROUND_COLUMNS);
    QZ_TRY(qz_check_view(c, "scales", &g->scales, QZ_CHECK_TYPE(F32), "G,N"));
    if (g->zeros.data) QZ_TRY(qz_check_view(c, "zeros", &g->zeros, QZ_CHECK_TYPE(U8), "G,N"));
    return qz_check_indices(c, "row", g->row, cols, 0, g->scales.shape[0], "the number of rows of scales");
}

qz_status qz_op_round_columns(const qz_backend *backend, const qz_tensor *codes, const qz_tensor *d,
                              const qz_tensor *loss, const qz_tensor *w, const qz_tensor *feedback, const qz_tensor *l,
                              const qz_tensor *weight, const qz_round_grids *grids)
{
    QZ_CHECK_BEGIN(round_columns)
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "c", feedback, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "d", d, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "codes", codes, QZ_CHECK_TYPE(U8), "N,K"));
    QZ_TRY(qz_check_view(&c, "l", l, QZ_CHECK_TYPE(F32), "K,K"));
    QZ_TRY(qz_check_view(&c, "loss", loss, QZ_CHECK_TYPE(F64), "N"));
    QZ_TRY(qz_check_view(&c, "weight", weight, QZ_CHECK_TYPE(F64), "K"));
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
    QZ_CHECK_BEGIN(rounding_sums)
    QZ_TRY(qz_check_view(&c, "w", w, QZ_CHECK_TYPE(F32), "N,K"));
    QZ_TRY(qz_check_view(&c, "weight", weight, QZ_CHECK_TYPE(F32), "K"));
    QZ_TRY(qz_check_view(&c, "sums", sums, QZ_CHECK_TYPE(F64), "N,S"));
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
