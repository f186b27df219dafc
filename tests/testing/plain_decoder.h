/* A dense decoder written down in double, with nothing of ours but the names of its tensors, the numbers of config.json
 * and the tables of its rotation: what gradients of whole models are compared with. */
#ifndef QZ_TESTING_PLAIN_DECODER_H
#define QZ_TESTING_PLAIN_DECODER_H

#include <math.h>

#include "models/parts.h"
#include "testing/testing.h"
#include "train/parameters.h"

typedef struct plain_decoder {
    const qz_model *m;
    const qz_model_config *c;
    const qz_parameters *p;
    double **value; /* of each parameter */
    int64_t sequences, length;
    const int32_t *ids, *labels, *first; /* first: NULL, or where documents begin */
    qz_rotation rotation;
    qz_arena *arena;
} plain_decoder;

/* NULL when there is none. */
static inline const double *plain_find(const plain_decoder *d, const char *name, const char *suffix)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    for (int i = 0; i < d->p->count; i++) {
        if (strcmp(d->p->list[i].name, full) == 0) return d->value[i];
    }
    return NULL;
}

static inline int64_t plain_tokens(const plain_decoder *d)
{
    return d->sequences * d->length;
}

static inline double *plain_numbers(const plain_decoder *d, int64_t count)
{
    double *x = qz_arena_calloc(d->arena, (size_t)count * sizeof *x);
    cr_assert(x != NULL);
    return x;
}

/* y (T, n) = x (T, k) w^T + bias */
static inline double *plain_product(const plain_decoder *d, const double *x, const double *w, const double *bias,
                                    int64_t n, int64_t k)
{
    double *y = plain_numbers(d, plain_tokens(d) * n);
    for (int64_t t = 0; t < plain_tokens(d); t++)
        for (int64_t i = 0; i < n; i++) {
            double sum = bias ? bias[i] : 0;
            for (int64_t j = 0; j < k; j++) sum += x[t * k + j] * w[i * k + j];
            y[t * n + i] = sum;
        }
    return y;
}

static inline double *plain_role(const plain_decoder *d, int layer, qz_role role, const double *x)
{
    int64_t first, rows;
    const int linear = qz_model_role_rows(d->m, layer, role, &first, &rows);
    const char *module = qz_model_linear_name(d->m, layer, linear);
    const int64_t k = qz_model_linear(d->m, layer, linear)->k;
    const double *w = plain_find(d, module, ".weight"), *bias = plain_find(d, module, ".bias");
    cr_assert(w != NULL && (bias != NULL) == qz_model_linear(d->m, layer, linear)->has_bias, "%s", module);
    return plain_product(d, x, w + first * k, bias ? bias + first : NULL, rows, k);
}

/* In place, over rows of `cols`; name NULL: nothing. */
static inline void plain_norm_in(const plain_decoder *d, double *x, int64_t rows, int64_t cols, const char *name)
{
    if (!name) return;
    const double *w = plain_find(d, name, "");
    cr_assert(w != NULL, "%s", name);
    for (int64_t t = 0; t < rows; t++) {
        double square = 0;
        for (int64_t c = 0; c < cols; c++) square += x[t * cols + c] * x[t * cols + c];
        const double scale = 1 / sqrt(square / (double)cols + d->c->norm_eps);
        for (int64_t c = 0; c < cols; c++) x[t * cols + c] *= scale * (w[c] + d->c->norm_offset);
    }
}

static inline double *plain_normed(const plain_decoder *d, const double *x, const char *name)
{
    const int64_t count = plain_tokens(d) * d->c->hidden;
    double *y = plain_numbers(d, count);
    memcpy(y, x, (size_t)count * sizeof *y);
    plain_norm_in(d, y, plain_tokens(d), d->c->hidden, name);
    return y;
}

static inline void plain_rotate(const plain_decoder *d, double *x, int64_t heads)
{
    const int64_t size = d->c->head_dim, half = d->rotation.cos.shape[1];
    for (int64_t i = 0; i < plain_tokens(d) * heads; i++) {
        const int64_t row = d->rotation.positions[i / heads] * half;
        double *head = x + i * size;
        for (int64_t c = 0; c < half; c++) {
            const double a = head[c], b = head[c + half];
            const double cosine = qz_f32(&d->rotation.cos)[row + c], sine = qz_f32(&d->rotation.sin)[row + c];
            head[c] = a * cosine - b * sine;
            head[c + half] = b * cosine + a * sine;
        }
    }
}

static inline bool plain_sees(const plain_decoder *d, int layer, int64_t token, int64_t t, int64_t s)
{
    const int64_t window = d->c->layer_slides[layer] ? d->c->window : 0;
    return s <= t && (!window || t - s < window) && (!d->first || s >= d->first[token]);
}

