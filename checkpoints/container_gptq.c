/* GPTQ checkpoints, first layout (v1) and second (v2, read only) <-> qz_qtensor.
 *
 * Layout: AutoGPTQ auto_gptq/nn_modules/qlinear/qlinear_cuda.py; config: auto_gptq/quantization/config.py and GPTQModel
 * gptqmodel/quantization/config.py.
 *   <module>.qweight  I32 (K b / 32, N)  codes of b = 2, 3, 4 or 8 bits, packed along K as one stream
 *   <module>.qzeros   I32 (G, N b / 32)  zeros, packed along N; v1 stores zero - 1, v2 the zero itself
 *   <module>.scales   F16 (G, N)
 *   <module>.g_idx    I32 (K)            group of each input
 * which is the transpose of (N, K). value = (code - zero) * scale. group_size -1: one group over K.
 * v1 cannot store the zero 0 (settle asks for at least 1). g_idx is always written, k / group when there is no order:
 * AutoGPTQ and GPTQModel index by it, and vLLM skips it. `sym` true: readers take 2^(b-1) without looking at qzeros. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "checkpoints/checkpoints.h"
#include "checkpoints/gptq_config.h"
#include "checkpoints/packed_words.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

static const char *const suffixes[] = {"qweight", "qzeros", "scales", "g_idx", "bias", NULL};

static int bits_of(const qz_scheme *s)
{
    return qz_format_of(s->format)->bits;
}

/* Codes (N, K) <-> words (K b / 32, N). */
static qz_packing weight_packing(int64_t n, int64_t k, int bits)
{
    return (qz_packing){
        .bits = bits, .lines = n, .count = k, .code_line = k, .code_step = 1, .word_line = 1, .word_step = n};
}

/* Zeros (N, G) <-> words (G, N b / 32). */
static qz_packing zero_packing(int64_t n, int64_t groups, int bits)
{
    return (qz_packing){.bits = bits,
                        .lines = groups,
                        .count = n,
                        .code_line = 1,
                        .code_step = groups,
                        .word_line = qz_packing_words(n, bits),
                        .word_step = 1};
}

static qz_status check_sizes(const char *module, int64_t n, int64_t k, const qz_scheme *s)
{
    const int64_t unit = qz_gptq_unit(bits_of(s)), group = s->piece_cols;
    if (n % unit || k % unit)
        return QZ_FAIL(QZ_SHAPE,
                       "%s: %lld outputs and %lld inputs are not multiples of %lld, as gptq needs for %d bits", module,
                       (long long)n, (long long)k, (long long)unit, bits_of(s));
    if (group && k % group)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld inputs do not divide into groups of %lld", module, (long long)k,
                       (long long)group);
    return QZ_OK;
}

/* ---- reading ---- */

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(qz_json_get(config, "quantization_config"), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "gptq") == 0;
}

static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    qz_gptq_config found;
    QZ_TRY(qz_gptq_config_read(&found, qz_json_get(config, "quantization_config"), NULL));
    *out = qz_gptq_scheme(&found);
    return QZ_OK;
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_ckpt_find_part(c, module, "qweight") != NULL;
}

static qz_status zero_fails(const qz_ckpt *c, const char *module, int64_t n, int64_t g, int zero, const char *why)
{
    return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s.qzeros\" says that the zero of output %lld, group %lld is %d; %s",
                   qz_ckpt_folder(c), module, (long long)n, (long long)g, zero, why);
}

/* Stored fields in `zeros` (N, G) -> zeros; symmetric ones are checked and left out. */
static qz_status settle_zeros(const qz_ckpt *c, const char *module, const qz_gptq_config *config, uint8_t *zeros,
                              int64_t n, int64_t groups)
{
    const int middle = 1 << (config->bits - 1), offset = config->second_layout ? 0 : 1;
    for (int64_t i = 0; i < n * groups; i++) {
        const int zero = zeros[i] + offset;
        if (config->symmetric && zero != middle)
            return zero_fails(c, module, i / groups, i % groups, zero,
                              "config.json says sym, and readers then take 2^(bits - 1) without looking");
        if (zero > UINT8_MAX) return zero_fails(c, module, i / groups, i % groups, zero, "at most 255 can be read");
        zeros[i] = (uint8_t)zero;
    }
    return QZ_OK;
}

