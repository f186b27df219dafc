/* One case for each rule of autograd/rules.def: the operation on a tape and the same in double, on several shapes.
 * tests/grad/autograd_rules.c runs them and fails when a rule has none. */
#ifndef QZ_TESTING_RULE_CASES_H
#define QZ_TESTING_RULE_CASES_H

#include "testing/rule_problem.h"

/* ---- linear: T, K, N, bias, residual ---- */

static inline void linear_plan(problem *p)
{
    const int *d = p->dims;
    add_input(p, d[0], d[1]);
    add_input(p, d[2], d[1]);
    add_input(p, 0, d[2]);
    add_input(p, d[0], d[2]);
    set_result(p, d[0], d[2]);
}

static inline qz_status linear_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_linear(y, t, x[0], x[1], p->dims[3] ? x[2] : NULL, p->dims[4] ? x[3] : NULL);
}

/* y = x w^T + bias + residual; the last two may be NULL. */
static inline void plain_linear(double *y, const double *x, const double *w, const double *bias, const double *residual,
                                const problem *p)
{
    const int64_t k = p->dims[1];
    for (int64_t t = 0; t < p->rows; t++)
        for (int64_t n = 0; n < p->cols; n++) {
            double sum = (bias ? bias[n] : 0) + (residual ? residual[t * p->cols + n] : 0);
            for (int64_t i = 0; i < k; i++) sum += x[t * k + i] * w[n * k + i];
            y[t * p->cols + n] = sum;
        }
}

static inline void linear_forward(double *y, double *const *x, const problem *p)
{
    plain_linear(y, x[0], x[1], p->dims[3] ? x[2] : NULL, p->dims[4] ? x[3] : NULL, p);
}

/* ---- linear with packed weights: T, K, N, bias, residual; K a multiple of 8 ---- */

/* (n, k) int4 in groups of 8, from random numbers. */
static inline void pack_random(problem *p, int64_t n, int64_t k)
{
    const qz_scheme scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 8, .scale_type = QZ_F32};
    qz_qtensor q;
    check_ok(qz_qtensor_alloc(&q, &scheme, n, k, p->arena));
    for (int64_t i = 0; i < n * k; i++) q.codes[i] = (uint8_t)qz_rng_below(&p->rng, 16);
    for (int64_t i = 0; i < n * k / 8; i++) {
        q.scales[i] = 0.1f + 0.1f * (float)qz_rng_double(&p->rng);
        q.zeros[i] = (uint8_t)(6 + qz_rng_below(&p->rng, 4));
    }
    check_ok(qz_packed_from(&p->packed, &q, p->arena));
    float *values = rule_alloc(p, (size_t)(n * k) * sizeof(float));
    p->packed_values = rule_alloc(p, (size_t)(n * k) * sizeof(double));
    qz_qtensor_dequantize(values, &q, 0, n);
    for (int64_t i = 0; i < n * k; i++) p->packed_values[i] = values[i];
}

static inline void linear_packed_plan(problem *p)
{
    const int *d = p->dims;
    add_input(p, d[0], d[1]);
    add_input(p, 0, d[2]);
    add_input(p, d[0], d[2]);
    pack_random(p, d[2], d[1]);
    set_result(p, d[0], d[2]);
}

static inline qz_status linear_packed_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_linear_packed(y, t, x[0], &p->packed, p->dims[3] ? x[1] : NULL, p->dims[4] ? x[2] : NULL);
}

static inline void linear_packed_forward(double *y, double *const *x, const problem *p)
{
    plain_linear(y, x[0], p->packed_values, p->dims[3] ? x[1] : NULL, p->dims[4] ? x[2] : NULL, p);
}

/* ---- embedding: V, C, T; factor 1 or 1.5 ---- */

static inline float embedding_factor(const problem *p)
{
    return p->dims[3] ? 1.5f : 1;
}

static inline void embedding_plan(problem *p)
{
    const int *d = p->dims;
    add_input(p, d[0], d[1]);
    p->ids = rule_alloc(p, (size_t)d[2] * sizeof *p->ids);
    for (int t = 0; t < d[2]; t++) p->ids[t] = (int32_t)qz_rng_below(&p->rng, (uint64_t)d[0]);
    set_result(p, d[2], d[1]);
}

