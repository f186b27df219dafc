/* compressed-tensors' quantization_config -> what holds for a module.
 *
 * Keys: compressed_tensors/quantization/quant_args.py, quant_scheme.py and quant_config.py (0.19); how targets and
 * `ignore` are searched: vLLM model_executor/layers/quantization/compressed_tensors/utils.py.
 * Refused with the reason: formats with other number types (nvfp4, mxfp4, mxfp8), sparsity, rotations that are applied
 * when the model runs, rounded outputs, and configs that were not compressed. */
#include "checkpoints/ct_config.h"

#include <string.h>
#include <strings.h>

#include "checkpoints/name_regex.h"
#include "checkpoints/tensor_parts.h"

static const char *const strategies[QZ_CT_STRATEGIES] = {"tensor", "channel",      "group",    "block",
                                                         "token",  "tensor_group", "attn_head"};

const char *qz_ct_strategy_name(qz_ct_strategy s)
{
    return strategies[s];
}

static bool is_null(const qz_json_node *node)
{
    return qz_json_type_of(node) == QZ_JSON_NULL;
}

/* ---- one args object ---- */

static qz_status read_strategy(qz_ct_args *a, const qz_json_node *node)
{
    const char *text;
    if (is_null(node)) {
        a->strategy = a->group > 0 ? QZ_CT_GROUP : a->group < 0 ? QZ_CT_CHANNEL : QZ_CT_TENSOR;
        return QZ_OK;
    }
    QZ_TRY(qz_json_string(node, "strategy", &text));
    for (int s = 0; s < QZ_CT_STRATEGIES; s++)
        if (strcasecmp(text, strategies[s]) == 0) {
            a->strategy = (qz_ct_strategy)s;
            return QZ_OK;
        }
    return QZ_FAIL(QZ_FORMAT, "strategy: \"%s\" is not known", text);
}

static qz_status read_block(qz_ct_args *a, const qz_json_node *node)
{
    if (is_null(node)) return QZ_OK;
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) != 2)
        return QZ_FAIL(QZ_FORMAT, "block_structure: two numbers, rows and columns, are expected");
    const qz_json_node *rows = qz_json_first(node);
    QZ_TRY(qz_json_int(rows, "block_structure", 1, 1 << 20, &a->block_rows));
    return qz_json_int(qz_json_next(rows), "block_structure", 1, 1 << 20, &a->block_cols);
}

static qz_status read_type(qz_ct_args *a, const qz_json_node *node)
{
    const char *text = "int";
    if (node) QZ_TRY(qz_json_string(node, "type", &text));
    a->floating = strcasecmp(text, "float") == 0;
    if (!a->floating && strcasecmp(text, "int") != 0)
        return QZ_FAIL(QZ_FORMAT, "type: found \"%s\", expected \"int\" or \"float\"", text);
    return QZ_OK;
}

/* false, true or "local". */
static qz_status read_dynamic(qz_ct_args *a, const qz_json_node *node)
{
    if (qz_json_is(node, QZ_JSON_STRING))
        return QZ_FAIL(QZ_UNSUPPORTED, "dynamic: \"%s\" is not supported; true and false are", qz_json_text(node));
    return node ? qz_json_bool(node, "dynamic", &a->dynamic) : QZ_OK;
}

static qz_status check_args(const qz_ct_args *a)
{
    const bool grouped = a->strategy == QZ_CT_GROUP || a->strategy == QZ_CT_TENSOR_GROUP;
    if (grouped && a->group <= 0)
        return QZ_FAIL(QZ_FORMAT, "strategy \"%s\" needs a positive group_size", strategies[a->strategy]);
    if ((a->strategy == QZ_CT_BLOCK) != (a->block_rows > 0))
        return QZ_FAIL(QZ_FORMAT, "strategy \"block\" and block_structure go together");
    if (a->strategy == QZ_CT_TOKEN && !a->dynamic) return QZ_FAIL(QZ_FORMAT, "strategy \"token\" needs dynamic: true");
    return QZ_OK;
}

static qz_status read_args(qz_ct_args *a, const qz_json_node *node)
{
    int64_t bits = 8;
    *a = (qz_ct_args){.symmetric = true};
    if (is_null(node)) return QZ_OK;
    if (!qz_json_is(node, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(node)));
    a->present = true;
    if (qz_json_get(node, "num_bits")) QZ_TRY(qz_json_int(qz_json_get(node, "num_bits"), "num_bits", 1, 32, &bits));
    a->bits = (int)bits;
    QZ_TRY(read_type(a, qz_json_get(node, "type")));
    if (qz_json_get(node, "symmetric"))
        QZ_TRY(qz_json_bool(qz_json_get(node, "symmetric"), "symmetric", &a->symmetric));
    QZ_TRY(read_dynamic(a, qz_json_get(node, "dynamic")));
    if (!is_null(qz_json_get(node, "group_size")))
        QZ_TRY(qz_json_int(qz_json_get(node, "group_size"), "group_size", -1, 1 << 20, &a->group));
    QZ_TRY(read_block(a, qz_json_get(node, "block_structure")));
    QZ_TRY(read_strategy(a, qz_json_get(node, "strategy")));
    return check_args(a);
}

