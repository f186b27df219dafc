/* Keys of GPTQ's quantization_config (FORMATS.md 2.5; GPTQModel gptqmodel/quantization/config.py).
 *
 * `dynamic` holds rules, the first that matches a module's name wins: "-:regex" leaves the module plain, "+:regex" or
 * "regex" overrides bits, group_size, desc_act and sym. Written for every module that departs from the first one, with
 * the name of the fused set as well, since that is the name that vLLM looks up. */
#include "checkpoints/gptq_config.h"

#include <string.h>

#include "checkpoints/name_regex.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

int64_t qz_gptq_unit(int bits)
{
    if (bits == 3) return 32;
    return bits == 2 || bits == 4 || bits == 8 ? 32 / bits : 0;
}

qz_scheme qz_gptq_scheme(const qz_gptq_config *config)
{
    return (qz_scheme){.format = qz_part_int_format(config->bits),
                       .piece_rows = 1,
                       .piece_cols = config->group,
                       .symmetric = config->symmetric,
                       .scale_type = QZ_F16,
                       .zero_rule = QZ_ROUND_VALUE,
                       .least_zero = config->symmetric ? 0 : 1};
}

/* ---- reading ---- */

static qz_status read_bits(int *out, const qz_json_node *node)
{
    int64_t bits;
    QZ_TRY(qz_json_int(node, "bits", 2, 8, &bits));
    if (!qz_gptq_unit((int)bits)) return QZ_FAIL(QZ_FORMAT, "bits: found %d, expected 2, 3, 4 or 8", (int)bits);
    *out = (int)bits;
    return QZ_OK;
}

static qz_status read_group(int64_t *out, const qz_json_node *node)
{
    QZ_TRY(qz_json_int(node, "group_size", -1, 1 << 20, out));
    if (*out == 0) return QZ_FAIL(QZ_FORMAT, "group_size: found 0, expected -1 (the whole row) or a positive number");
    if (*out < 0) *out = 0;
    return QZ_OK;
}

/* "checkpoint_format", or "format" in newer files. */
static qz_status read_layout(bool *second, const qz_json_node *block)
{
    const qz_json_node *node = qz_json_get(block, "checkpoint_format");
    const char *text = "gptq";
    if (!node) node = qz_json_get(block, "format");
    if (node) QZ_TRY(qz_json_string(node, "checkpoint_format", &text));
    *second = strcmp(text, "gptq_v2") == 0;
    if (!*second && strcmp(text, "gptq") != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "checkpoint_format: \"%s\" is another layout; \"gptq\" and \"gptq_v2\" are read",
                       text);
    return QZ_OK;
}

static qz_status read_base(qz_gptq_config *out, const qz_json_node *block)
{
    const qz_json_node *packed = qz_json_get(block, "pack_dtype");
    const char *type = "int32";
    *out = (qz_gptq_config){.symmetric = true};
    QZ_TRY(read_bits(&out->bits, qz_json_get(block, "bits")));
    QZ_TRY(read_group(&out->group, qz_json_get(block, "group_size")));
    if (qz_json_get(block, "sym")) QZ_TRY(qz_json_bool(qz_json_get(block, "sym"), "sym", &out->symmetric));
    if (packed) QZ_TRY(qz_json_string(packed, "pack_dtype", &type));
    if (strcmp(type, "int32") != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "pack_dtype: \"%s\" is not read; only \"int32\"", type);
    return read_layout(&out->second_layout, block);
}

static qz_status override(qz_gptq_config *out, const qz_json_node *rule)
{
    if (qz_json_get(rule, "bits")) QZ_TRY(read_bits(&out->bits, qz_json_get(rule, "bits")));
    if (qz_json_get(rule, "group_size")) QZ_TRY(read_group(&out->group, qz_json_get(rule, "group_size")));
    if (qz_json_get(rule, "sym")) QZ_TRY(qz_json_bool(qz_json_get(rule, "sym"), "sym", &out->symmetric));
    return QZ_OK;
}

/* Without a module every rule is tried on the name "", for its errors. */
static qz_status apply_rule(qz_gptq_config *out, const qz_json_node *rule, const char *module, bool *matched)
{
    const char *key = qz_json_key(rule);
    const bool skip = strncmp(key, "-:", 2) == 0, marked = skip || strncmp(key, "+:", 2) == 0;
    qz_gptq_config changed = *out;
    QZ_TRY(qz_name_regex_match(matched, key + (marked ? 2 : 0), module ? module : ""));
    if (!skip && !qz_json_is(rule, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(rule)));
    if (!skip) QZ_TRY(override(&changed, rule));
    if (!module || !*matched) return QZ_OK;
    if (skip) return QZ_FAIL(QZ_FORMAT, "the rule leaves %s plain, but it is stored quantized", module);
    *out = changed;
    return QZ_OK;
}

