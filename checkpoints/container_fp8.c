/* vLLM's own fp8 checkpoints <-> qz_qtensor.
 *
 * Layout: vLLM model_executor/layers/quantization/fp8.py (FORMATS.md 4); W = weight * scale.
 *   <module>.weight            F8_E4M3 (N, K)
 *   <module>.weight_scale      F32 [1]                      one for the matrix
 *   <module>.weight_scale_inv  F32 (ceil N/128, ceil K/128)   blocks; it multiplies in spite of its name
 *   <module>.input_scale       F32 [1]                      static inputs only
 *   <attention>.k_scale, .v_scale  F32 [1]                  cache, fp8 e4m3
 * The config says static or dynamic for all inputs. Dynamic: a scale a token, or 128 channels of a token with blocks.
 * Linears that servers fuse keep one weight scale only if they came with equal ones: vLLM takes the largest and rounds
 * the others again. That is up to whoever solves them; nothing is changed here. */
#include <math.h>
#include <string.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/plain_list.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

enum { BLOCK = 128, NAN_BITS = 0x7f };

static const char *const suffixes[] = {"weight", "weight_scale", "weight_scale_inv", "input_scale", "bias", NULL};

/* The names that vLLM takes, newest first: read_cache_scale. */
static const char *const kv_suffixes[] = {"k_scale", "v_scale", "k_proj.k_scale", "v_proj.v_scale", NULL};

/* ---- reading ---- */

static const qz_json_node *config_of(const qz_json_node *config)
{
    return qz_json_get(config, "quantization_config");
}

static bool recognise(const qz_json_node *config)
{
    const qz_json_node *method = qz_json_get(config_of(config), "quant_method");
    return qz_json_is(method, QZ_JSON_STRING) && strcmp(qz_json_text(method), "fp8") == 0;
}

static qz_status read_static(bool *out, const qz_json_node *q)
{
    const char *text;
    QZ_TRY(qz_json_string(qz_json_get(q, "activation_scheme"), "activation_scheme", &text));
    *out = strcmp(text, "static") == 0;
    if (*out || strcmp(text, "dynamic") == 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "activation_scheme: found \"%s\", expected \"static\" or \"dynamic\"", text);
}

static qz_status read_blocks(qz_scheme *s, const qz_json_node *list)
{
    if (qz_json_type_of(list) == QZ_JSON_NULL) return QZ_OK;
    if (!qz_json_is(list, QZ_JSON_ARRAY) || qz_json_count(list) != 2)
        return QZ_FAIL(QZ_FORMAT, "weight_block_size: expected two numbers");
    const qz_json_node *rows = qz_json_first(list);
    QZ_TRY(qz_json_int(rows, "weight_block_size[0]", 1, 1 << 20, &s->piece_rows));
    return qz_json_int(qz_json_next(rows), "weight_block_size[1]", 1, 1 << 20, &s->piece_cols);
}

static qz_status read_scheme(qz_scheme *out, const qz_json_node *config)
{
    const qz_json_node *q = config_of(config), *fmt = qz_json_get(q, "fmt");
    bool fixed = false;
    const char *text = "e4m3";
    *out = (qz_scheme){.format = QZ_FORMAT_FP8_E4M3, .symmetric = true, .scale_type = QZ_F32};
    QZ_TRY(read_static(&fixed, q));
    if (fmt) QZ_TRY(qz_json_string(fmt, "fmt", &text));
    if (strcmp(text, "e4m3") != 0) return QZ_FAIL(QZ_UNSUPPORTED, "fmt: found \"%s\"; only \"e4m3\" is read", text);
    QZ_TRY(read_blocks(out, qz_json_get(q, "weight_block_size")));
    if (fixed && out->piece_rows)
        return QZ_FAIL(QZ_UNSUPPORTED, "activation_scheme \"static\" with weight_block_size has no reader");
    return QZ_OK;
}

static bool holds(const qz_ckpt *c, const char *module)
{
    return qz_ckpt_find_part(c, module, "weight_scale") || qz_ckpt_find_part(c, module, "weight_scale_inv");
}