/* ---- args -> schemes ---- */

static qz_status cut(qz_scheme *s, const qz_ct_args *w)
{
    switch (w->strategy) {
    case QZ_CT_TENSOR:
        return QZ_OK;
    case QZ_CT_CHANNEL:
        s->piece_rows = 1;
        return QZ_OK;
    case QZ_CT_GROUP:
        s->piece_rows = 1;
        s->piece_cols = w->group;
        return QZ_OK;
    case QZ_CT_BLOCK:
        s->piece_rows = w->block_rows;
        s->piece_cols = w->block_cols;
        return QZ_OK;
    default:
        return QZ_FAIL(QZ_UNSUPPORTED, "weights: strategy \"%s\" is not supported", strategies[w->strategy]);
    }
}

qz_status qz_ct_weight_scheme(qz_scheme *out, const qz_ct_args *w)
{
    *out = (qz_scheme){.format = QZ_FORMAT_BF16};
    if (!w->present) return QZ_OK;
    *out = (qz_scheme){.format = w->floating ? QZ_FORMAT_FP8_E4M3 : qz_part_int_format(w->bits),
                       .symmetric = w->symmetric,
                       .scale_type = QZ_F32,
                       .zero_rule = w->floating ? QZ_ROUND_VALUE : QZ_ROUND_SUM};
    if (w->dynamic) return QZ_FAIL(QZ_FORMAT, "weights: dynamic is true; stored weights are static");
    if (out->format == QZ_FORMAT_COUNT || (w->floating && w->bits != 8))
        return QZ_FAIL(QZ_UNSUPPORTED, "weights: %s of %d bits is not supported; int of 2 to 8 and float of 8 are",
                       w->floating ? "float" : "int", w->bits);
    if (w->floating && !w->symmetric) return QZ_FAIL(QZ_FORMAT, "weights: symmetric is false; float has no zero point");
    return cut(out, w);
}

qz_status qz_ct_input_scheme(qz_act_scheme *out, const qz_ct_args *a)
{
    *out = (qz_act_scheme){0};
    if (!a->present) return QZ_OK;
    *out = (qz_act_scheme){.format = a->floating ? QZ_FORMAT_FP8_E4M3 : QZ_FORMAT_INT8,
                           .symmetric = a->symmetric,
                           .divisor = QZ_CT_INT8_DIVISOR};
    if (a->strategy == QZ_CT_TOKEN) out->mode = QZ_ACT_TOKEN;
    if (a->strategy == QZ_CT_TENSOR && !a->dynamic) out->mode = QZ_ACT_TENSOR;
    if (a->strategy == QZ_CT_GROUP && a->dynamic) {
        out->mode = QZ_ACT_GROUP;
        out->group = a->group;
    }
    if (out->mode == QZ_ACT_NONE || a->bits != 8)
        return QZ_FAIL(
            QZ_UNSUPPORTED,
            "input_activations: %d bits per %s, %s, is not supported; 8 bits per token or group (dynamic) or "
            "per tensor (static) are",
            a->bits, strategies[a->strategy], a->dynamic ? "dynamic" : "static");
    return QZ_OK;
}

/* ---- groups ---- */

qz_status qz_ct_group_read(qz_ct_group *out, const qz_json_node *group)
{
    QZ_TRY_CTX(read_args(&out->weights, qz_json_get(group, "weights")), "weights");
    QZ_TRY_CTX(read_args(&out->input, qz_json_get(group, "input_activations")), "input_activations");
    return QZ_OK;
}

/* By the name that all families here share; a checkpoint does not say it otherwise. */
static bool is_embedding(const char *module)
{
    static const char name[] = "embed_tokens";
    const size_t n = strlen(module), size = sizeof name - 1;
    return n >= size && strcmp(module + n - size, name) == 0;
}

/* A target or an entry of `ignore`: a name, "re:" and a pattern, or the name of a class. */
static qz_status matches(bool *out, const qz_json_node *entry, const char *module, bool class)
{
    const char *text;
    QZ_TRY(qz_json_string(entry, "target", &text));
    if (strncmp(text, "re:", 3) == 0) {
        bool found = false;
        QZ_TRY(qz_name_regex_match(&found, text + 3, module));
        *out = found && !class;
        return QZ_OK;
    }
    *out = strcmp(text, !class ? module : is_embedding(module) ? QZ_CT_EMBEDDING : "Linear") == 0;
    return QZ_OK;
}

static qz_status any_matches(bool *out, const qz_json_node *list, const char *module, bool class)
{
    *out = false;
    for (const qz_json_node *t = qz_json_first(list); t && !*out; t = qz_json_next(t))
        QZ_TRY(matches(out, t, module, class));
    return QZ_OK;
}