static qz_status read_zeros(qz_qtensor *out, const qz_ckpt *c, const char *module, const qz_gptq_config *config,
                            qz_arena *arena)
{
    const int64_t groups = qz_scheme_scale_cols(&out->scheme, out->cols);
    const qz_packing p = zero_packing(out->rows, groups, config->bits);
    const qz_stored *t;
    QZ_TRY(qz_part_find(&t, c, module, "qzeros", QZ_I32, 2, (int64_t[]){groups, p.word_line}));
    uint8_t *zeros = out->zeros ? out->zeros : qz_arena_alloc(arena, (size_t)(out->rows * groups));
    if (!zeros) return qz_arena_failed(arena);
    qz_packing_unpack(zeros, t->view.data, &p);
    return settle_zeros(c, module, config, zeros, out->rows, groups);
}

/* (G, N) as stored -> (N, G). */
static qz_status read_scales(qz_qtensor *out, const qz_ckpt *c, const qz_stored *t, qz_arena *arena)
{
    const int64_t groups = t->view.shape[0], n = t->view.shape[1];
    float *stored = qz_arena_array(arena, float, (size_t)(groups * n));
    if (!stored) return qz_arena_failed(arena);
    QZ_TRY(qz_part_floats(stored, c, t));
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < n; i++) out->scales[i * groups + g] = stored[g * n + i];
    return QZ_OK;
}

/* Kept only where it says more than k / group. */
static qz_status read_order(qz_qtensor *out, const qz_ckpt *c, const char *module, qz_arena *arena)
{
    const int64_t k = out->cols, groups = qz_scheme_scale_cols(&out->scheme, k);
    const qz_stored *t;
    if (!qz_ckpt_find_part(c, module, "g_idx")) return QZ_OK;
    QZ_TRY(qz_part_find(&t, c, module, "g_idx", QZ_I32, 1, &k));
    int32_t *order = qz_arena_array(arena, int32_t, (size_t)k);
    if (!order) return qz_arena_failed(arena);
    memcpy(order, t->view.data, (size_t)k * sizeof *order);
    bool plain = true;
    for (int64_t i = 0; i < k; i++) {
        if (order[i] < 0 || order[i] >= groups)
            return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s.g_idx\" holds %d at %lld; groups 0 to %lld are there",
                           qz_ckpt_folder(c), module, order[i], (long long)i, (long long)groups - 1);
        plain &= order[i] == (out->scheme.piece_cols ? i / out->scheme.piece_cols : 0);
    }
    out->permutation = plain ? NULL : order;
    return QZ_OK;
}

static qz_status read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena)
{
    const qz_json_node *root = qz_json_root(qz_ckpt_config(c));
    qz_gptq_config config;
    QZ_TRY_CTX(qz_gptq_config_read(&config, qz_json_get(root, "quantization_config"), module),
               "%s/config.json: quantization_config", qz_ckpt_folder(c));
    qz_scheme scheme = qz_gptq_scheme(&config);
    QZ_TRY_CTX(check_sizes(module, n, k, &scheme), "%s", qz_ckpt_folder(c));
    const int64_t groups = qz_scheme_scale_cols(&scheme, k);
    const qz_packing p = weight_packing(n, k, config.bits);
    const qz_stored *weight, *scales;
    QZ_TRY(qz_part_find(&weight, c, module, "qweight", QZ_I32, 2, (int64_t[]){qz_packing_words(k, config.bits), n}));
    QZ_TRY(qz_part_find(&scales, c, module, "scales", QZ_DTYPE_COUNT, 2, (int64_t[]){groups, n}));
    scheme.scale_type = scales->view.dtype;
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    qz_packing_unpack(out->codes, weight->view.data, &p);
    QZ_TRY(read_order(out, c, module, arena));
    qz_arena_mark mark = qz_arena_save(arena);
    qz_status status = read_zeros(out, c, module, &config, arena);
    if (status == QZ_OK) status = read_scales(out, c, scales, arena);
    qz_arena_restore(arena, mark);
    return status;
}

