/* AWQ "GEMM" checkpoints <-> qz_qtensor.
 *
 * Layout: AutoAWQ awq/modules/linear/gemm.py and awq/utils/packing_utils.py; config: awq/models/_config.py.
 *   <module>.qweight  I32 (K, N/8)   4-bit codes, eight outputs a word, interleaved (numeric/pack.h)
 *   <module>.qzeros   I32 (K/G, N/8) zeros as they are, packed alike
 *   <module>.scales   F16 (K/G, N)
 * which is the transpose of (N, K). value = (code - zero) * scale. group_size -1: one group over K.
 * The output head is quantized only with the key lm_head: true, which vLLM alone knows (auto_awq.py).
 * Zeros are always written, 8 for symmetric codes: loaders differ in what `zero_point: false` means.
 * Not read: the other layouts that share quant_method "awq" (version gemv, gemv_fast, marlin, exllama, ipex). */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/parallel.h"
#include "checkpoints/checkpoints.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"
#include "numeric/minifloat.h"
#include "numeric/pack.h"

#define HEAD "lm_head" /* the config's key, and the name that vLLM gives the head */

enum { OCTET = 8, TILE = 64, SYMMETRIC_ZERO = 8 };

static const char *const suffixes[] = {"qweight", "qzeros", "scales", "bias", NULL};

/* ---- reading ---- */

static const qz_json_node *config_of(const qz_json_node *config)
{
    return qz_json_get(config, "quantization_config");
}

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(config_of(config), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "awq") == 0;
}

/* Files of different ages use one of two names for the same thing. */
static const qz_json_node *either(const qz_json_node *object, const char *name, const char *older)
{
    const qz_json_node *node = qz_json_get(object, name);
    return node ? node : qz_json_get(object, older);
}

static qz_status check_version(const qz_json_node *version)
{
    const char *text = "gemm";
    if (version) QZ_TRY(qz_json_string(version, "version", &text));
    if (strcasecmp(text, "gemm") != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "version: \"%s\" is another layout of the codes; only \"gemm\" is read", text);
    return QZ_OK;
}

static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    const qz_json_node *q = config_of(config);
    int64_t bits, group;
    bool zero_point = true;
    QZ_TRY(check_version(qz_json_get(q, "version")));
    QZ_TRY(qz_json_int(either(q, "bits", "w_bit"), "bits", 4, 4, &bits));
    QZ_TRY(qz_json_int(either(q, "group_size", "q_group_size"), "group_size", -1, 1 << 20, &group));
    if (group == 0) return QZ_FAIL(QZ_FORMAT, "group_size: found 0, expected -1 (the whole row) or a positive number");
    if (qz_json_get(q, "zero_point")) QZ_TRY(qz_json_bool(qz_json_get(q, "zero_point"), "zero_point", &zero_point));
    if (!zero_point)
        return QZ_FAIL(QZ_UNSUPPORTED, "zero_point: false is read differently by every loader; only files with zeros "
                                       "(zero_point true) are read");
    *out = (qz_scheme){.format = QZ_FORMAT_INT4,
                       .piece_rows = 1,
                       .piece_cols = group < 0 ? 0 : group,
                       .scale_type = QZ_F16,
                       .zero_rule = QZ_ROUND_VALUE};
    return QZ_OK;
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_ckpt_find_part(c, module, "qweight") != NULL;
}

static qz_status find_part(const qz_stored **out, const qz_ckpt *c, const char *module, const char *suffix,
                           qz_dtype type, int64_t rows, int64_t cols)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, suffix);
    if (!t) return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s.%s\" is missing", qz_ckpt_folder(c), module, suffix);
    bool half = type == QZ_F16 && t->view.dtype == QZ_BF16; /* some writers keep scales in the model's type */
    if (t->view.dtype != type && !half)
        return QZ_FAIL(QZ_FORMAT, "%s/%s: tensor \"%s\" has the type %s; %s is expected", qz_ckpt_folder(c), t->file,
                       t->name, qz_dtype_name(t->view.dtype), qz_dtype_name(type));
    QZ_TRY(qz_ckpt_check_shape(c, t, 2, (int64_t[]){rows, cols}));
    *out = t;
    return QZ_OK;
}