static inline qz_status embedding_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_embedding(y, t, x[0], p->ids, p->rows, embedding_factor(p));
}

static inline void embedding_forward(double *y, double *const *x, const problem *p)
{
    for (int64_t t = 0; t < p->rows; t++)
        for (int64_t c = 0; c < p->cols; c++)
            y[t * p->cols + c] = (double)embedding_factor(p) * x[0][p->ids[t] * p->cols + c];
}

/* ---- rmsnorm: T, heads, C, offset ---- */

static inline void rmsnorm_plan(problem *p)
{
    const int *d = p->dims;
    add_input(p, d[0], d[1] * d[2]);
    add_input(p, 0, d[2]);
    set_result(p, d[0], d[1] * d[2]);
}

static inline qz_status rmsnorm_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_rmsnorm(y, t, x[0], x[1], 0x1p-10f, (float)p->dims[3]);
}

static inline void plain_norm(double *y, const double *x, const double *w, int64_t rows, int64_t cols, double offset)
{
    for (int64_t t = 0; t < rows; t++) {
        double square = 0;
        for (int64_t c = 0; c < cols; c++) square += x[t * cols + c] * x[t * cols + c];
        for (int64_t c = 0; c < cols; c++)
            y[t * cols + c] = x[t * cols + c] / sqrt(square / (double)cols + 0x1p-10) * (w[c] + offset);
    }
}

static inline void rmsnorm_forward(double *y, double *const *x, const problem *p)
{
    plain_norm(y, x[0], x[1], p->rows * p->dims[1], p->dims[2], p->dims[3]);
}

/* ---- rope: T, H, D, channels of a head that are rotated ---- */

static inline void rope_plan(problem *p)
{
    const int *d = p->dims;
    const int64_t half = d[3] / 2;
    add_input(p, d[0], d[1] * d[2]);
    float *cosine = rule_alloc(p, (size_t)(d[0] * half) * sizeof(float));
    float *sine = rule_alloc(p, (size_t)(d[0] * half) * sizeof(float));
    int32_t *positions = rule_alloc(p, (size_t)d[0] * sizeof *positions);
    for (int64_t i = 0; i < d[0] * half; i++) {
        cosine[i] = cosf((float)i);
        sine[i] = sinf((float)i);
    }
    for (int t = 0; t < d[0]; t++) positions[t] = (t + 2) % d[0];
    p->rotation =
        (qz_rotation){qz_tensor_2d(cosine, QZ_F32, d[0], half), qz_tensor_2d(sine, QZ_F32, d[0], half), positions};
    set_result(p, d[0], d[1] * d[2]);
}

static inline qz_status rope_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_rope(y, t, x[0], p->dims[1], &p->rotation);
}

static inline void rope_forward(double *y, double *const *x, const problem *p)
{
    const int64_t heads = p->dims[1], size = p->dims[2], half = p->dims[3] / 2;
    memcpy(y, x[0], (size_t)(p->rows * p->cols) * sizeof *y);
    for (int64_t i = 0; i < p->rows * heads; i++) {
        const int64_t row = p->rotation.positions[i / heads] * half;
        for (int64_t c = 0; c < half; c++) {
            const double a = x[0][i * size + c], b = x[0][i * size + c + half];
            const double cosine = qz_f32(&p->rotation.cos)[row + c], sine = qz_f32(&p->rotation.sin)[row + c];
            y[i * size + c] = a * cosine - b * sine;
            y[i * size + c + half] = b * cosine + a * sine;
        }
    }
}

/* ---- attention: B, T, H, HK, D, softcap, window, documents of 3 tokens ---- */

static inline void attention_plan(problem *p)
{
    const int *d = p->dims;
    const int64_t tokens = d[0] * d[1];
    add_input(p, tokens, d[2] * d[4]);
    add_input(p, tokens, d[3] * d[4]);
    add_input(p, tokens, d[3] * d[4]);
    p->shape = (qz_ag_attention_shape){d[0], d[1], d[2], d[3], d[4]};
    p->attention = (qz_attention){.scale = 0.5f, .softcap = (float)d[5], .window = d[6]};
    if (d[7]) {
        int32_t *first = rule_alloc(p, (size_t)tokens * sizeof *first);
        for (int64_t i = 0; i < tokens; i++) first[i] = (int32_t)(i % d[1] / 3 * 3);
        p->attention.first = first;
    }
    set_result(p, tokens, d[2] * d[4]);
}