/* One number, stored with or without a dimension. */
static qz_status read_one(float *out, const qz_ckpt *c, const char *module, const char *suffix)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, suffix);
    if (!t) return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s.%s\" is missing", qz_ckpt_folder(c), module, suffix);
    if (t->view.ndim) QZ_TRY(qz_ckpt_check_shape(c, t, 1, (int64_t[]){1}));
    return qz_part_floats(out, c, t);
}

static qz_status read_scales(qz_qtensor *q, const qz_ckpt *c, const char *module, int64_t n, int64_t k)
{
    const qz_stored *t;
    if (!q->scheme.piece_rows) return read_one(q->scales, c, module, "weight_scale");
    const int64_t shape[] = {qz_scheme_scale_rows(&q->scheme, n), qz_scheme_scale_cols(&q->scheme, k)};
    QZ_TRY(qz_part_find(&t, c, module, "weight_scale_inv", QZ_DTYPE_COUNT, 2, shape));
    return qz_part_floats(q->scales, c, t);
}

/* The type in which the scales are stored; F32 unless a writer chose the model's. */
static qz_dtype scale_type_of(const qz_ckpt *c, const char *module, const qz_scheme *s)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, s->piece_rows ? "weight_scale_inv" : "weight_scale");
    return t && qz_dtype_is_plain(t->view.dtype) ? t->view.dtype : QZ_F32;
}

static qz_status check_codes(const qz_ckpt *c, const qz_stored *t)
{
    const uint8_t *code = t->view.data;
    uint64_t i = 0;
    while (i < t->bytes && (code[i] & NAN_BITS) != NAN_BITS) i++;
    if (i == t->bytes) return QZ_OK;
    return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds NaN at [%llu, %llu]; weights must be finite",
                   qz_ckpt_folder(c), t->file, t->name, (unsigned long long)(i / (uint64_t)t->view.shape[1]),
                   (unsigned long long)(i % (uint64_t)t->view.shape[1]));
}

static qz_status read_linear(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena)
{
    qz_scheme scheme;
    const qz_stored *weight;
    QZ_TRY_CTX(read_scheme(&scheme, qz_json_root(qz_ckpt_config(c))), "%s/config.json: quantization_config",
               qz_ckpt_folder(c));
    scheme.scale_type = scale_type_of(c, module, &scheme);
    QZ_TRY(qz_part_find(&weight, c, module, "weight", QZ_F8_E4M3, 2, (int64_t[]){n, k}));
    QZ_TRY(check_codes(c, weight));
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    memcpy(out->codes, weight->view.data, weight->bytes);
    return read_scales(out, c, module, n, k);
}

static qz_status read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme, qz_act_values *values)
{
    const qz_json_node *root = qz_json_root(qz_ckpt_config(c));
    qz_scheme weights;
    bool fixed = false;
    QZ_TRY(read_scheme(&weights, root));
    QZ_TRY(read_static(&fixed, config_of(root)));
    *scheme = (qz_act_scheme){.mode = fixed                ? QZ_ACT_TENSOR
                                      : weights.piece_cols ? QZ_ACT_GROUP
                                                           : QZ_ACT_TOKEN,
                              .format = QZ_FORMAT_FP8_E4M3,
                              .group = weights.piece_cols,
                              .symmetric = true};
    return fixed ? read_one(&values->scale, c, module, "input_scale") : QZ_OK;
}

/* `which`: 0 the keys', 1 the values'. */
static qz_status read_cache_scale(float *out, bool *found, const qz_ckpt *c, const char *attention, int which)
{
    *found = true;
    for (int i = which; i < 4; i += 2)
        if (qz_ckpt_find_part(c, attention, kv_suffixes[i])) return read_one(out, c, attention, kv_suffixes[i]);
    *found = false;
    return QZ_OK;
}

