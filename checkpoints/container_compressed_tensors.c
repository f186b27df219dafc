/* compressed-tensors checkpoints <-> qz_qtensor: what llm-compressor writes and vLLM reads.
 *
 * Layout: compressed_tensors/compressors/{pack_quantized,naive_quantized}/base.py (0.19).
 *   pack-quantized    <module>.weight_packed      I32 (N, K b / 32)  codes of b = 2 to 8 bits along K as one stream
 *                     <module>.weight_zero_point  I32 (N b / 32, G)  asymmetric: zeros, packed along N
 *                     <module>.weight_shape       I64 (2)            N, K
 *   int-quantized     <module>.weight             I8 (N, K)          code - 128
 *   float-, naive-    <module>.weight             F8_E4M3 (N, K)
 *   all               <module>.weight_scale       (N, G), (N, 1), (1) or (blocks of N, blocks of K)
 *   static inputs     <module>.input_scale        F32 (1); asymmetric also input_zero_point I8 (1)
 *   cache             <attention>.k_scale, v_scale  F32 (1), or (kv heads, 1, 1)
 * Stored codes are signed; ours are unsigned, 2^(b-1) more, and packing adds the same. value = (code - zero) * scale.
 *
 * Types of weight_scale: the model's in BF16, since vLLM casts packed weights' scales to it, transformers casts all of
 * them, and BF16 widens exactly where vLLM wants F32. In an F16 model only packed weights' scales are F16: the others
 * may be too small for F16, and vLLM reads F32 for them. */
#include <math.h>
#include <string.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/ct_config.h"
#include "checkpoints/packed_words.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

static const char *const suffixes[] = {"weight",       "weight_packed",
                                       "weight_scale", "weight_zero_point",
                                       "weight_shape", "weight_g_idx",
                                       "input_scale",  "input_zero_point",
                                       "bias",         NULL};
/* Scales of queries and zeros are there in files of llm-compressor; servers do not use them. */
static const char *const kv_suffixes[] = {"k_scale",      "v_scale",      "q_scale", "k_zero_point",
                                          "v_zero_point", "q_zero_point", NULL};

static int bits_of(const qz_scheme *s)
{
    return qz_format_of(s->format)->bits;
}

/* Codes (N, K) <-> words (N, K b / 32). */
static qz_packing weight_packing(int64_t n, int64_t k, int bits)
{
    return (qz_packing){.bits = bits,
                        .lines = n,
                        .count = k,
                        .code_line = k,
                        .code_step = 1,
                        .word_line = qz_packing_words(k, bits),
                        .word_step = 1};
}

/* Zeros (N, G) <-> words (N b / 32, G). */
static qz_packing zero_packing(int64_t n, int64_t groups, int bits)
{
    return (qz_packing){.bits = bits,
                        .lines = groups,
                        .count = n,
                        .code_line = 1,
                        .code_step = groups,
                        .word_line = 1,
                        .word_step = groups};
}

/* ---- reading ---- */

static const qz_json_node *block_of(const qz_ckpt *c)
{
    return qz_json_get(qz_json_root(qz_ckpt_config(c)), "quantization_config");
}

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(qz_json_get(config, "quantization_config"), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "compressed-tensors") == 0;
}

/* That of the first group. */
static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    const qz_json_node *block = qz_json_get(config, "quantization_config");
    const qz_json_node *first = qz_json_first(qz_json_get(block, "config_groups"));
    qz_ct_group group = {0};
    QZ_TRY(qz_ct_config_check(block));
    if (first) QZ_TRY(qz_ct_group_read(&group, first));
    return qz_ct_weight_scheme(out, &group.weights);
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_ckpt_find_part(c, module, "weight_packed") || qz_ckpt_find_part(c, module, "weight_scale");
}

/* One value for each piece: a matrix, or, as some writers have it, without the dimensions of one. */
static qz_status find_scales(const qz_stored **out, const qz_ckpt *c, const char *module, int64_t rows, int64_t cols)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, "weight_scale");
    const bool flat = t && t->view.ndim < 2 && cols == 1;
    return qz_part_find(out, c, module, "weight_scale", QZ_DTYPE_COUNT,
                        flat && rows == 1 ? t->view.ndim
                        : flat            ? 1
                                          : 2,
                        (int64_t[]){rows, cols});
}