static inline qz_status attention_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_attention(y, t, x[0], x[1], x[2], p->shape, &p->attention);
}

static inline bool sees(const problem *p, int64_t b, int64_t t, int64_t s)
{
    const qz_attention *how = &p->attention;
    return s <= t && (!how->window || t - s < how->window) && (!how->first || s >= how->first[b * p->shape.length + t]);
}

/* One query head of one token. */
static inline void attend_one(double *y, double *const *x, const problem *p, int64_t b, int64_t t, int64_t h)
{
    const qz_ag_attention_shape *a = &p->shape;
    const int64_t size = a->head_dim, kv = h / (a->heads / a->kv_heads), row = a->kv_heads * size;
    const double *q = x[0] + ((b * a->length + t) * a->heads + h) * size, cap = (double)p->attention.softcap;
    double total = 0;
    memset(y, 0, (size_t)size * sizeof *y);
    for (int64_t s = 0; s <= t; s++) {
        const int64_t at = (b * a->length + s) * row + kv * size;
        double score = 0;
        if (!sees(p, b, t, s)) continue;
        for (int64_t c = 0; c < size; c++) score += q[c] * x[1][at + c] * (double)p->attention.scale;
        const double weight = exp(cap > 0 ? cap * tanh(score / cap) : score);
        total += weight;
        for (int64_t c = 0; c < size; c++) y[c] += weight * x[2][at + c];
    }
    for (int64_t c = 0; c < size; c++) y[c] /= total;
}

static inline void attention_forward(double *y, double *const *x, const problem *p)
{
    const qz_ag_attention_shape *a = &p->shape;
    for (int64_t b = 0; b < a->sequences; b++)
        for (int64_t t = 0; t < a->length; t++)
            for (int64_t h = 0; h < a->heads; h++)
                attend_one(y + ((b * a->length + t) * a->heads + h) * a->head_dim, x, p, b, t, h);
}

/* ---- elementwise: T, C ---- */

static inline void one_plan(problem *p)
{
    add_input(p, p->dims[0], p->dims[1]);
    set_result(p, p->dims[0], p->dims[1]);
}

static inline void two_plan(problem *p)
{
    add_input(p, p->dims[0], p->dims[1]);
    one_plan(p);
}

#define RULE_EACH(y, p, value)                                                                                         \
    for (int64_t i = 0; i < (p)->rows * (p)->cols; i++) (y)[i] = (value)

static inline qz_status swiglu_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_swiglu(y, t, x[0], x[1]);
}

static inline void swiglu_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, x[0][i] / (1 + exp(-x[0][i])) * x[1][i]);
}

static inline qz_status geglu_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_geglu(y, t, x[0], x[1]);
}

static inline double gelu(double x)
{
    const double two_over_pi = 0.63661977236758134308;
    return x / 2 * (1 + tanh(sqrt(two_over_pi) * (x + 0.044715 * x * x * x)));
}

static inline void geglu_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, gelu(x[0][i]) * x[1][i]);
}

static inline qz_status softcap_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_softcap(y, t, x[0], 2.5f);
}

static inline void softcap_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, 2.5 * tanh(x[0][i] / 2.5));
}

static inline qz_status add_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_add(y, t, x[0], x[1]);
}

static inline void add_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, x[0][i] + x[1][i]);
}

static inline qz_status multiply_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_multiply(y, t, x[0], x[1]);
}

static inline void multiply_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, x[0][i] * x[1][i]);
}

static inline qz_status scale_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_scale(y, t, x[0], -1.75f);
}

static inline void scale_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, -1.75 * x[0][i]);
}

