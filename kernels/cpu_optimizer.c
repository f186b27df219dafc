/* AdamW over pieces of the parameters, and the sum of squares. The operations on one element are those of `ref`
 * (adamw.h, numeric/codebook.h), so the bits are too; a code is found by bisection in a table of midpoints, for many
 * elements at once. */
#include "base/parallel.h"
#include "kernels/adamw.h"
#include "kernels/cpu_reduce.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "numeric/codebook.h"

QZ_WIDE static void step_row(float *restrict p, float *restrict m, float *restrict v, const float *restrict g,
                             const qz_adamw_step *step, int64_t count)
{
    const qz_adamw_step s = *step;
    for (int64_t i = 0; i < count; i++) p[i] = qz_adamw_element(p[i], m + i, v + i, g[i], &s);
}

qz_status qz_cpu_adamw(const qz_tensor *p, const qz_tensor *m, const qz_tensor *v, const qz_tensor *g,
                       const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    const int64_t count = qz_tensor_count(p);
    QZ_PARALLEL_FOR for (int64_t i = 0; i < count; i += QZ_PIECE)
        step_row(qz_f32(p) + i, qz_f32(m) + i, qz_f32(v) + i, qz_f32(g) + i, &step, qz_min(QZ_PIECE, count - i));
    return QZ_OK;
}

/* ---- moments of 8 bits ---- */

enum { BLOCK = QZ_MOMENT_BLOCK, CODES = 256 };

/* The values of a map, and the midpoint above each. */
typedef struct map {
    float value[CODES], above[CODES];
} map;

static void fill_map(map *out, float (*decode)(int code))
{
    for (int i = 0; i < CODES; i++) out->value[i] = decode(i);
    for (int i = 0; i < CODES; i++) out->above[i] = (out->value[i] + out->value[i < CODES - 1 ? i + 1 : i]) / 2.0f;
}

static float signed_value(int code)
{
    return qz_dynamic_decode(code);
}

static float unsigned_value(int code)
{
    return qz_dynamic_unsigned_decode(code);
}

QZ_WIDE static void decode_row(float *restrict out, const uint8_t *restrict code, const float *restrict value,
                               float absmax, int64_t count)
{
    for (int64_t i = 0; i < count; i++) out[i] = value[code[i]] * absmax;
}

static inline int32_t step_above(float x, const float *above, int32_t rank, int32_t step)
{
    return rank + (step & -(int32_t)(x > above[rank + step - 1]));
}

QZ_WIDE static void encode_row(uint8_t *restrict code, const float *restrict x, const float *restrict above,
                               float absmax, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const float share = x[i] / absmax;
        int32_t rank = step_above(share, above, 0, 128);
        rank = step_above(share, above, rank, 64);
        rank = step_above(share, above, rank, 32);
        rank = step_above(share, above, rank, 16);
        rank = step_above(share, above, rank, 8);
        rank = step_above(share, above, rank, 4);
        rank = step_above(share, above, rank, 2);
        code[i] = (uint8_t)step_above(share, above, rank, 1);
    }
}

/* As integers, whose order is that of the magnitudes; a NaN is above all. */
QZ_WIDE static float largest(const float *x, int64_t count)
{
    uint32_t max = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = qz_bits_from_float(x[i]) & 0x7fffffffu;
        max = bits > max ? bits : max;
    }
    return qz_float_from_bits(max);
}

static float store_moment(uint8_t *code, const float *x, const map *to, uint8_t zero, int64_t count)
{
    const float absmax = largest(x, count);
    if (absmax > 0)
        encode_row(code, x, to->above, absmax, count);
    else
        memset(code, zero, (size_t)count);
    return absmax;
}

typedef struct moments {
    map m, v;
    uint8_t m_zero, v_zero; /* the codes of 0 */
} moments;

qz_status qz_cpu_adamw_8bit(const qz_tensor *p, const qz_tensor *m, const qz_tensor *m_absmax, const qz_tensor *v,
                            const qz_tensor *v_absmax, const qz_tensor *g, const qz_adamw *how)
{
    const qz_adamw_step step = qz_adamw_step_of(how);
    const int64_t count = m->shape[0], each = QZ_PIECE / BLOCK, blocks = qz_ceil_div(count, BLOCK);
    moments maps = {.m_zero = qz_dynamic_encode(0), .v_zero = qz_dynamic_unsigned_encode(0)};
    fill_map(&maps.m, signed_value);
    fill_map(&maps.v, unsigned_value);
    QZ_PARALLEL_FOR for (int64_t first = 0; first < blocks; first += each)
    {
        for (int64_t b = first; b < qz_min(first + each, blocks); b++) {
            const int64_t i = b * BLOCK, n = qz_min(BLOCK, count - i);
            uint8_t *m_code = (uint8_t *)m->data + i, *v_code = (uint8_t *)v->data + i;
            float m_now[BLOCK], v_now[BLOCK];
            decode_row(m_now, m_code, maps.m.value, qz_f32(m_absmax)[b], n);
            decode_row(v_now, v_code, maps.v.value, qz_f32(v_absmax)[b], n);
            step_row(qz_f32(p) + i, m_now, v_now, qz_f32(g) + i, &step, n);
            qz_f32(m_absmax)[b] = store_moment(m_code, m_now, &maps.m, maps.m_zero, n);
            qz_f32(v_absmax)[b] = store_moment(v_code, v_now, &maps.v, maps.v_zero, n);
        }
    }
    return QZ_OK;
}

/* ---- sum of squares: of pieces in parallel, those of a round added in order ---- */

enum { ROUND = 1024 };

static double piece_squares(const qz_tensor *x, int64_t stride, qz_piece p)
{
    double sum = 0;
    for (int64_t r = p.row; r < p.row + p.rows; r++) sum += qz_reduce_squares(qz_f32(x) + r * stride + p.col, p.cols);
    return sum;
}

qz_status qz_cpu_square_sum(double *sum, const qz_tensor *x)
{
    const qz_rows rows = qz_rows_of(x);
    const qz_pieces pieces = qz_pieces_of(rows.rows, rows.cols);
    double part[ROUND];
    *sum = 0;
    for (int64_t first = 0; first < pieces.count; first += ROUND) {
        const int64_t count = qz_min(ROUND, pieces.count - first);
        QZ_PARALLEL_FOR for (int64_t i = 0; i < count; i++) part[i] =
            piece_squares(x, rows.stride, qz_piece_at(&pieces, first + i));
        for (int64_t i = 0; i < count; i++) *sum += part[i];
    }
    return QZ_OK;
}
