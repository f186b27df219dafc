/* The weights of compressed-tensors checkpoints -> qz_qtensor, every type, shape and range checked. */
#include <string.h>

#include "checkpoints/ct_tensors.h"
#include "checkpoints/tensor_parts.h"

static int bits_of(const qz_scheme *s)
{
    return qz_format_of(s->format)->bits;
}

qz_packing qz_ct_weight_packing(int64_t n, int64_t k, int bits)
{
    return (qz_packing){.bits = bits,
                        .lines = n,
                        .count = k,
                        .code_line = k,
                        .code_step = 1,
                        .word_line = qz_packing_words(k, bits),
                        .word_step = 1};
}

qz_packing qz_ct_zero_packing(int64_t n, int64_t groups, int bits)
{
    return (qz_packing){.bits = bits,
                        .lines = groups,
                        .count = n,
                        .code_line = 1,
                        .code_step = groups,
                        .word_line = 1,
                        .word_step = groups};
}

/* One value for each piece: a matrix, or, as some writers have it, without the dimensions of one. */
static qz_status find_scales(const qz_stored **out, const qz_ckpt *c, const char *module, int64_t rows, int64_t cols)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, "weight_scale");
    int ndim = 2;
    if (t && t->view.ndim < 2 && cols == 1) ndim = rows == 1 ? t->view.ndim : 1;
    return qz_part_find(out, c, module, "weight_scale", QZ_DTYPE_COUNT, ndim, (int64_t[]){rows, cols});
}

static qz_status read_packed(qz_qtensor *out, const qz_ckpt *c, const char *module)
{
    const qz_packing p = qz_ct_weight_packing(out->rows, out->cols, bits_of(&out->scheme));
    const qz_stored *weight, *shape;
    int64_t said[2];
    QZ_TRY(qz_part_find(&weight, c, module, "weight_packed", QZ_I32, 2, (int64_t[]){out->rows, p.word_line}));
    QZ_TRY(qz_part_find(&shape, c, module, "weight_shape", QZ_I64, 1, (int64_t[]){2}));
    memcpy(said, shape->view.data, sizeof said);
    if (said[0] != out->rows || said[1] != out->cols)
        return QZ_FAIL(QZ_SHAPE, "%s: tensor \"%s.weight_shape\" says (%lld, %lld); (%lld, %lld) is expected",
                       qz_ckpt_folder(c), module, (long long)said[0], (long long)said[1], (long long)out->rows,
                       (long long)out->cols);
    qz_packing_unpack(out->codes, weight->view.data, &p);
    return QZ_OK;
}

/* Signed bytes -> codes of `bits`; which are out of range is an error. */
static qz_status add_middle(uint8_t *codes, const qz_ckpt *c, const qz_stored *t, int bits)
{
    const int middle = 1 << (bits - 1);
    const int8_t *stored = t->view.data;
    for (int64_t i = 0; i < qz_tensor_count(&t->view); i++) {
        if (stored[i] < -middle || stored[i] >= middle)
            return QZ_FAIL(QZ_FORMAT, "%s/%s: tensor \"%s\" holds %d at element %lld; %d bits hold %d to %d",
                           qz_ckpt_folder(c), t->file, t->name, stored[i], (long long)i, bits, -middle, middle - 1);
        codes[i] = (uint8_t)(stored[i] + middle);
    }
    return QZ_OK;
}

static qz_status read_bytes(qz_qtensor *out, const qz_ckpt *c, const char *module)
{
    const bool floating = qz_format_of(out->scheme.format)->kind == QZ_KIND_FLOAT;
    const qz_stored *t;
    QZ_TRY(qz_part_find(&t, c, module, "weight", floating ? QZ_F8_E4M3 : QZ_I8, 2, (int64_t[]){out->rows, out->cols}));
    if (!floating) return add_middle(out->codes, c, t, bits_of(&out->scheme));
    memcpy(out->codes, t->view.data, t->bytes);
    for (int64_t i = 0; i < out->rows * out->cols; i++)
        if ((out->codes[i] & 0x7f) == 0x7f)
            return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds NaN at [%lld, %lld]; weights must be finite",
                           qz_ckpt_folder(c), t->file, t->name, (long long)(i / out->cols), (long long)(i % out->cols));
    return QZ_OK;
}