/* Which elements are kept is asked of the operation, with ones for x. */
static inline void dropout_plan(problem *p)
{
    one_plan(p);
    const int64_t count = p->rows * p->cols;
    float *ones = rule_alloc(p, (size_t)count * sizeof(float));
    p->mask = rule_alloc(p, (size_t)count * sizeof(double));
    for (int64_t i = 0; i < count; i++) ones[i] = 1;
    const qz_tensor view = qz_tensor_2d(ones, QZ_F32, p->rows, p->cols);
    check_ok(qz_op_dropout(p->backend, &view, &view, 0.375f, 7, 1000));
    for (int64_t i = 0; i < count; i++) p->mask[i] = ones[i];
}

static inline qz_status dropout_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_dropout(y, t, x[0], 0.375f, 7, 1000);
}

static inline void dropout_forward(double *y, double *const *x, const problem *p)
{
    RULE_EACH(y, p, x[0][i] * p->mask[i]);
}

/* ---- low rank: N, K, R, the base is packed ---- */

static inline void low_rank_plan(problem *p)
{
    const int *d = p->dims;
    add_input(p, d[0], d[1]);
    add_input(p, d[0], d[2]);
    add_input(p, d[2], d[1]);
    if (d[3]) pack_random(p, d[0], d[1]);
    set_result(p, d[0], d[1]);
}

static inline qz_status low_rank_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_low_rank(y, t, p->dims[3] ? NULL : x[0], &p->packed, x[1], x[2], 1.25f);
}

static inline void low_rank_forward(double *y, double *const *x, const problem *p)
{
    const int64_t rank = p->dims[2];
    for (int64_t n = 0; n < p->rows; n++)
        for (int64_t k = 0; k < p->cols; k++) {
            double sum = p->dims[3] ? p->packed_values[n * p->cols + k] : x[0][n * p->cols + k];
            for (int64_t r = 0; r < rank; r++) sum += 1.25 * x[1][n * rank + r] * x[2][r * p->cols + k];
            y[n * p->cols + k] = sum;
        }
}

/* ---- rounded weights: N, K, group, symmetric, rule, scales: 0 fitted, 1 learned, 2 with offsets; int4 ---- */

static inline void fake_quant_plan(problem *p)
{
    const int *d = p->dims;
    const qz_scheme scheme = {
        .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = d[2], .symmetric = d[3], .scale_type = QZ_F32};
    const int64_t pieces = d[0] * (d[1] / d[2]);
    const double gain = 1 / sqrt((double)d[2] * (d[3] ? 7 : 15)); /* Esser et al. 2020, section 2.2 */
    check_ok(qz_qtensor_alloc(&p->q, &scheme, d[0], d[1], p->arena));
    p->grid = (qz_ag_grid){.q = &p->q, .fit = d[5] == 0, .rule = (qz_ste)d[4]};
    add_input(p, d[0], d[1]);
    if (d[5]) {
        rule_input *scale = add_input(p, 0, pieces);
        scale->gain = gain;
        for (int64_t i = 0; i < pieces; i++) scale->base[i] = (float)(0.1 + 0.1 * qz_rng_double(&p->rng));
    }
    if (d[5] == 2) {
        rule_input *offset = add_input(p, 0, pieces);
        offset->gain = gain;
        for (int64_t i = 0; i < pieces; i++) offset->base[i] = 5 + (double)qz_rng_below(&p->rng, 6);
    } else if (d[5]) {
        for (int64_t i = 0; p->q.zeros && i < pieces; i++) p->q.zeros[i] = (uint8_t)(5 + i % 6);
    }
    set_result(p, d[0], d[1]);
}

static inline qz_status fake_quant_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    p->grid.scale = p->inputs > 1 ? x[1] : NULL;
    p->grid.offset = p->inputs > 2 ? x[2] : NULL;
    return qz_ag_fake_quant(y, t, x[0], &p->grid);
}

static inline double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* What a rule takes the rounded code for, as far as derivatives go; v0: at the base point, in fp32, since the largest
 * weight of a fitted grid lies on a tie. */
static inline double straight(qz_ste rule, double v, double v0, double low, double high)
{
    if (rule == QZ_STE_LSQ) return clamp(v, low, high);
    const bool inside = rint(v0) >= low && rint(v0) <= high;
    return rule == QZ_STE_PASS || inside ? v : v0;
}

/* What rounding adds to that. */
static inline double rest(qz_ste rule, double v0, double low, double high)
{
    return clamp(rint(v0), low, high) - straight(rule, v0, v0, low, high);
}