static qz_status read_packed(qz_qtensor *out, const qz_ckpt *c, const char *module)
{
    const qz_packing p = weight_packing(out->rows, out->cols, bits_of(&out->scheme));
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
    const qz_packing p = zero_packing(rows, cols, bits);
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

static qz_status find_group(qz_ct_group *out, const qz_ckpt *c, const char *module)
{
    QZ_TRY_CTX(qz_ct_config_find(out, block_of(c), module), "%s/config.json: quantization_config", qz_ckpt_folder(c));
    return QZ_OK;
}

static qz_status read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena)
{
    qz_ct_group group;
    qz_scheme scheme;
    const qz_stored *scales;
    QZ_TRY(find_group(&group, c, module));
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

/* ---- inputs and cache ---- */

static qz_status one_float(float *out, const qz_ckpt *c, const char *module, const char *suffix)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, suffix);
    QZ_TRY(qz_part_find(&t, c, module, suffix, QZ_DTYPE_COUNT, t && t->view.ndim == 0 ? 0 : 1, (int64_t[]){1}));
    QZ_TRY(qz_part_floats(out, c, t));
    if (*out > 0) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" is %.9g; a scale is positive", qz_ckpt_folder(c), t->file, t->name,
                   (double)*out);
}

static qz_status read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme, qz_act_values *values)
{
    qz_ct_group group;
    const qz_stored *zero = qz_ckpt_find_part(c, module, "input_zero_point");
    QZ_TRY(find_group(&group, c, module));
    QZ_TRY_CTX(qz_ct_input_scheme(scheme, &group.input), "%s/config.json: quantization_config", qz_ckpt_folder(c));
    if (scheme->mode != QZ_ACT_TENSOR) return QZ_OK;
    QZ_TRY(one_float(&values->scale, c, module, "input_scale"));
    if (scheme->format != QZ_FORMAT_INT8 || scheme->symmetric) return QZ_OK;
    QZ_TRY(qz_part_find(&zero, c, module, "input_zero_point", QZ_I8, zero && zero->view.ndim == 0 ? 0 : 1,
                        (int64_t[]){1}));
    values->zero = *(const int8_t *)zero->view.data;
    return QZ_OK;
}

static qz_status read_cache_scales(float *out, const qz_ckpt *c, const char *attention, const char *suffix,
                                   int64_t heads, bool per_head)
{
    if (!per_head) {
        QZ_TRY(one_float(out, c, attention, suffix));
        for (int64_t h = 1; h < heads; h++) out[h] = out[0];
        return QZ_OK;
    }
    const qz_stored *t = qz_ckpt_find_part(c, attention, suffix);
    QZ_TRY(qz_part_find(&t, c, attention, suffix, QZ_DTYPE_COUNT, t && t->view.ndim == 1 ? 1 : 3,
                        (int64_t[]){heads, 1, 1}));
    QZ_TRY(qz_part_floats(out, c, t));
    for (int64_t h = 0; h < heads; h++)
        if (!(out[h] > 0))
            return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds %.9g for head %lld; a scale is positive",
                           qz_ckpt_folder(c), t->file, t->name, (double)out[h], (long long)h);
    return QZ_OK;
}

static qz_status read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme, float *key,
                         float *value)
{
    qz_ct_args args;
    QZ_TRY_CTX(qz_ct_config_kv(&args, block_of(c)), "%s/config.json: quantization_config", qz_ckpt_folder(c));
    *scheme = (qz_kv_scheme){.wanted = args.present,
                             .format = args.floating ? QZ_FORMAT_FP8_E4M3 : QZ_FORMAT_INT8,
                             .per_head = args.strategy == QZ_CT_ATTN_HEAD};
    if (!args.present) return QZ_OK;
    QZ_TRY(read_cache_scales(key, c, attention, "k_scale", kv_heads, scheme->per_head));
    return read_cache_scales(value, c, attention, "v_scale", kv_heads, scheme->per_head);
}

/* ---- writing ---- */

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    const bool integer = qz_format_of(l->scheme.format)->kind == QZ_KIND_INTEGER;
    const bool small = plain_type == QZ_F16 && qz_ct_form_of(l) != QZ_CT_PACKED;
    if (integer) l->scheme.zero_rule = QZ_ROUND_SUM;
    l->scheme.scale_type = small ? QZ_F32 : plain_type;
}