/* Words (rows, cols / 8) -> codes (cols, rows). */
static void unpack(uint8_t *codes, const uint8_t *words, int64_t rows, int64_t cols)
{
    int64_t octets = cols / OCTET;
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < rows; first += TILE) {
        int64_t end = first + TILE < rows ? first + TILE : rows;
        for (int64_t c = 0; c < octets; c++)
            for (int64_t r = first; r < end; r++) {
                uint32_t word;
                uint8_t code[OCTET];
                memcpy(&word, words + (r * octets + c) * (int64_t)sizeof word, sizeof word);
                qz_unpack_awq(code, word);
                for (int64_t i = 0; i < OCTET; i++) codes[(c * OCTET + i) * rows + r] = code[i];
            }
    }
}

/* Scales (groups, N) as stored -> (N, groups). */
static qz_status unpack_scales(float *scales, const qz_ckpt *c, const qz_stored *t)
{
    int64_t groups = t->view.shape[0], n = t->view.shape[1];
    const uint8_t *data = t->view.data;
    bool half = t->view.dtype == QZ_F16;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, data + (g * n + i) * (int64_t)sizeof bits, sizeof bits);
            float s = half ? qz_f16_decode(bits) : qz_bf16_decode(bits);
            if (!isfinite(s))
                return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds %s at [%lld, %lld]; scales must be finite",
                               qz_ckpt_folder(c), t->file, t->name, isnan(s) ? "NaN" : "an infinity", (long long)g,
                               (long long)i);
            scales[i * groups + g] = s;
        }
    return QZ_OK;
}

static qz_status check_sizes(const char *module, int64_t n, int64_t k, int64_t group)
{
    if (n % OCTET)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld outputs are not a multiple of 8, as awq needs", module, (long long)n);
    if (group && k % group)
        return QZ_FAIL(QZ_SHAPE, "%s: %lld inputs do not divide into groups of %lld", module, (long long)k,
                       (long long)group);
    return QZ_OK;
}

static qz_status read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena)
{
    qz_scheme scheme;
    QZ_TRY_CTX(read_scheme(&scheme, qz_json_root(qz_ckpt_config(c))), "%s/config.json: quantization_config",
               qz_ckpt_folder(c));
    QZ_TRY_CTX(check_sizes(module, n, k, scheme.piece_cols), "%s", qz_ckpt_folder(c));
    int64_t groups = qz_scheme_scale_cols(&scheme, k);
    const qz_stored *weight, *zeros, *scales;
    QZ_TRY(find_part(&weight, c, module, "qweight", QZ_I32, k, n / OCTET));
    QZ_TRY(find_part(&zeros, c, module, "qzeros", QZ_I32, groups, n / OCTET));
    QZ_TRY(find_part(&scales, c, module, "scales", QZ_F16, groups, n));
    scheme.scale_type = scales->view.dtype;
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    unpack(out->codes, weight->view.data, k, n);
    unpack(out->zeros, zeros->view.data, groups, n);
    return unpack_scales(out->scales, c, scales);
}

/* ---- what can be written ---- */

static void check_linear(qz_reasons *r, const qz_export_linear *l)
{
    static const int64_t usual[] = {32, 64, 128, 0};
    char found[120];
    qz_scheme_describe(&l->scheme, found, sizeof found);
    if (l->scheme.format != QZ_FORMAT_INT4 || l->scheme.piece_rows != 1 || l->scheme.flat || l->scheme.double_quant)
        qz_reasons_add(r, "%s: found %s; awq holds int4 with a scale for each output and group", l->module, found);
    /* A BF16 scale of usual size is a number of F16 too; write_scales refuses the others. */
    if (l->scheme.scale_type != QZ_F16 && l->scheme.scale_type != QZ_BF16)
        qz_reasons_add(r, "%s: found scales in %s; awq stores F16", l->module, qz_dtype_name(l->scheme.scale_type));
    if (l->n % OCTET)
        qz_reasons_add(r, "%s: found %lld outputs; awq needs a multiple of 8", l->module, (long long)l->n);
    if (l->layer < 0 && !l->embedding && strcmp(l->module, HEAD) != 0)
        qz_reasons_add(r, "%s lies outside the decoder layers, where awq holds at most " HEAD, l->module);
    qz_reasons_embedding(r, l);
    if (l->ordered)
        qz_reasons_add(r, "%s: its groups are to be ordered; awq has no place for the order: use static groups",
                       l->module);
    qz_reasons_group(r, l, usual);
}