qz_status qz_ct_config_find(qz_ct_group *out, const qz_json_node *block, const char *module)
{
    const qz_json_node *groups = qz_json_get(block, "config_groups");
    bool found;
    QZ_TRY(any_matches(&found, qz_json_get(block, "ignore"), module, false));
    if (found) return QZ_FAIL(QZ_FORMAT, "ignore: %s is listed, but it is stored quantized", module);
    for (int class = 0; class < 2; class ++)
        for (const qz_json_node *g = qz_json_first(groups); g; g = qz_json_next(g)) {
            QZ_TRY_CTX(any_matches(&found, qz_json_get(g, "targets"), module, class), "config_groups.%s",
                       qz_json_key(g));
            if (found) QZ_TRY_CTX(qz_ct_group_read(out, g), "config_groups.%s", qz_json_key(g));
            if (found) return QZ_OK;
        }
    return QZ_FAIL(QZ_FORMAT, "config_groups: no target matches %s, but it is stored quantized", module);
}

/* ---- the whole block ---- */

static qz_status check_format(const qz_json_node *node)
{
    static const char *const known[] = {"dense",           "pack-quantized",  "int-quantized",
                                        "float-quantized", "naive-quantized", "mixed-precision"};
    const char *text;
    if (is_null(node)) return QZ_OK;
    QZ_TRY(qz_json_string(node, "format", &text));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(text, known[i]) == 0) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "format: \"%s\" is not read; pack-, int-, float- and naive-quantized are", text);
}

static qz_status check_list(const qz_json_node *list, const char *name)
{
    bool ignored;
    if (is_null(list)) return QZ_OK;
    if (!qz_json_is(list, QZ_JSON_ARRAY))
        return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an array", name, qz_json_type_name(qz_json_type_of(list)));
    for (const qz_json_node *t = qz_json_first(list); t; t = qz_json_next(t))
        QZ_TRY_CTX(matches(&ignored, t, "", false), "%s", name);
    return QZ_OK;
}

static qz_status check_group(const qz_json_node *node)
{
    qz_ct_group group;
    qz_scheme scheme;
    if (!qz_json_is(node, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(node)));
    QZ_TRY(check_format(qz_json_get(node, "format")));
    QZ_TRY(check_list(qz_json_get(node, "targets"), "targets"));
    QZ_TRY(qz_ct_group_read(&group, node));
    if (!is_null(qz_json_get(node, "output_activations")))
        return QZ_FAIL(QZ_UNSUPPORTED, "output_activations: rounded outputs are not supported");
    return qz_ct_weight_scheme(&scheme, &group.weights);
}

/* Keys that change what the stored numbers mean: only empty ones are read. */
static qz_status check_absent(const qz_json_node *block, const char *key)
{
    const qz_json_node *node = qz_json_get(block, key);
    if (is_null(node) || (qz_json_is(node, QZ_JSON_OBJECT) && qz_json_count(node) == 0)) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: only models without it are read", key);
}

static qz_status check_status(const qz_json_node *node)
{
    const char *text;
    if (is_null(node)) return QZ_OK;
    QZ_TRY(qz_json_string(node, "quantization_status", &text));
    if (strcmp(text, "compressed") == 0) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "quantization_status: \"%s\"; only \"compressed\" models are read", text);
}

qz_status qz_ct_config_kv(qz_ct_args *out, const qz_json_node *block)
{
    QZ_TRY_CTX(read_args(out, qz_json_get(block, "kv_cache_scheme")), "kv_cache_scheme");
    if (!out->present) return QZ_OK;
    const bool known = out->strategy == QZ_CT_TENSOR || out->strategy == QZ_CT_ATTN_HEAD;
    if (out->bits != 8 || out->dynamic || !out->symmetric || !known)
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "kv_cache_scheme: only static symmetric scales of 8 bits per tensor or attn_head "
                       "are read");
    return QZ_OK;
}

qz_status qz_ct_config_check(const qz_json_node *block)
{
    const qz_json_node *groups = qz_json_get(block, "config_groups");
    qz_ct_args kv;
    QZ_TRY(check_format(qz_json_get(block, "format")));
    QZ_TRY(check_status(qz_json_get(block, "quantization_status")));
    QZ_TRY(check_absent(block, "sparsity_config"));
    QZ_TRY(check_absent(block, "transform_config"));
    QZ_TRY(check_list(qz_json_get(block, "ignore"), "ignore"));
    QZ_TRY(qz_ct_config_kv(&kv, block));
    if (!is_null(groups) && !qz_json_is(groups, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "config_groups: found %s, expected an object",
                       qz_json_type_name(qz_json_type_of(groups)));
    for (const qz_json_node *g = qz_json_first(groups); g; g = qz_json_next(g))
        QZ_TRY_CTX(check_group(g), "config_groups.%s", qz_json_key(g));
    return QZ_OK;
}