/* y += the head h of token t of sequence b. */
static inline void plain_attend(const plain_decoder *d, int layer, const double *q, const double *k, const double *v,
                                int64_t token, int64_t h, double *y)
{
    const int64_t size = d->c->head_dim, kv = h / (d->c->heads / d->c->kv_heads), t = token % d->length;
    const double cap = d->c->attention_softcap;
    const double scale = d->c->attention_scale > 0 ? d->c->attention_scale : 1 / sqrt((double)size);
    double total = 0;
    for (int64_t s = 0; s <= t; s++) {
        const int64_t at = ((token - t + s) * d->c->kv_heads + kv) * size;
        double score = 0;
        if (!plain_sees(d, layer, token, t, s)) continue;
        for (int64_t c = 0; c < size; c++) score += q[c] * k[at + c] * scale;
        const double weight = exp(cap > 0 ? cap * tanh(score / cap) : score);
        total += weight;
        for (int64_t c = 0; c < size; c++) y[c] += weight * v[at + c];
    }
    for (int64_t c = 0; c < size; c++) y[c] /= total;
}

static inline double *plain_attention(const plain_decoder *d, int layer, const double *x)
{
    const qz_layer_names *names = &d->m->names[layer];
    const int64_t tokens = plain_tokens(d), heads = d->c->heads, size = d->c->head_dim;
    double *q = plain_role(d, layer, QZ_ROLE_Q, x), *k = plain_role(d, layer, QZ_ROLE_K, x);
    double *v = plain_role(d, layer, QZ_ROLE_V, x), *y = plain_numbers(d, tokens * heads * size);
    plain_norm_in(d, q, tokens * heads, size, names->q_norm);
    plain_norm_in(d, k, tokens * d->c->kv_heads, size, names->k_norm);
    plain_rotate(d, q, heads);
    plain_rotate(d, k, d->c->kv_heads);
    for (int64_t i = 0; i < tokens * heads; i++)
        plain_attend(d, layer, q + i * size, k, v, i / heads, i % heads, y + i * size);
    return plain_role(d, layer, QZ_ROLE_O, y);
}

static inline double plain_gelu(double x)
{
    const double two_over_pi = 0.63661977236758134308;
    return x / 2 * (1 + tanh(sqrt(two_over_pi) * (x + 0.044715 * x * x * x)));
}

static inline double *plain_mlp(const plain_decoder *d, int layer, const double *x)
{
    double *gate = plain_role(d, layer, QZ_ROLE_GATE, x), *up = plain_role(d, layer, QZ_ROLE_UP, x);
    for (int64_t i = 0; i < plain_tokens(d) * d->c->ffn; i++)
        gate[i] = (d->c->gelu_tanh ? plain_gelu(gate[i]) : gate[i] / (1 + exp(-gate[i]))) * up[i];
    return plain_role(d, layer, QZ_ROLE_DOWN, gate);
}

/* x += y, normed first where the family does that. */
static inline void plain_add(const plain_decoder *d, double *x, double *y, const char *norm)
{
    plain_norm_in(d, y, plain_tokens(d), d->c->hidden, norm);
    for (int64_t i = 0; i < plain_tokens(d) * d->c->hidden; i++) x[i] += y[i];
}

static inline double *plain_hidden(const plain_decoder *d)
{
    const int64_t width = d->c->hidden;
    const double *table = plain_find(d, d->m->family->names->embedding, "");
    double *x = plain_numbers(d, plain_tokens(d) * width);
    for (int64_t i = 0; i < plain_tokens(d) * width; i++)
        x[i] = d->c->embedding_scale * table[d->ids[i / width] * width + i % width];
    for (int i = 0; i < d->c->layers; i++) {
        const char *const *norm = d->m->names[i].norm;
        plain_add(d, x, plain_attention(d, i, plain_normed(d, x, norm[QZ_NORM_ATTENTION])),
                  norm[QZ_NORM_AFTER_ATTENTION]);
        plain_add(d, x, plain_mlp(d, i, plain_normed(d, x, norm[QZ_NORM_MLP])), norm[QZ_NORM_AFTER_MLP]);
    }
    return plain_normed(d, x, d->m->family->names->final_norm);
}

/* Mean of -log softmax(logits)[label] over the tokens that have one. */
static inline double plain_loss(const plain_decoder *d)
{
    const qz_tensor_names *names = d->m->family->names;
    const qz_arena_mark mark = qz_arena_save(d->arena);
    const double *table = plain_find(d, d->c->tied ? names->embedding : names->head, ""), cap = d->c->logit_softcap;
    double *logits = plain_product(d, plain_hidden(d), table, NULL, d->c->vocabulary, d->c->hidden), loss = 0;
    int64_t count = 0;
    for (int64_t t = 0; t < plain_tokens(d); t++) {
        double *row = logits + t * d->c->vocabulary, sum = 0;
        if (d->labels[t] < 0) continue;
        for (int64_t v = 0; cap > 0 && v < d->c->vocabulary; v++) row[v] = cap * tanh(row[v] / cap);
        for (int64_t v = 0; v < d->c->vocabulary; v++) sum += exp(row[v]);
        loss += log(sum) - row[d->labels[t]];
        count++;
    }
    qz_arena_restore(d->arena, mark);
    return loss / (double)count;
}

#endif