static qz_status declare_weight(qz_shards *s, const qz_export_linear *l)
{
    const qz_scheme *c = &l->scheme;
    const int bits = bits_of(c);
    const qz_ct_form form = qz_ct_form_of(l);
    if (form != QZ_CT_PACKED)
        return qz_part_declare(s, l->module, "weight", form == QZ_CT_INT ? QZ_I8 : QZ_F8_E4M3, 2,
                               (int64_t[]){l->n, l->k});
    QZ_TRY(qz_part_declare(s, l->module, "weight_packed", QZ_I32, 2, (int64_t[]){l->n, qz_packing_words(l->k, bits)}));
    QZ_TRY(qz_part_declare(s, l->module, "weight_shape", QZ_I64, 1, (int64_t[]){2}));
    if (c->symmetric) return QZ_OK;
    return qz_part_declare(s, l->module, "weight_zero_point", QZ_I32, 2,
                           (int64_t[]){qz_packing_words(l->n, bits), qz_scheme_scale_cols(c, l->k)});
}

static bool has_input_zero(const qz_act_scheme *a)
{
    return a->mode == QZ_ACT_TENSOR && a->format == QZ_FORMAT_INT8 && !a->symmetric;
}

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    const int64_t rows = qz_scheme_scale_rows(&l->scheme, l->n), cols = qz_scheme_scale_cols(&l->scheme, l->k);
    const int ndim = qz_ct_strategy_of(l) == QZ_CT_TENSOR ? 1 : 2;
    QZ_TRY(declare_weight(s, l));
    QZ_TRY(qz_part_declare(s, l->module, "weight_scale", l->scheme.scale_type, ndim, (int64_t[]){rows, cols}));
    if (l->activation.mode == QZ_ACT_TENSOR)
        QZ_TRY(qz_part_declare(s, l->module, "input_scale", QZ_F32, 1, (int64_t[]){1}));
    if (has_input_zero(&l->activation))
        QZ_TRY(qz_part_declare(s, l->module, "input_zero_point", QZ_I8, 1, (int64_t[]){1}));
    return QZ_OK;
}

static qz_status write_words(qz_shards *s, const char *module, const char *suffix, const uint8_t *codes,
                             const qz_packing *p, qz_arena *scratch)
{
    const size_t words = (size_t)(p->lines * qz_packing_words(p->count, p->bits));
    uint32_t *out = qz_arena_array(scratch, uint32_t, words);
    if (!out) return qz_arena_failed(scratch);
    qz_packing_pack(out, codes, p);
    return qz_part_write(s, module, suffix, out, words * sizeof *out);
}

static qz_status write_packed(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const int bits = bits_of(&q->scheme);
    const int64_t shape[2] = {l->n, l->k};
    const qz_packing weight = weight_packing(l->n, l->k, bits);
    const qz_packing zeros = zero_packing(l->n, qz_scheme_scale_cols(&q->scheme, l->k), bits);
    QZ_TRY(write_words(s, l->module, "weight_packed", q->codes, &weight, scratch));
    QZ_TRY(qz_part_write(s, l->module, "weight_shape", shape, sizeof shape));
    if (q->scheme.symmetric) return QZ_OK;
    return write_words(s, l->module, "weight_zero_point", q->zeros, &zeros, scratch);
}

static qz_status write_bytes(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const size_t count = (size_t)(l->n * l->k);
    if (qz_format_of(q->scheme.format)->kind == QZ_KIND_FLOAT)
        return qz_part_write(s, l->module, "weight", q->codes, count);
    uint8_t *out = qz_arena_alloc(scratch, count);
    if (!out) return qz_arena_failed(scratch);
    for (size_t i = 0; i < count; i++) out[i] = (uint8_t)(q->codes[i] - 128); /* two's complement */
    return qz_part_write(s, l->module, "weight", out, count);
}

