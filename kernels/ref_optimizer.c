/* AdamW with moments in fp32 or in 8 bits, and the sum of squares that clipping needs, plainly. */
#include <math.h>

#include "kernels/adamw.h"
#include "kernels/tables.h"
#include "numeric/codebook.h"

qz_status qz_ref_adamw(const qz_tensor *p, const qz_tensor *m, const qz_tensor *v, const qz_tensor *g,
                       const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    for (int64_t i = 0; i < qz_tensor_count(p); i++)
        qz_f32(p)[i] = qz_adamw_element(qz_f32(p)[i], qz_f32(m) + i, qz_f32(v) + i, qz_f32(g)[i], &step);
    return QZ_OK;
}

/* A NaN stays: moments that are spoiled shall be seen. */
static float largest(const float *x, int64_t count)
{
    float max = 0;
    for (int64_t i = 0; i < count && !isnan(max); i++) max = fabsf(x[i]) <= max ? max : fabsf(x[i]);
    return max;
}

static float share(float x, float absmax)
{
    return absmax > 0 ? x / absmax : 0;
}

/* The elements of one block: moments as they are stored, and their scales. */
typedef struct block {
    float *p;
    const float *g;
    uint8_t *m, *v;
    float *m_absmax, *v_absmax;
    int64_t count;
} block;

static void step_block(const block *b, const qz_adamw_step *step)
{
    float m[QZ_MOMENT_BLOCK], v[QZ_MOMENT_BLOCK];
    for (int64_t i = 0; i < b->count; i++) {
        m[i] = qz_dynamic_decode(b->m[i]) * *b->m_absmax;
        v[i] = qz_dynamic_unsigned_decode(b->v[i]) * *b->v_absmax;
        b->p[i] = qz_adamw_element(b->p[i], m + i, v + i, b->g[i], step);
    }
    *b->m_absmax = largest(m, b->count);
    *b->v_absmax = largest(v, b->count);
    for (int64_t i = 0; i < b->count; i++) {
        b->m[i] = qz_dynamic_encode(share(m[i], *b->m_absmax));
        b->v[i] = qz_adamw_second_code(share(v[i], *b->v_absmax));
    }
}

qz_status qz_ref_adamw_8bit(const qz_tensor *p, const qz_tensor *m, const qz_tensor *m_absmax, const qz_tensor *v,
                            const qz_tensor *v_absmax, const qz_tensor *g, const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    const int64_t count = m->shape[0];
    for (int64_t i = 0; i < count; i += QZ_MOMENT_BLOCK) {
        const int64_t at = i / QZ_MOMENT_BLOCK, rest = count - i;
        const block b = {qz_f32(p) + i,
                         qz_f32(g) + i,
                         (uint8_t *)m->data + i,
                         (uint8_t *)v->data + i,
                         qz_f32(m_absmax) + at,
                         qz_f32(v_absmax) + at,
                         rest < QZ_MOMENT_BLOCK ? rest : QZ_MOMENT_BLOCK};
        step_block(&b, &step);
    }
    return QZ_OK;
}

qz_status qz_ref_square_sum(double *sum, const qz_tensor *x)
{
    const qz_rows rows = qz_rows_of(x);
    *sum = 0;
    for (int64_t r = 0; r < rows.rows; r++) {
        const float *in = qz_f32(x) + r * rows.stride;
        for (int64_t c = 0; c < rows.cols; c++) *sum += (double)in[c] * in[c];
    }
    return QZ_OK;
}