/* ---- what can be written ---- */

static void check_linear(qz_reasons *r, const qz_export_linear *l)
{
    static const int64_t usual[] = {32, 64, 128, 0};
    const qz_scheme *s = &l->scheme;
    const bool integer = qz_format_of(s->format)->kind == QZ_KIND_INTEGER;
    const int64_t unit = integer ? qz_gptq_unit(bits_of(s)) : 0;
    char found[120];
    qz_scheme_describe(s, found, sizeof found);
    if (unit == 0 || s->piece_rows != 1 || s->flat || s->double_quant) {
        qz_reasons_add(r, "%s: found %s; gptq holds int2, int3, int4 and int8 with a scale for each output and group",
                       l->module, found);
        return;
    }
    if (s->scale_type != QZ_F16 && s->scale_type != QZ_BF16)
        qz_reasons_add(r, "%s: found scales in %s; gptq stores F16", l->module, qz_dtype_name(s->scale_type));
    if (l->n % unit || l->k % unit)
        qz_reasons_add(r, "%s: found %lld outputs and %lld inputs; gptq needs multiples of %lld for %s", l->module,
                       (long long)l->n, (long long)l->k, (long long)unit, qz_format_of(s->format)->name);
    if (!s->symmetric && s->least_zero < 1)
        qz_reasons_add(r, "%s: zeros may be 0, which gptq cannot store (it stores zero - 1)", l->module);
    qz_reasons_embedding(r, l);
    if (l->layer < 0 && !l->embedding && strcmp(l->module, QZ_GPTQ_HEAD) != 0)
        qz_reasons_add(r, "%s lies outside the decoder layers, where gptq holds at most " QZ_GPTQ_HEAD, l->module);
    qz_reasons_group(r, l, usual);
}

/* What the format holds, but not every reader takes: said once for each kind. */
static void warn_of_readers(const qz_export_plan *plan)
{
    bool narrow = false, asymmetric = false, ordered = false;
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!l->quantized) continue;
        narrow |= bits_of(&l->scheme) < 4;
        asymmetric |= !l->scheme.symmetric;
        ordered |= l->ordered;
    }
    if (narrow) qz_warn("gptq with 2 or 3 bits: vLLM refuses it; transformers with gptqmodel loads it");
    if (asymmetric)
        qz_warn("gptq with zeros (asymmetric): vLLM refuses it; transformers with gptqmodel loads it; "
                "symmetric loads in both");
    if (ordered)
        qz_warn("gptq in activation order with g_idx (desc_act): vLLM refuses it; transformers with gptqmodel loads "
                "it; `act_order: static` needs no g_idx");
}

static qz_status can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "gptq"};
    if (!qz_export_first_quantized(plan)) qz_reasons_add(&r, "no linear is quantized; gptq needs at least one");
    if (plan->plain_type != QZ_F16 && plan->plain_type != QZ_BF16)
        qz_reasons_add(&r, "plain tensors are to be %s; gptq kernels compute in F16 or BF16",
                       qz_dtype_name(plan->plain_type));
    for (size_t i = 0; i < plan->linears; i++)
        if (plan->linear[i].quantized) check_linear(&r, &plan->linear[i]);
    qz_reasons_weights_only(&r, plan);
    qz_reasons_fused(&r, plan);
    if (r.count == 0) warn_of_readers(plan);
    return qz_reasons_status(&r);
}

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    (void)plain_type;
    if (!l->scheme.symmetric) l->scheme.least_zero = 1;
}

/* ---- writing ---- */

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    const int64_t n = l->n, k = l->k, groups = qz_scheme_scale_cols(&l->scheme, k);
    const int bits = bits_of(&l->scheme);
    QZ_TRY(check_sizes(l->module, n, k, &l->scheme));
    QZ_TRY(qz_part_declare(s, l->module, "qweight", QZ_I32, 2, (int64_t[]){qz_packing_words(k, bits), n}));
    QZ_TRY(qz_part_declare(s, l->module, "qzeros", QZ_I32, 2, (int64_t[]){groups, qz_packing_words(n, bits)}));
    QZ_TRY(qz_part_declare(s, l->module, "scales", QZ_F16, 2, (int64_t[]){groups, n}));
    return qz_part_declare(s, l->module, "g_idx", QZ_I32, 1, &k);
}