/* Symmetric codes have no zeros; older writers store them all the same, and they must be what is implied. */
static qz_status check_no_zeros(const qz_ckpt *c, const char *module)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, "weight_zero_point");
    const uint8_t *data = t ? t->view.data : NULL;
    for (uint64_t i = 0; t && i < t->bytes; i++)
        if (data[i])
            return QZ_FAIL(QZ_FORMAT, "%s/%s: tensor \"%s\" is not zero, but config.json says symmetric",
                           qz_ckpt_folder(c), t->file, t->name);
    return QZ_OK;
}

static qz_status read_zeros(qz_qtensor *out, const qz_ckpt *c, const char *module)
{
    const int64_t rows = qz_scheme_scale_rows(&out->scheme, out->rows);
    const int64_t cols = qz_scheme_scale_cols(&out->scheme, out->cols);
    const int bits = bits_of(&out->scheme);
    const qz_packing p = qz_ct_zero_packing(rows, cols, bits);
    const qz_stored *t = qz_ckpt_find_part(c, module, "weight_zero_point");
    if (!out->zeros) return check_no_zeros(c, module);
    if (t && t->view.dtype == QZ_I8) { /* one a byte, as int-quantized has it */
        QZ_TRY(qz_ckpt_check_shape(c, t, 2, (int64_t[]){rows, cols}));
        return add_middle(out->zeros, c, t, bits);
    }
    QZ_TRY(
        qz_part_find(&t, c, module, "weight_zero_point", QZ_I32, 2, (int64_t[]){qz_packing_words(rows, bits), cols}));
    qz_packing_unpack(out->zeros, t->view.data, &p);
    return QZ_OK;
}

/* Groups in activation order, of files from before 2026; all -1: there is no order. */
static qz_status read_order(qz_qtensor *out, const qz_ckpt *c, const char *module, qz_arena *arena)
{
    const int64_t k = out->cols, groups = qz_scheme_scale_cols(&out->scheme, k);
    const qz_stored *t;
    if (!qz_ckpt_find_part(c, module, "weight_g_idx")) return QZ_OK;
    QZ_TRY(qz_part_find(&t, c, module, "weight_g_idx", QZ_I32, 1, &k));
    int32_t *order = qz_arena_array(arena, int32_t, (size_t)k);
    if (!order) return qz_arena_failed(arena);
    memcpy(order, t->view.data, (size_t)k * sizeof *order);
    int64_t absent = 0;
    for (int64_t i = 0; i < k; i++) {
        absent += order[i] == -1;
        if (order[i] < -1 || order[i] >= groups || (order[i] == -1) != (absent > 0))
            return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s\" holds %d at %lld; groups 0 to %lld are there",
                           qz_ckpt_folder(c), t->name, order[i], (long long)i, (long long)groups - 1);
    }
    out->permutation = absent ? NULL : order;
    return QZ_OK;
}

qz_status qz_ct_find_group(qz_ct_group *out, const qz_ckpt *c, const char *module)
{
    QZ_TRY_CTX(qz_ct_config_find(out, qz_json_get(qz_json_root(qz_ckpt_config(c)), "quantization_config"), module),
               "%s/config.json: quantization_config", qz_ckpt_folder(c));
    return QZ_OK;
}

qz_status qz_ct_read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                            qz_arena *arena)
{
    qz_ct_group group;
    qz_scheme scheme;
    const qz_stored *scales;
    QZ_TRY(qz_ct_find_group(&group, c, module));
    QZ_TRY(qz_ct_weight_scheme(&scheme, &group.weights));
    if (!group.weights.present)
        return QZ_FAIL(QZ_FORMAT, "%s: config.json does not quantize the weights of %s, but they are stored quantized",
                       qz_ckpt_folder(c), module);
    if (group.weights.strategy == QZ_CT_GROUP && k % group.weights.group)
        return QZ_FAIL(QZ_SHAPE, "%s: %s: %lld inputs do not divide into groups of %lld", qz_ckpt_folder(c), module,
                       (long long)k, (long long)group.weights.group);
    QZ_TRY(find_scales(&scales, c, module, qz_scheme_scale_rows(&scheme, n), qz_scheme_scale_cols(&scheme, k)));
    scheme.scale_type = scales->view.dtype;
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    if (qz_ckpt_find_part(c, module, "weight_packed"))
        QZ_TRY(read_packed(out, c, module));
    else
        QZ_TRY(read_bytes(out, c, module));
    QZ_TRY(qz_part_floats(out->scales, c, scales));
    QZ_TRY(read_zeros(out, c, module));
    return read_order(out, c, module, arena);
}