static inline void fake_quant_forward(double *y, double *const *x, const problem *p)
{
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        const int64_t piece = i / p->dims[2];
        const double zero0 = p->q.zeros ? p->q.zeros[piece] : 8, scale0 = p->q.scales[piece];
        const double zero = p->inputs > 2 ? x[2][piece] : zero0, scale = p->inputs > 1 ? x[1][piece] : scale0;
        const double v0 = (float)p->in[0].base[i] / (float)scale0;
        y[i] = scale * (straight(p->grid.rule, x[0][i] / scale, v0, -zero, 15 - zero) +
                        rest(p->grid.rule, v0, -zero0, 15 - zero0));
    }
}

/* ---- rounded inputs: T, K, static, rule, the scale is learned; int8 ---- */

static inline void round_inputs_plan(problem *p)
{
    const int *d = p->dims;
    one_plan(p);
    p->scheme = (qz_act_scheme){
        .mode = d[2] ? QZ_ACT_TENSOR : QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};
    if (!d[4]) {
        p->values.scale = 0.01f;
        return;
    }
    rule_input *scale = add_input(p, 0, 1);
    scale->outside = true;
    scale->base[0] = 0.01f;
    scale->gain = 1 / sqrt(127.0 * d[1]);
}

static inline qz_status round_inputs_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    p->scale_grad = 0;
    if (p->dims[4]) p->values.scale = qz_f32(&p->in[1].value)[0];
    return qz_ag_round_inputs(y, t, x[0], &p->scheme, &p->values, (qz_ste)p->dims[3],
                              p->dims[4] ? &p->scale_grad : NULL);
}

static inline void round_inputs_forward(double *y, double *const *x, const problem *p)
{
    for (int64_t t = 0; t < p->rows; t++) {
        double most = 0, scale0 = p->values.scale;
        for (int64_t k = 0; k < p->cols; k++) most = fmax(most, fabs(p->in[0].base[t * p->cols + k]));
        if (!p->dims[2]) scale0 = (float)most / 127.0f;
        const double scale = p->dims[4] ? x[1][0] : scale0;
        for (int64_t k = t * p->cols; k < (t + 1) * p->cols; k++) {
            const double v0 = (float)p->in[0].base[k] / (float)scale0;
            y[k] = scale * (straight((qz_ste)p->dims[3], x[0][k] / scale, v0, -128, 127) +
                            rest((qz_ste)p->dims[3], v0, -128, 127));
        }
    }
}

/* ---- rounded keys or values: T, HK, D; int8 ---- */

static inline void round_heads_plan(problem *p)
{
    const int *d = p->dims;
    float *scale = rule_alloc(p, (size_t)d[1] * sizeof(float));
    for (int h = 0; h < d[1]; h++) scale[h] = 0.01f * (float)(h + 1);
    p->head_scale = qz_tensor_1d(scale, QZ_F32, d[1]);
    add_input(p, d[0], d[1] * d[2]);
    set_result(p, d[0], d[1] * d[2]);
}

static inline qz_status round_heads_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_round_heads(y, t, x[0], &p->head_scale, QZ_FORMAT_INT8);
}

static inline void round_heads_forward(double *y, double *const *x, const problem *p)
{
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        const double scale = qz_f32(&p->head_scale)[i / p->dims[2] % p->dims[1]], base = p->in[0].base[i];
        y[i] = x[0][i] + scale * rest(QZ_STE_PASS, (float)base / (float)scale, -128, 127);
    }
}

/* ---- a segment: T, C; x + swiglu(norm(x), x norm(x)), the norm's weight is a leaf inside ---- */

static inline void segment_plan(problem *p)
{
    one_plan(p);
    add_input(p, 0, p->dims[1])->outside = true;
}

static inline qz_status stretch(const void *context, qz_tape *t, qz_var *x, qz_var **y)
{
    problem *const *p = context;
    qz_var *w, *normed, *product, *gated;
    QZ_TRY(qz_tape_leaf(&w, t, &(*p)->in[1].value, &(*p)->in[1].grad));
    QZ_TRY(qz_ag_rmsnorm(&normed, t, x, w, 0x1p-10f, 0));
    QZ_TRY(qz_ag_multiply(&product, t, x, normed));
    QZ_TRY(qz_ag_swiglu(&gated, t, normed, product));
    qz_var_release(t, normed);
    qz_var_release(t, product);
    QZ_TRY(qz_ag_add(y, t, gated, x));
    qz_var_release(t, gated);
    return QZ_OK;
}

