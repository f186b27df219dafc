/* qz_op_<name> of attention, its gradient and the rotary embedding: checks, then the backend's slot. */
#include "kernels/checks.h"

qz_status qz_op_rope(const qz_backend *backend, const qz_tensor *x, const qz_tensor *cos, const qz_tensor *sin,
                     const int32_t *positions, bool inverse)
{
    QZ_CHECK_BEGIN(rope)
    QZ_TRY(qz_check_view(&c, "x", x, QZ_CHECK_TYPE(F32), "T,H,D"));
    QZ_TRY(qz_check_view(&c, "cos", cos, QZ_CHECK_TYPE(F32), "P,D/2"));
    QZ_TRY(qz_check_view(&c, "sin", sin, QZ_CHECK_TYPE(F32), "P,D/2"));
    if (x->shape[2] != 2 * cos->shape[1])
        return QZ_FAIL(QZ_SHAPE, "rope: x has heads of %lld, cos and sin have rows of %lld, which must be half of it",
                       (long long)x->shape[2], (long long)cos->shape[1]);
    QZ_TRY(qz_check_indices(&c, "positions", positions, x->shape[0], 0, cos->shape[0],
                            "the number of rows of cos and sin"));
    return backend->rope(x, cos, sin, positions, inverse);
}

/* Every query sees itself at least. */
static qz_status check_first(const qz_check *c, const int32_t *first, int64_t batches, int64_t queries, int64_t keys)
{
    if (queries != keys)
        return QZ_FAIL(QZ_SHAPE, "%s: `first` is given for %lld queries and %lld keys; their numbers must be the same",
                       c->op, (long long)queries, (long long)keys);
    for (int64_t i = 0; c->backend->device == QZ_HOST && i < batches * queries; i++) {
        if (first[i] < 0 || first[i] > i % queries)
            return QZ_FAIL(QZ_ARG, "%s: first[%lld, %lld] is %d, must be 0 to %lld", c->op, (long long)(i / queries),
                           (long long)(i % queries), first[i], (long long)(i % queries));
    }
    return QZ_OK;
}

static qz_status check_attention(qz_check *c, const qz_tensor *q, const qz_tensor *k, const qz_tensor *v,
                                 const qz_attention *how)
{
    QZ_TRY(qz_check_view(c, "q", q, QZ_CHECK_TYPE(F32), "B,T,H,D"));
    QZ_TRY(qz_check_view(c, "k", k, QZ_CHECK_TYPE(F32), "B,S,HK,D"));
    QZ_TRY(qz_check_view(c, "v", v, QZ_CHECK_TYPE(F32), "B,S,HK,D"));
    if (k->shape[1] < q->shape[1])
        return QZ_FAIL(QZ_SHAPE, "%s: %lld keys for %lld queries; there must be at least as many keys", c->op,
                       (long long)k->shape[1], (long long)q->shape[1]);
    if (q->shape[2] % k->shape[2] != 0)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld query heads do not divide into %lld key-value heads", c->op,
                       (long long)q->shape[2], (long long)k->shape[2]);
    if (how->first) QZ_TRY(check_first(c, how->first, q->shape[0], q->shape[1], k->shape[1]));
    return QZ_OK;
}

qz_status qz_op_attention(const qz_backend *backend, const qz_tensor *y, const qz_tensor *lse, const qz_tensor *q,
                          const qz_tensor *k, const qz_tensor *v, const qz_attention *how)
{
    QZ_CHECK_BEGIN(attention)
    QZ_TRY(check_attention(&c, q, k, v, how));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "B,T,H,D"));
    if (lse) QZ_TRY(qz_check_view(&c, "lse", lse, QZ_CHECK_TYPE(F32), "B,T,H"));
    return backend->attention(y, lse, q, k, v, how);
}

qz_status qz_op_attention_grad(const qz_backend *backend, const qz_tensor *dq, const qz_tensor *dk, const qz_tensor *dv,
                               const qz_tensor *delta, const qz_tensor *dy, const qz_tensor *y, const qz_tensor *lse,
                               const qz_tensor *q, const qz_tensor *k, const qz_tensor *v, const qz_attention *how)
{
    QZ_CHECK_BEGIN(attention_grad)
    QZ_TRY(check_attention(&c, q, k, v, how));
    QZ_TRY(qz_check_view(&c, "dq", dq, QZ_CHECK_TYPE(F32), "B,T,H,D"));
    QZ_TRY(qz_check_view(&c, "dk", dk, QZ_CHECK_TYPE(F32), "B,S,HK,D"));
    QZ_TRY(qz_check_view(&c, "dv", dv, QZ_CHECK_TYPE(F32), "B,S,HK,D"));
    QZ_TRY(qz_check_view(&c, "delta", delta, QZ_CHECK_TYPE(F32), "B,T,H"));
    QZ_TRY(qz_check_view(&c, "dy", dy, QZ_CHECK_TYPE(F32), "B,T,H,D"));
    QZ_TRY(qz_check_view(&c, "y", y, QZ_CHECK_TYPE(F32), "B,T,H,D"));
    QZ_TRY(qz_check_view(&c, "lse", lse, QZ_CHECK_TYPE(F32), "B,T,H"));
    return backend->attention_grad(dq, dk, dv, delta, dy, y, lse, q, k, v, how);
}