/* One of the two alone serves for both, as in vLLM. */
static qz_status read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme, float *key,
                         float *value)
{
    bool has_key = false, has_value = false;
    float k = 0, v = 0;
    QZ_TRY(read_cache_scale(&k, &has_key, c, attention, 0));
    QZ_TRY(read_cache_scale(&v, &has_value, c, attention, 1));
    *scheme = (qz_kv_scheme){.wanted = has_key || has_value, .format = QZ_FORMAT_FP8_E4M3};
    for (int64_t h = 0; h < kv_heads && scheme->wanted; h++) {
        key[h] = has_key ? k : v;
        value[h] = has_value ? v : k;
    }
    return QZ_OK;
}

/* ---- what can be written ---- */

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    (void)plain_type;
    l->scheme.scale_type = QZ_F32;
}

static bool is_tensor(const qz_scheme *s)
{
    return s->piece_rows == 0 && s->piece_cols == 0 && !s->flat;
}

static bool is_block(const qz_scheme *s)
{
    return s->piece_rows == BLOCK && s->piece_cols == BLOCK && !s->flat;
}

static void check_weight(qz_reasons *r, const qz_export_linear *l)
{
    char found[120];
    qz_scheme_describe(&l->scheme, found, sizeof found);
    if (l->scheme.format != QZ_FORMAT_FP8_E4M3)
        qz_reasons_add(r, "%s: found %s; fp8 holds fp8_e4m3", l->module, found);
    else if (!is_tensor(&l->scheme) && !is_block(&l->scheme))
        qz_reasons_add(r,
                       "%s: found %s; readers of fp8 take one scale a matrix (\"tensor\") or blocks of 128x128 "
                       "(\"block\"); compressed-tensors has scales per channel",
                       l->module, found);
    if (l->scheme.scale_type != QZ_F32)
        qz_reasons_add(r, "%s: found scales in %s; fp8 stores F32", l->module, qz_dtype_name(l->scheme.scale_type));
    if (l->ordered) qz_reasons_add(r, "%s: fp8 has no place for an order of the inputs", l->module);
    qz_reasons_embedding(r, l);
    if (l->layer < 0 && !l->embedding)
        qz_reasons_add(r, "%s lies outside the decoder layers, where readers of fp8 expect plain weights: skip it",
                       l->module);
}

static void check_inputs(qz_reasons *r, const qz_export_linear *l)
{
    const qz_act_scheme *a = &l->activation;
    if (a->mode == QZ_ACT_NONE)
        qz_reasons_add(r, "%s: inputs are not rounded, but servers of fp8 always do: set activations", l->module);
    else if (a->format != QZ_FORMAT_FP8_E4M3)
        qz_reasons_add(r, "%s: inputs in %s; servers of fp8 round them to fp8_e4m3", l->module,
                       qz_format_of(a->format)->name);
    else if (is_block(&l->scheme) && (a->mode != QZ_ACT_GROUP || a->group != BLOCK))
        qz_reasons_add(r, "%s: with blocks of 128x128 servers round inputs in groups of 128 channels, dynamically",
                       l->module);
    else if (is_tensor(&l->scheme) && a->mode == QZ_ACT_GROUP)
        qz_reasons_add(r, "%s: inputs in groups go with blocks of 128x128; here they are static or dynamic a token",
                       l->module);
}

static void check_one_way(qz_reasons *r, const qz_export_plan *plan)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!l->quantized ||
            (l->activation.mode == first->activation.mode && qz_scheme_same(&l->scheme, &first->scheme)))
            continue;
        qz_reasons_add(r, "%s differs from %s in scheme or in how inputs are rounded; fp8 has one way for all",
                       l->module, first->module);
    }
}

static qz_status can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "fp8"};
    if (!qz_export_first_quantized(plan)) qz_reasons_add(&r, "no linear is quantized; fp8 needs at least one");
    for (size_t i = 0; i < plan->linears; i++) {
        if (!plan->linear[i].quantized) continue;
        check_weight(&r, &plan->linear[i]);
        check_inputs(&r, &plan->linear[i]);
    }
    check_one_way(&r, plan);
    if (plan->kv.wanted && (plan->kv.format != QZ_FORMAT_FP8_E4M3 || plan->kv.per_head))
        qz_reasons_add(&r, "the cache in %s%s; fp8 holds one fp8_e4m3 scale for keys and one for values of a layer",
                       qz_format_of(plan->kv.format)->name, plan->kv.per_head ? " per head" : "");
    qz_reasons_fused(&r, plan);
    return qz_reasons_status(&r);
}