static bool holds_head(const qz_export_plan *plan)
{
    for (size_t i = 0; i < plan->linears; i++)
        if (plan->linear[i].quantized && plan->linear[i].layer < 0) return true;
    return false;
}

static qz_status can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "awq"};
    if (!qz_export_first_quantized(plan)) qz_reasons_add(&r, "no linear is quantized; awq needs at least one");
    if (plan->plain_type != QZ_F16 && plan->plain_type != QZ_BF16)
        qz_reasons_add(&r, "plain tensors are to be %s; awq kernels compute in F16 or BF16",
                       qz_dtype_name(plan->plain_type));
    for (size_t i = 0; i < plan->linears; i++)
        if (plan->linear[i].quantized) check_linear(&r, &plan->linear[i]);
    qz_reasons_one_group(&r, plan);
    qz_reasons_weights_only(&r, plan);
    qz_reasons_fused(&r, plan);
    if (r.count == 0 && holds_head(plan))
        qz_warn("awq with a quantized " HEAD ": vLLM loads it; transformers would make the head up");
    return qz_reasons_status(&r);
}

/* ---- writing ---- */

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    int64_t groups = qz_scheme_scale_cols(&l->scheme, l->k);
    QZ_TRY(check_sizes(l->module, l->n, l->k, l->scheme.piece_cols));
    QZ_TRY(qz_part_declare(s, l->module, "qweight", QZ_I32, 2, (int64_t[]){l->k, l->n / OCTET}));
    QZ_TRY(qz_part_declare(s, l->module, "qzeros", QZ_I32, 2, (int64_t[]){groups, l->n / OCTET}));
    return qz_part_declare(s, l->module, "scales", QZ_F16, 2, (int64_t[]){groups, l->n});
}

/* Codes (cols, rows) -> words (rows, cols / 8). Tiles of rows, so that a tile's output lines stay in the cache. */
static void pack(uint32_t *words, const uint8_t *codes, int64_t rows, int64_t cols)
{
    int64_t octets = cols / OCTET;
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < rows; first += TILE) {
        int64_t end = first + TILE < rows ? first + TILE : rows;
        for (int64_t c = 0; c < octets; c++)
            for (int64_t r = first; r < end; r++) {
                uint8_t code[OCTET];
                for (int64_t i = 0; i < OCTET; i++) code[i] = codes[(c * OCTET + i) * rows + r];
                words[r * octets + c] = qz_pack_awq(code);
            }
    }
}

static qz_status write_words(qz_shards *s, const char *module, const char *suffix, const uint8_t *codes, int64_t rows,
                             int64_t cols, qz_arena *scratch)
{
    size_t words = (size_t)(rows * (cols / OCTET));
    uint32_t *out = qz_arena_array(scratch, uint32_t, words);
    if (!out) return qz_arena_failed(scratch);
    pack(out, codes, rows, cols);
    return qz_part_write(s, module, suffix, out, words * sizeof *out);
}

static qz_status write_zeros(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, int64_t groups,
                             qz_arena *scratch)
{
    const uint8_t *zeros = q->zeros;
    if (!zeros) {
        size_t n = (size_t)(l->n * groups);
        uint8_t *eights = qz_arena_alloc(scratch, n);
        if (!eights) return qz_arena_failed(scratch);
        zeros = memset(eights, SYMMETRIC_ZERO, n);
    }
    return write_words(s, l->module, "qzeros", zeros, groups, l->n, scratch);
}