/* Zeros less one. */
static qz_status write_zeros(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, int64_t groups,
                             qz_arena *scratch)
{
    const int bits = bits_of(&q->scheme), most = 1 << bits;
    const qz_packing p = zero_packing(l->n, groups, bits);
    uint8_t *stored = qz_arena_alloc(scratch, (size_t)(l->n * groups));
    if (!stored) return qz_arena_failed(scratch);
    for (int64_t i = 0; i < l->n * groups; i++) {
        const int zero = q->zeros ? q->zeros[i] : most / 2;
        if (zero < 1 || zero > most)
            return QZ_FAIL(QZ_NUMERIC, "%s: the zero of output %lld, group %lld is %d; gptq stores 1 to %d", l->module,
                           (long long)(i / groups), (long long)(i % groups), zero, most);
        stored[i] = (uint8_t)(zero - 1);
    }
    return qz_part_write_words(s, l->module, "qzeros", stored, &p, scratch);
}

static qz_status write_scales(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, int64_t groups,
                              qz_arena *scratch)
{
    float *turned = qz_arena_array(scratch, float, (size_t)(groups * l->n));
    if (!turned) return qz_arena_failed(scratch);
    for (int64_t i = 0; i < l->n; i++)
        for (int64_t g = 0; g < groups; g++) turned[g * l->n + i] = q->scales[i * groups + g];
    return qz_part_write_floats(s, l->module, "scales", QZ_F16, turned, groups * l->n, scratch);
}

static qz_status write_order(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const int64_t group = q->scheme.piece_cols;
    int32_t *order = qz_arena_array(scratch, int32_t, (size_t)l->k);
    if (!order) return qz_arena_failed(scratch);
    for (int64_t k = 0; k < l->k; k++) order[k] = q->permutation ? q->permutation[k] : (int32_t)(group ? k / group : 0);
    return qz_part_write(s, l->module, "g_idx", order, (size_t)l->k * sizeof *order);
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    (void)act;
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation && !l->ordered)
        return QZ_FAIL(QZ_ARG, "%s: its groups are permuted, but it was not declared as ordered", l->module);
    const int64_t groups = qz_scheme_scale_cols(&q->scheme, l->k);
    const qz_packing p = weight_packing(l->n, l->k, bits_of(&q->scheme));
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = qz_part_write_words(s, l->module, "qweight", q->codes, &p, scratch);
    if (status == QZ_OK) status = write_zeros(s, l, q, groups, scratch);
    if (status == QZ_OK) status = write_scales(s, l, q, groups, scratch);
    if (status == QZ_OK) status = write_order(s, l, q, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

/* GPTQModel and AutoGPTQ look here before config.json. */
static qz_status extra_files(const char *folder, const qz_export_plan *plan, qz_arena *arena)
{
    char *text, *path = qz_path_join(arena, folder, "quantize_config.json");
    if (!path) return qz_arena_failed(arena);
    QZ_TRY(qz_gptq_config_block(&text, plan, arena));
    return qz_file_write(path, text, strlen(text));
}

const qz_container qz_container_gptq = {
    .plugin = {.name = "gptq",
               .help = "int2, int3, int4 and int8 with fp16 scales, GPTQ's first layout",
               .source = "AutoGPTQ 0.7, auto_gptq/nn_modules/qlinear/qlinear_cuda.py"},
    .consumers =
        "vLLM (auto_gptq: 4 and 8 bits, symmetric, no g_idx order; on a CPU 4 bits), transformers with gptqmodel "
        "(all), ExLlamaV2 (4 bits), SGLang. GPTQModel's own loader takes asymmetric files only from itself",
    .recognise = recognise,
    .can_express = can_express,
    .read_scheme = read_scheme,
    .suffixes = suffixes,
    .holds = holds,
    .read_linear = read_linear,
    .declare_linear = declare_linear,
    .write_linear = write_linear,
    .config_block = qz_gptq_config_block,
    .extra_files = extra_files,
    .settle = settle,
    .preferred_plain_type = QZ_F16,
    .consumer = "vllm",
};