static inline qz_status segment_build(qz_var **y, qz_tape *t, qz_var *const *x, problem *p)
{
    return qz_ag_segment(y, t, x[0], &(qz_segment){stretch, &p, sizeof p});
}

static inline void segment_forward(double *y, double *const *x, const problem *p)
{
    plain_norm(y, x[0], x[1], p->rows, p->cols, 0);
    RULE_EACH(y, p, y[i] / (1 + exp(-y[i])) * x[0][i] * y[i] + x[0][i]);
}

/* ---- all ---- */

#define RULE_ROW(name, ...)                                                                                            \
    {                                                                                                                  \
#name, name##_plan, name##_build, name##_forward,                                                              \
        {                                                                                                              \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }
#define swiglu_plan two_plan
#define geglu_plan two_plan
#define add_plan two_plan
#define multiply_plan two_plan
#define softcap_plan one_plan
#define scale_plan one_plan

static const rule_case rule_cases[] = {
    RULE_ROW(linear, {1, 1, 1, 1, 1}, {5, 7, 3}, {9, 16, 11, 1}, {6, 5, 8, 0, 1}, {17, 8, 9, 1, 1}),
    RULE_ROW(linear_packed, {1, 8, 1, 1, 1}, {5, 16, 3}, {9, 8, 11, 1}, {6, 8, 8, 0, 1}, {17, 24, 9, 1, 1}),
    RULE_ROW(embedding, {1, 1, 1}, {11, 6, 17}, {5, 7, 23, 1}),
    RULE_ROW(rmsnorm, {1, 1, 1}, {7, 1, 12}, {5, 3, 8}, {6, 1, 9, 1}, {4, 2, 6, 1}),
    RULE_ROW(rope, {1, 1, 2, 2}, {7, 3, 8, 8}, {5, 2, 10, 4}),
    RULE_ROW(attention, {1, 1, 1, 1, 1}, {2, 7, 4, 2, 6}, {1, 9, 2, 2, 5, 2}, {2, 8, 2, 1, 4, 0, 3},
             {2, 8, 3, 1, 4, 0, 0, 1}, {1, 10, 4, 2, 4, 3, 4, 1}),
    RULE_ROW(swiglu, {1, 1}, {5, 13}),
    RULE_ROW(geglu, {1, 1}, {5, 13}),
    RULE_ROW(softcap, {1, 1}, {5, 13}),
    RULE_ROW(add, {1, 1}, {5, 13}),
    RULE_ROW(multiply, {1, 1}, {5, 13}),
    RULE_ROW(scale, {1, 1}, {5, 13}),
    RULE_ROW(dropout, {1, 1}, {9, 13}),
    RULE_ROW(low_rank, {1, 1, 1}, {9, 7, 3}, {5, 16, 2, 1}),
    RULE_ROW(fake_quant, {3, 16, 8, 1, QZ_STE_PASS, 0}, {4, 24, 8, 0, QZ_STE_CLIP, 0}, {4, 16, 16, 1, QZ_STE_CLIP, 0},
             {5, 32, 16, 1, QZ_STE_LSQ, 1}, {4, 32, 8, 0, QZ_STE_LSQ, 1}, {6, 16, 8, 0, QZ_STE_LSQ, 2}),
    RULE_ROW(round_inputs, {1, 5, 0, QZ_STE_PASS}, {4, 9, 0, QZ_STE_CLIP}, {6, 13, 1, QZ_STE_PASS},
             {6, 13, 1, QZ_STE_CLIP}, {6, 16, 1, QZ_STE_LSQ, 1}),
    RULE_ROW(round_heads, {1, 1, 1}, {5, 3, 8}),
    RULE_ROW(segment, {1, 2}, {6, 11}),
};
enum { RULE_CASES = sizeof rule_cases / sizeof *rule_cases };

#endif
