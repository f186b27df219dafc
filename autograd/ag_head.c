/* The end of a model: hidden states -> logits -> losses, and the gradients of hidden states and head in the same pass.
 *
 * A loss is the last thing that is computed, and its gradient with respect to the logits is known when the logits are:
 *     d CE / d logits = softmax(logits) - onehot(label),   d KL / d logits = T (softmax(logits / T) - p_teacher)
 * So a tile of tokens is taken through the head, its gradient is written over the logits, and goes back through the
 * head at once. Of the (tokens, V) logits no more than a tile exists, and none is computed twice. */
#include "autograd/tape.h"

/* Bytes of logits at a time, and the least number of tokens, below which the products lose their speed. */
enum { TILE_BYTES = 16 << 20, LEAST_TOKENS = 64 };

typedef struct work {
    qz_tape *t;
    qz_var *hidden, *w;
    const qz_head_rule *rule;
    qz_head_sums *sums;
    bool gradients;
    qz_tensor dhidden, dw;
    bool add_hidden;
    qz_buffer *logits, *grad, *teacher, *loss; /* of a tile */
    int64_t tile;                              /* tokens */
} work;

static int64_t tile_tokens(int64_t tokens, int64_t vocabulary)
{
    int64_t tile = TILE_BYTES / ((int64_t)sizeof(float) * vocabulary);
    if (tile < LEAST_TOKENS) tile = LEAST_TOKENS;
    return tile < tokens ? tile : tokens;
}

static bool both_losses(const work *k)
{
    return k->rule->teacher.logits && k->rule->cross_entropy != 0;
}

/* The logits are needed after a first gradient was made of them: by the second loss, or by the soft cap. */
static bool needs_grad_tile(const work *k)
{
    return both_losses(k) || k->rule->softcap > 0;
}

static qz_status take_buffers(work *k, int64_t vocabulary)
{
    qz_pool *pool = k->t->pool;
    const size_t bytes = (size_t)(k->tile * vocabulary) * sizeof(float);
    QZ_TRY(qz_pool_get(pool, &k->logits, bytes));
    if (k->rule->teacher.logits) QZ_TRY(qz_pool_get(pool, &k->teacher, bytes));
    if (needs_grad_tile(k)) QZ_TRY(qz_pool_get(pool, &k->grad, bytes));
    return qz_pool_get(pool, &k->loss, (size_t)k->tile * sizeof(double));
}

static void put_buffers(work *k)
{
    qz_pool *pool = k->t->pool;
    qz_pool_put(pool, k->logits);
    qz_pool_put(pool, k->grad);
    qz_pool_put(pool, k->teacher);
    qz_pool_put(pool, k->loss);
}

static double sum(const qz_tensor *loss)
{
    const double *x = loss->data;
    double total = 0;
    for (int64_t i = 0; i < loss->shape[0]; i++) total += x[i];
    return total;
}

static qz_status take_cross_entropy(work *k, const qz_tensor *logits, const qz_tensor *grad, const int32_t *labels,
                                    const qz_tensor *loss)
{
    const float weight = (float)(k->rule->cross_entropy / k->rule->cross_entropy_per);
    QZ_TRY(qz_op_cross_entropy(k->t->backend, loss, grad, logits, labels, weight, false));
    k->sums->cross_entropy += sum(loss);
    return QZ_OK;
}

static qz_status take_divergence(work *k, const qz_tensor *logits, const qz_tensor *grad, const int32_t *labels,
                                 const qz_tensor *loss, int64_t first, bool add)
{
    const qz_head_rule *r = k->rule;
    const qz_tensor teacher = qz_tensor_2d(k->teacher->data, QZ_F32, logits->shape[0], logits->shape[1]);
    QZ_TRY(r->teacher.logits(r->teacher.context, first, &teacher));
    QZ_TRY(qz_op_distill(k->t->backend, loss, grad, logits, &teacher, r->divergence_everywhere ? NULL : labels,
                         (float)r->temperature, (float)(r->divergence / r->divergence_per), add));
    k->sums->divergence += sum(loss);
    return QZ_OK;
}

/* The gradient of the logits goes to `grad`: its own tile, or the logits themselves. */
static qz_status take_losses(work *k, const qz_tensor *logits, const qz_tensor *grad, int64_t first)
{
    const int32_t *labels = k->rule->labels + first;
    const qz_tensor loss = qz_tensor_1d(k->loss->data, QZ_F64, logits->shape[0]);
    const bool both = both_losses(k);
    if (!k->rule->teacher.logits || both) QZ_TRY(take_cross_entropy(k, logits, grad, labels, &loss));
    if (k->rule->teacher.logits) QZ_TRY(take_divergence(k, logits, grad, labels, &loss, first, both));
    return QZ_OK;
}

static qz_status take_gradients(work *k, const qz_tensor *grad, const qz_tensor *hidden, int64_t first)
{
    if (qz_wants(k->hidden)) {
        const qz_tensor dhidden = qz_tensor_rows(&k->dhidden, first, hidden->shape[0]);
        QZ_TRY(qz_product_grad_x(k->t, &dhidden, grad, &k->w->value, k->add_hidden));
    }
    return qz_wants(k->w) ? qz_product_grad_w(k->t, &k->dw, grad, hidden) : QZ_OK;
}

static qz_status take_tile(work *k, int64_t first, int64_t count)
{
    const qz_backend *be = k->t->backend;
    const float cap = k->rule->softcap;
    const qz_tensor logits = qz_tensor_2d(k->logits->data, QZ_F32, count, k->w->value.shape[0]);
    const qz_tensor grad = qz_tensor_2d((k->grad ? k->grad : k->logits)->data, QZ_F32, count, k->w->value.shape[0]);
    const qz_tensor hidden = qz_tensor_rows(&k->hidden->value, first, count);
    QZ_TRY(qz_product(k->t, &logits, &hidden, &k->w->value, NULL, false));
    if (cap > 0) QZ_TRY(qz_op_softcap(be, &logits, &logits, cap));
    QZ_TRY(take_losses(k, &logits, &grad, first));
    if (cap > 0) QZ_TRY(qz_op_softcap_grad(be, &grad, &grad, &logits, cap));
    return k->gradients ? take_gradients(k, &grad, &hidden, first) : QZ_OK;
}

static qz_status take_all(work *k)
{
    const int64_t tokens = k->hidden->value.shape[0];
    QZ_TRY(take_buffers(k, k->w->value.shape[0]));
    if (k->t->dry) return QZ_OK;
    for (int64_t first = 0; first < tokens; first += k->tile) {
        const int64_t left = tokens - first;
        QZ_TRY(take_tile(k, first, left < k->tile ? left : k->tile));
    }
    return QZ_OK;
}

qz_status qz_ag_head(qz_head_sums *sums, qz_tape *t, qz_var *hidden, qz_var *w, const qz_head_rule *rule)
{
    work k = {.t = t, .hidden = hidden, .w = w, .rule = rule, .sums = sums};
    k.tile = tile_tokens(hidden->value.shape[0], w->value.shape[0]);
    k.gradients = t->record && (qz_wants(hidden) || qz_wants(w));
    *sums = (qz_head_sums){0};
    if (k.gradients && qz_wants(hidden)) QZ_TRY(qz_grad_place(t, hidden, &k.dhidden, &k.add_hidden));
    if (k.gradients && qz_wants(w)) QZ_TRY(qz_grad_zeroed(t, w, &k.dw));
    qz_status status = take_all(&k);
    put_buffers(&k);
    return status;
}