/* ---- writing ---- */

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    const int64_t one = 1;
    QZ_TRY(qz_part_declare(s, l->module, "weight", QZ_F8_E4M3, 2, (int64_t[]){l->n, l->k}));
    if (l->activation.mode == QZ_ACT_TENSOR) QZ_TRY(qz_part_declare(s, l->module, "input_scale", QZ_F32, 1, &one));
    if (is_tensor(&l->scheme)) return qz_part_declare(s, l->module, "weight_scale", QZ_F32, 1, &one);
    const int64_t shape[] = {qz_scheme_scale_rows(&l->scheme, l->n), qz_scheme_scale_cols(&l->scheme, l->k)};
    return qz_part_declare(s, l->module, "weight_scale_inv", QZ_F32, 2, shape);
}

static qz_status write_input_scale(qz_shards *s, const qz_export_linear *l, const qz_act_values *act, qz_arena *scratch)
{
    if (l->activation.mode != QZ_ACT_TENSOR) return QZ_OK;
    if (!act) return QZ_FAIL(QZ_ARG, "%s: a static scale of the inputs is missing", l->module);
    return qz_part_write_floats(s, l->module, "input_scale", QZ_F32, &act->scale, 1, scratch);
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    QZ_TRY(qz_part_check_matrix(l, q));
    if (q->permutation) return QZ_FAIL(QZ_UNSUPPORTED, "%s: fp8 cannot hold an order of the inputs", l->module);
    QZ_TRY(qz_part_write(s, l->module, "weight", q->codes, (size_t)(l->n * l->k)));
    QZ_TRY(qz_part_write_floats(s, l->module, is_tensor(&l->scheme) ? "weight_scale" : "weight_scale_inv", QZ_F32,
                                q->scales, qz_scheme_pieces(&q->scheme, l->n, l->k), scratch));
    return write_input_scale(s, l, act, scratch);
}

static qz_status declare_kv(qz_shards *s, const qz_export_plan *plan, int layer)
{
    const int64_t one = 1;
    QZ_TRY(qz_part_declare(s, plan->attention[layer], "k_scale", QZ_F32, 1, &one));
    return qz_part_declare(s, plan->attention[layer], "v_scale", QZ_F32, 1, &one);
}

static qz_status write_kv(qz_shards *s, const qz_export_plan *plan, int layer, const qz_kv_values *values)
{
    QZ_TRY(qz_part_write(s, plan->attention[layer], "k_scale", values->key, sizeof(float)));
    return qz_part_write(s, plan->attention[layer], "v_scale", values->value, sizeof(float));
}

static qz_status config_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    if (!first) return QZ_FAIL(QZ_UNSUPPORTED, "no linear is quantized; fp8 needs at least one");
    const bool block = is_block(&first->scheme);
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "quant_method", "fp8");
    qz_json_put_string(w, "activation_scheme", first->activation.mode == QZ_ACT_TENSOR ? "static" : "dynamic");
    if (block) qz_json_put_raw(w, "weight_block_size", "[128, 128]");
    qz_export_put_plain(w, "ignored_layers", plan);
    if (block) qz_export_put_plain(w, "modules_to_not_convert", plan); /* transformers' name for it */
    qz_json_end(w);
    return qz_part_finish_text(out, w, arena);
}

const qz_container qz_container_fp8 = {
    .plugin = {.name = "fp8",
               .help = "fp8 e4m3 weights and inputs, one scale a matrix or 128x128 blocks, vLLM's own layout",
               .source = "vLLM, model_executor/layers/quantization/fp8.py"},
    .consumers = "vLLM (fp8), SGLang, transformers (blocks only). vLLM with blocks wants outputs % 128 of all but the "
                 "last of a fused set; cache scales are used when vLLM is started with kv_cache_dtype fp8",
    .recognise = recognise,
    .can_express = can_express,
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
    .config_block = config_block,
    .settle = settle,
    .preferred_plain_type = QZ_BF16,
    .consumer = "vllm",
};
