/* LLM.int8() weights of bitsandbytes <-> qz_qtensor (Dettmers et al. 2022).
 *
 *   <module>.weight         I8 (N, K)   -127 .. 127
 *   <module>.SCB            F32 (N)     largest magnitude of the row; value = code * (SCB / 127)
 *   <module>.weight_format  U8 []       0: rows as they are
 * In memory the scale is SCB / 127 and a code is 128 more. */
#include <math.h>

#include "base/parallel.h"
#include "checkpoints/bnb_weights.h"
#include "checkpoints/tensor_parts.h"
#include "numeric/minifloat.h"

enum { MIDDLE = 128, CHUNK = 1 << 16 };

#define LARGEST 127.0f

/* Signed and unsigned codes differ in the top bit; both ways. */
static void flip(uint8_t *out, const uint8_t *in, int64_t count)
{
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t end = first + CHUNK < count ? first + CHUNK : count;
        for (int64_t i = first; i < end; i++) out[i] = in[i] ^ MIDDLE;
    }
}

static qz_status check_layout(const qz_ckpt *c, const char *module)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, "weight_format");
    if (!t) return QZ_OK;
    QZ_TRY(qz_part_check_type(c, t, QZ_U8));
    QZ_TRY(qz_ckpt_check_shape(c, t, 0, NULL));
    if (*(const uint8_t *)t->view.data == 0) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "%s/%s: tensor \"%s\" is %d: codes in a GPU's own order; only 0 (rows) is read",
                   qz_ckpt_folder(c), t->file, t->name, *(const uint8_t *)t->view.data);
}

qz_status qz_bnb_read_int8(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out, qz_arena *arena)
{
    const qz_scheme scheme = {
        .format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .narrow = true, .scale_type = QZ_F32};
    const qz_stored *weight, *most;
    QZ_TRY(check_layout(c, module));
    QZ_TRY(qz_part_find(&weight, c, module, "weight", QZ_I8, 2, (int64_t[]){n, k}));
    QZ_TRY(qz_part_find(&most, c, module, "SCB", QZ_F32, 1, &n));
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    flip(out->codes, weight->view.data, n * k);
    QZ_TRY(qz_part_floats(out->scales, c, most));
    for (int64_t i = 0; i < n; i++) out->scales[i] /= LARGEST;
    return QZ_OK;
}

qz_status qz_bnb_declare_int8(qz_shards *s, const qz_export_linear *l)
{
    QZ_TRY(qz_part_declare(s, l->module, "weight", QZ_I8, 2, (int64_t[]){l->n, l->k}));
    QZ_TRY(qz_part_declare(s, l->module, "SCB", QZ_F32, 1, &l->n));
    return qz_part_declare(s, l->module, "weight_format", QZ_U8, 0, NULL);
}

/* The number that gives this scale when divided by 127. Where two neighbours do, it is the one that ends in a zero bit:
 * a row's largest weight usually was a 16-bit number. */
static qz_status largest_of(float *out, const qz_export_linear *l, float scale, int64_t row)
{
    bool found = false;
    const float near = scale * LARGEST;
    for (int step = -1; step <= 1; step++) {
        const float x = step < 0 ? nextafterf(near, -INFINITY) : step > 0 ? nextafterf(near, INFINITY) : near;
        if (x / LARGEST != scale || (found && (qz_float_bits(x) & 1))) continue;
        *out = x;
        found = true;
    }
    if (found && isfinite(near)) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC,
                   "%s: the scale %.9g of output %lld is no number over 127; bitsandbytes stores the row's largest",
                   l->module, (double)scale, (long long)row);
}

static qz_status write_largest(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    float *most = qz_arena_array(scratch, float, (size_t)l->n);
    if (!most) return qz_arena_failed(scratch);
    for (int64_t i = 0; i < l->n; i++) QZ_TRY(largest_of(&most[i], l, q->scales[i], i));
    return qz_part_write_floats(s, l->module, "SCB", QZ_F32, most, l->n, scratch);
}

qz_status qz_bnb_write_int8(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const uint8_t rows = 0;
    uint8_t *codes = qz_arena_alloc(scratch, (size_t)(l->n * l->k));
    if (!codes) return qz_arena_failed(scratch);
    flip(codes, q->codes, l->n * l->k);
    QZ_TRY(qz_part_write(s, l->module, "weight", codes, (size_t)(l->n * l->k)));
    QZ_TRY(write_largest(s, l, q, scratch));
    return qz_part_write(s, l->module, "weight_format", &rows, sizeof rows);
}