static qz_status write_input(qz_shards *s, const qz_export_linear *l, const qz_act_values *act)
{
    if (l->activation.mode != QZ_ACT_TENSOR) return QZ_OK;
    if (!act || !(act->scale > 0) || !isfinite(act->scale) || act->zero < INT8_MIN || act->zero > INT8_MAX)
        return QZ_FAIL(QZ_NUMERIC,
                       "%s: the scale of its input is %.9g, the zero %d; a static input needs a positive "
                       "scale and a zero of -128 to 127",
                       l->module, act ? (double)act->scale : 0.0, act ? act->zero : 0);
    const int8_t zero = (int8_t)act->zero;
    QZ_TRY(qz_part_write(s, l->module, "input_scale", &act->scale, sizeof act->scale));
    if (has_input_zero(&l->activation)) return qz_part_write(s, l->module, "input_zero_point", &zero, sizeof zero);
    if (zero) return QZ_FAIL(QZ_NUMERIC, "%s: the zero of its input is %d, but it is symmetric", l->module, zero);
    return QZ_OK;
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: compressed-tensors' readers take no permuted groups; use static groups",
                       l->module);
    const int64_t pieces = qz_scheme_scale_rows(&q->scheme, l->n) * qz_scheme_scale_cols(&q->scheme, l->k);
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status =
        qz_ct_form_of(l) == QZ_CT_PACKED ? write_packed(s, l, q, scratch) : write_bytes(s, l, q, scratch);
    if (status == QZ_OK)
        status = qz_part_write_floats(s, l->module, "weight_scale", q->scheme.scale_type, q->scales, pieces, scratch);
    if (status == QZ_OK) status = write_input(s, l, act);
    qz_arena_restore(scratch, mark);
    return status;
}

static int64_t cache_scales(const qz_export_plan *plan)
{
    return plan->kv.per_head ? plan->kv_heads : 1;
}

static qz_status declare_kv(qz_shards *s, const qz_export_plan *plan, int layer)
{
    const int64_t shape[3] = {cache_scales(plan), 1, 1};
    const int ndim = plan->kv.per_head ? 3 : 1; /* as llm-compressor stores them, and vLLM flattens */
    QZ_TRY(qz_part_declare(s, plan->attention[layer], "k_scale", QZ_F32, ndim, shape));
    return qz_part_declare(s, plan->attention[layer], "v_scale", QZ_F32, ndim, shape);
}

static qz_status write_kv(qz_shards *s, const qz_export_plan *plan, int layer, const qz_kv_values *values)
{
    const int64_t count = cache_scales(plan);
    const char *module = plan->attention[layer];
    for (int64_t i = 0; i < count; i++)
        if (!(values->key[i] > 0) || !(values->value[i] > 0) || !isfinite(values->key[i]) ||
            !isfinite(values->value[i]))
            return QZ_FAIL(QZ_NUMERIC, "%s: the scales of its cache are %.9g and %.9g; they must be positive", module,
                           (double)values->key[i], (double)values->value[i]);
    QZ_TRY(qz_part_write(s, module, "k_scale", values->key, (size_t)count * sizeof *values->key));
    return qz_part_write(s, module, "v_scale", values->value, (size_t)count * sizeof *values->value);
}

const qz_container qz_container_compressed_tensors = {
    .plugin = {.name = "compressed-tensors",
               .help = "int2 to int8 and fp8 weights, int8 and fp8 inputs, fp8 cache, as llm-compressor writes them",
               .source = "compressed-tensors 0.19, compressed_tensors/compressors"},
    .consumers =
        "vLLM (int4 and int8 weights, W8A8, W4A8, fp8; on a CPU not W8A16, fp8 W8A16 and blocks), transformers "
        "with the package compressed-tensors, SGLang",
    .recognise = recognise,
    .can_express = qz_ct_can_express,
    .read_scheme = read_scheme,
    .suffixes = suffixes,
    .kv_suffixes = kv_suffixes,
    .holds = holds,
    .read_linear = read_linear,
    .declare_linear = declare_linear,
    .write_linear = write_linear,
    .declare_kv = declare_kv,
    .write_kv = write_kv,
    .read_activation = read_activation,
    .read_kv = read_kv,
    .config_block = qz_ct_block,
    .settle = settle,
    .preferred_plain_type = QZ_BF16,
    .int8_divisor = QZ_CT_INT8_DIVISOR,
    .consumer = "vllm",
};