qz_status qz_gptq_config_read(qz_gptq_config *out, const qz_json_node *block, const char *module)
{
    const qz_json_node *rules = qz_json_get(block, "dynamic");
    QZ_TRY(read_base(out, block));
    if (qz_json_type_of(rules) != QZ_JSON_NULL && !qz_json_is(rules, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "dynamic: found %s, expected an object", qz_json_type_name(qz_json_type_of(rules)));
    for (const qz_json_node *r = qz_json_first(rules); r; r = qz_json_next(r)) {
        bool matched = false;
        QZ_TRY_CTX(apply_rule(out, r, module, &matched), "dynamic: \"%s\"", qz_json_key(r));
        if (module && matched) break;
    }
    return QZ_OK;
}

/* ---- writing ---- */

static bool departs(const qz_export_linear *l, const qz_export_linear *base)
{
    return l->scheme.format != base->scheme.format || l->scheme.symmetric != base->scheme.symmetric ||
           qz_export_group(l) != qz_export_group(base);
}

/* "<mark>^model\.layers\.0\.mlp$". */
static char *rule_key(const char *mark, const char *name, qz_arena *arena)
{
    char *out = qz_arena_alloc(arena, strlen(mark) + 2 * strlen(name) + 3);
    if (!out) return NULL;
    char *to = out + strlen(strcpy(out, mark));
    *to++ = '^';
    for (; *name; name++) {
        if (strchr(".^$*+?()[]{}|\\", *name)) *to++ = '\\';
        *to++ = *name;
    }
    memcpy(to, "$", 2);
    return out;
}

static qz_status put_rule(qz_json_writer *w, const qz_export_linear *l, const char *name, qz_arena *arena)
{
    char *key = rule_key(l->quantized ? "+:" : "-:", name, arena);
    if (!key) return qz_arena_failed(arena);
    qz_json_begin_object(w, key);
    if (l->quantized) {
        qz_json_put_int(w, "bits", qz_format_of(l->scheme.format)->bits);
        qz_json_put_int(w, "group_size", qz_export_group(l));
        qz_json_put_bool(w, "sym", l->scheme.symmetric);
    }
    qz_json_end(w);
    return QZ_OK;
}

/* The head is plain for every reader unless `lm_head` says otherwise. */
static bool needs_rule(const qz_export_linear *l, const qz_export_linear *base)
{
    return l->quantized ? departs(l, base) : l->layer >= 0;
}

static qz_status put_dynamic(qz_json_writer *w, const qz_export_plan *plan, const qz_export_linear *base,
                             qz_arena *arena)
{
    const qz_export_linear plain = {0};
    bool any = plan->routers > 0;
    for (size_t i = 0; i < plan->linears; i++) any |= needs_rule(&plan->linear[i], base);
    if (!any) return QZ_OK;
    qz_json_begin_object(w, "dynamic");
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!needs_rule(l, base)) continue;
        QZ_TRY(put_rule(w, l, l->module, arena));
        if (l->fused_as && qz_export_first_of_set(plan, i)) QZ_TRY(put_rule(w, l, l->fused_as, arena));
    }
    for (size_t i = 0; i < plan->routers; i++) QZ_TRY(put_rule(w, &plain, plan->router[i], arena));
    qz_json_end(w);
    return QZ_OK;
}

static qz_status put_block(qz_json_writer *w, const qz_export_plan *plan, const qz_export_linear *base, qz_arena *arena)
{
    bool ordered = false, head = false;
    for (size_t i = 0; i < plan->linears; i++) {
        ordered |= plan->linear[i].quantized && plan->linear[i].ordered;
        head |= plan->linear[i].quantized && plan->linear[i].layer < 0;
    }
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "quant_method", "gptq");
    qz_json_put_int(w, "bits", qz_format_of(base->scheme.format)->bits);
    qz_json_put_int(w, "group_size", qz_export_group(base));
    qz_json_put_bool(w, "desc_act", ordered);
    qz_json_put_bool(w, "static_groups", !ordered);
    qz_json_put_bool(w, "sym", base->scheme.symmetric);
    qz_json_put_bool(w, "lm_head", head);
    qz_json_put_string(w, "checkpoint_format", "gptq");
    qz_json_put_string(w, "pack_dtype", "int32");
    QZ_TRY(put_dynamic(w, plan, base, arena));
    qz_json_end(w);
    return QZ_OK;
}

qz_status qz_gptq_config_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    const qz_export_linear *base = qz_export_first_quantized(plan);
    if (!base) return QZ_FAIL(QZ_UNSUPPORTED, "no linear is quantized; gptq needs at least one");
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_status status = put_block(w, plan, base, arena);
    if (status != QZ_OK) {
        qz_json_writer_free(w);
        return status;
    }
    return qz_part_finish_text(out, w, arena);
}
