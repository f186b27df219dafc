/* The wrappers (see ops.c) of the optimizer's operations. */
#include <math.h>

#include "kernels/checks.h"

#define F32 QZ_CHECK_TYPE(F32)
#define U8 QZ_CHECK_TYPE(U8)

/* Dense, with `count` elements in any shape. */
static qz_status check_dense(qz_check *c, const char *name, const qz_tensor *x, int64_t count)
{
    QZ_TRY(qz_check_view(c, name, x, F32, NULL));
    if (!qz_tensor_is_contiguous(x))
        return QZ_FAIL(QZ_SHAPE, "%s: %s has gaps between its rows; only dense views are taken", c->op, name);
    if (qz_tensor_count(x) != count)
        return QZ_FAIL(QZ_SHAPE, "%s: %s has %lld elements, but %lld are needed", c->op, name,
                       (long long)qz_tensor_count(x), (long long)count);
    return QZ_OK;
}

static bool is_share(double beta)
{
    return beta >= 0 && beta < 1;
}

static qz_status check_step(const qz_check *c, const qz_adamw *how)
{
    if (!is_share(how->beta1) || !is_share(how->beta2))
        return QZ_FAIL(QZ_ARG, "%s: beta1 is %g and beta2 %g, both must be in [0, 1)", c->op, how->beta1, how->beta2);
    if (!(how->epsilon > 0)) return QZ_FAIL(QZ_ARG, "%s: epsilon is %g, must be above 0", c->op, how->epsilon);
    if (how->step < 1) return QZ_FAIL(QZ_ARG, "%s: step %lld, the first one is 1", c->op, (long long)how->step);
    if (!isfinite(how->rate) || !isfinite(how->decay) || !isfinite(how->gradient_factor))
        return QZ_FAIL(QZ_ARG, "%s: rate %g, decay %g and gradient factor %g must be finite", c->op, how->rate,
                       how->decay, how->gradient_factor);
    return QZ_OK;
}

qz_status qz_op_adamw(const qz_backend *backend, const qz_tensor *p, const qz_tensor *m, const qz_tensor *v,
                      const qz_tensor *g, const qz_adamw *how)
{
    QZ_CHECK_BEGIN(adamw)
    const int64_t count = p ? qz_tensor_count(p) : 0;
    QZ_TRY(check_dense(&c, "p", p, count));
    QZ_TRY(check_dense(&c, "m", m, count));
    QZ_TRY(check_dense(&c, "v", v, count));
    QZ_TRY(check_dense(&c, "g", g, count));
    QZ_TRY(check_step(&c, how));
    return backend->adamw(p, m, v, g, how);
}

qz_status qz_op_adamw_8bit(const qz_backend *backend, const qz_tensor *p, const qz_tensor *m, const qz_tensor *m_absmax,
                           const qz_tensor *v, const qz_tensor *v_absmax, const qz_tensor *g, const qz_adamw *how)
{
    QZ_CHECK_BEGIN(adamw_8bit)
    QZ_TRY(qz_check_view(&c, "m", m, U8, "N"));
    QZ_TRY(qz_check_view(&c, "v", v, U8, "N"));
    const int64_t blocks = (m->shape[0] + QZ_MOMENT_BLOCK - 1) / QZ_MOMENT_BLOCK;
    QZ_TRY(check_dense(&c, "m_absmax", m_absmax, blocks));
    QZ_TRY(check_dense(&c, "v_absmax", v_absmax, blocks));
    QZ_TRY(check_dense(&c, "p", p, m->shape[0]));
    QZ_TRY(check_dense(&c, "g", g, m->shape[0]));
    QZ_TRY(check_step(&c, how));
    return backend->adamw_8bit(p, m, m_absmax, v, v_absmax, g, how);
}

qz_status qz_op_square_sum(const qz_backend *backend, double *sum, const qz_tensor *x)
{
    QZ_CHECK_BEGIN(square_sum)
    QZ_TRY(qz_check_view(&c, "x", x, F32, NULL));
    if (!sum) return QZ_FAIL(QZ_ARG, "%s: sum has no data", c.op);
    return backend->square_sum(sum, x);
}