/* (N, groups) -> F16 (groups, N). The scale was rounded before any code was chosen; here nothing may change it. */
static qz_status write_scales(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, int64_t groups,
                              qz_arena *scratch)
{
    uint16_t *out = qz_arena_array(scratch, uint16_t, (size_t)(groups * l->n));
    if (!out) return qz_arena_failed(scratch);
    for (int64_t i = 0; i < l->n; i++)
        for (int64_t g = 0; g < groups; g++) {
            float scale = q->scales[i * groups + g];
            uint16_t bits = qz_f16_encode(scale);
            if (!isfinite(scale) || qz_f16_decode(bits) != scale)
                return QZ_FAIL(QZ_NUMERIC, "%s: the scale %.9g of output %lld, group %lld is not a number of F16",
                               l->module, (double)scale, (long long)i, (long long)g);
            out[g * l->n + i] = bits;
        }
    return qz_part_write(s, l->module, "scales", out, (size_t)(groups * l->n) * sizeof *out);
}

static qz_status check_qtensor(const qz_export_linear *l, const qz_qtensor *q)
{
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: awq cannot hold permuted groups; use static groups", l->module);
    return QZ_OK;
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    (void)act;
    QZ_TRY(check_qtensor(l, q));
    int64_t groups = qz_scheme_scale_cols(&q->scheme, l->k);
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = write_words(s, l->module, "qweight", q->codes, l->k, l->n, scratch);
    if (status == QZ_OK) status = write_zeros(s, l, q, groups, scratch);
    if (status == QZ_OK) status = write_scales(s, l, q, groups, scratch);
    qz_arena_restore(scratch, mark);
    return status;
}

/* Which linears stay plain. Every loader keeps the output head plain by itself, and older transformers with an old
 * autoawq refuse any list: so null when nothing else is skipped, and otherwise the full names of all of them. Loaders
 * search for these as substrings of module paths ("gate" would also hit gate_proj); vLLM up to 2025 and SGLang look
 * only at the path of the fused module, so that is listed too. */
static void put_skipped(qz_json_writer *w, const qz_export_plan *plan)
{
    bool any = plan->routers > 0;
    for (size_t i = 0; i < plan->linears; i++) any |= !plan->linear[i].quantized && plan->linear[i].layer >= 0;
    if (!any) {
        qz_json_put_raw(w, "modules_to_not_convert", "null");
        return;
    }
    qz_json_begin_array(w, "modules_to_not_convert");
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (l->quantized) continue;
        qz_json_put_string(w, NULL, l->module);
        if (l->fused_as && qz_export_first_of_set(plan, i)) qz_json_put_string(w, NULL, l->fused_as);
    }
    for (size_t i = 0; i < plan->routers; i++) qz_json_put_string(w, NULL, plan->router[i]);
    qz_json_end(w);
}

static qz_status config_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    if (!first) return QZ_FAIL(QZ_UNSUPPORTED, "no linear is quantized; awq needs at least one");
    int64_t group = first->scheme.piece_cols;
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "quant_method", "awq");
    qz_json_put_int(w, "bits", 4);
    /* A group that is the whole row is said as -1 unless readers know its number. */
    qz_json_put_int(w, "group_size", group == 32 || group == 64 || group == 128 ? group : -1);
    qz_json_put_bool(w, "zero_point", true);
    qz_json_put_string(w, "version", "gemm");
    if (holds_head(plan)) qz_json_put_bool(w, "lm_head", true);
    put_skipped(w, plan);
    qz_json_end(w);
    return qz_part_finish_text(out, w, arena);
}

const qz_container qz_container_awq = {
    .plugin = {.name = "awq",
               .help = "int4 with fp16 scales and zero points, AutoAWQ's GEMM layout",
               .source = "AutoAWQ 0.2, awq/modules/linear/gemm.py"},
    .consumers = "vLLM (awq, awq_marlin, auto_awq), transformers (autoawq or gptqmodel), SGLang, TGI. "
                 "Widths: vLLM's CPU kernel wants outputs of a fused set % 32 and inputs % 32; "
                 "GPU kernels before 2026 want outputs % 64, Marlin inputs % 128",
    .recognise = recognise,
    .can_express = can_express,
    .read_scheme = read_scheme,
    .suffixes = suffixes,
    .holds = holds,
    .read_linear = read_linear,
    .declare_linear = declare_linear,
    .write_linear = write_linear,
    .config_block = config_block,
    .preferred_plain_type = QZ_F16,
    .consumer = "vllm",
};
