/* quantization_config -> what it says of each linear, by the rules of the methods' own loaders (FORMATS.md 1.4, 2.5,
 * 3.1, 4.1, 5.5): which key lists what stays plain and how names are matched is different in each. */
#include <stdio.h>
#include <string.h>

#include "checkpoints/name_regex.h"
#include "programs/served.h"

int64_t qz_served_int(const qz_json_node *object, const char *key, int64_t otherwise)
{
    const qz_json_node *node = qz_json_get(object, key);
    return qz_json_is(node, QZ_JSON_NUMBER) ? (int64_t)qz_json_double(node) : otherwise;
}

bool qz_served_bool(const qz_json_node *object, const char *key, bool otherwise)
{
    const qz_json_node *node = qz_json_get(object, key);
    return qz_json_is(node, QZ_JSON_BOOL) ? qz_json_true(node) : otherwise;
}

const char *qz_served_text(const qz_json_node *object, const char *key, const char *otherwise)
{
    const qz_json_node *node = qz_json_get(object, key);
    return qz_json_is(node, QZ_JSON_STRING) ? qz_json_text(node) : otherwise;
}

void qz_served_read_method(qz_served *s)
{
    static const struct {
        const char *name;
        qz_quant_method method;
    } methods[] = {{"awq", QZ_METHOD_AWQ},
                   {"gptq", QZ_METHOD_GPTQ},
                   {"compressed-tensors", QZ_METHOD_COMPRESSED},
                   {"fp8", QZ_METHOD_FP8},
                   {"bitsandbytes", QZ_METHOD_BITSANDBYTES},
                   {"modelopt", QZ_METHOD_MODELOPT}};
    s->quant = qz_json_get(s->config, "quantization_config");
    s->method = qz_json_is(s->quant, QZ_JSON_OBJECT) ? QZ_METHOD_OTHER : QZ_METHOD_NONE;
    s->method_name = s->method == QZ_METHOD_NONE ? "none" : qz_served_text(s->quant, "quant_method", "");
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(s->method_name, methods[i].name) == 0) s->method = methods[i].method;
}

/* ---- names ---- */

typedef qz_status (*matcher)(bool *out, const char *entry, const char *module);

static qz_status is_exactly(bool *out, const char *entry, const char *module)
{
    *out = strcmp(entry, module) == 0;
    return QZ_OK;
}

static qz_status is_within(bool *out, const char *entry, const char *module)
{
    *out = strstr(module, entry) != NULL;
    return QZ_OK;
}

/* Whole components: "lm_head", "self_attn.q_proj". */
static qz_status is_component(bool *out, const char *entry, const char *module)
{
    const size_t n = strlen(entry);
    *out = false;
    for (const char *at = strstr(module, entry); at && !*out; at = strstr(at + 1, entry))
        *out = (at == module || at[-1] == '.') && (at[n] == '\0' || at[n] == '.');
    return QZ_OK;
}

/* compressed-tensors: exact, or "re:" and a regular expression. */
static qz_status is_target(bool *out, const char *entry, const char *module)
{
    if (strncmp(entry, "re:", 3) == 0) return qz_name_regex_match(out, entry + 3, module);
    return is_exactly(out, entry, module);
}

static qz_status is_listed(bool *out, const qz_json_node *list, const char *module, matcher matches)
{
    *out = false;
    if (!qz_json_is(list, QZ_JSON_ARRAY)) return QZ_OK;
    for (const qz_json_node *e = qz_json_first(list); e && !*out; e = qz_json_next(e))
        if (qz_json_is(e, QZ_JSON_STRING)) QZ_TRY(matches(out, qz_json_text(e), module));
    return QZ_OK;
}

/* ---- each method ---- */

static void set_group(qz_served_scheme *x, int64_t group)
{
    x->granularity = group > 0 ? QZ_PER_GROUP : QZ_PER_CHANNEL;
    x->group = group > 0 ? group : 0;
}

static qz_status say_awq(const qz_served *s, qz_served_linear *l)
{
    bool skipped;
    l->scheme.bits = (int)qz_served_int(s->quant, "bits", qz_served_int(s->quant, "w_bit", 4));
    set_group(&l->scheme, qz_served_int(s->quant, "group_size", qz_served_int(s->quant, "q_group_size", -1)));
    QZ_TRY(is_listed(&skipped, qz_json_get(s->quant, "modules_to_not_convert"), l->module, is_within));
    const bool head = s->consumer == QZ_FOR_VLLM && qz_served_bool(s->quant, "lm_head", false);
    l->said = !skipped && (l->layer >= 0 || head);
    return QZ_OK;
}

/* A rule of `dynamic` is a regular expression; "-:" before it: skip, "+:" or nothing: other values. The first counts.
 */
static qz_status find_rule(const qz_json_node **out, const qz_served *s, const char *module)
{
    *out = NULL;
    const qz_json_node *rules = qz_json_get(s->quant, "dynamic");
    if (!qz_json_is(rules, QZ_JSON_OBJECT)) return QZ_OK;
    for (const qz_json_node *r = qz_json_first(rules); r && !*out; r = qz_json_next(r)) {
        const char *key = qz_json_key(r);
        bool matches;
        QZ_TRY(qz_name_regex_match(&matches, key + (key[0] && key[1] == ':' ? 2 : 0), module));
        if (matches) *out = r;
    }
    return QZ_OK;
}

static qz_status say_gptq(const qz_served *s, qz_served_linear *l)
{
    const qz_json_node *rule;
    qz_served_scheme *x = &l->scheme;
    QZ_TRY(find_rule(&rule, s, l->module));
    x->bits = (int)qz_served_int(rule, "bits", qz_served_int(s->quant, "bits", 4));
    x->symmetric = qz_served_bool(rule, "sym", qz_served_bool(s->quant, "sym", true));
    x->ordered = qz_served_bool(rule, "desc_act", qz_served_bool(s->quant, "desc_act", false));
    set_group(x, qz_served_int(rule, "group_size", qz_served_int(s->quant, "group_size", -1)));
    const bool skipped = rule && strncmp(qz_json_key(rule), "-:", 2) == 0;
    l->said = !skipped && (l->layer >= 0 || qz_served_bool(s->quant, "lm_head", false));
    return QZ_OK;
}

/* How well a target names a module: 3 by name, 2 by expression, 1 by class, 0 not at all. vLLM's class of the output
 * head is no Linear; that of transformers is one. */
static qz_status target_rank(int *out, const qz_served *s, const char *target, const qz_served_linear *l)
{
    bool matches;
    *out = 0;
    QZ_TRY(is_target(&matches, target, l->module));
    if (matches) *out = strncmp(target, "re:", 3) == 0 ? 2 : 3;
    if (!*out && strcmp(target, "Linear") == 0) *out = l->layer >= 0 || s->consumer == QZ_FOR_TRANSFORMERS;
    return QZ_OK;
}

static qz_status find_group(const qz_json_node **out, const qz_served *s, const qz_served_linear *l)
{
    int best = 0, rank;
    *out = NULL;
    const qz_json_node *groups = qz_json_get(s->quant, "config_groups");
    for (const qz_json_node *g = qz_json_first(groups); g; g = qz_json_next(g)) {
        const qz_json_node *targets = qz_json_get(g, "targets");
        for (const qz_json_node *t = qz_json_first(targets); t; t = qz_json_next(t)) {
            if (!qz_json_is(t, QZ_JSON_STRING)) continue;
            QZ_TRY(target_rank(&rank, s, qz_json_text(t), l));
            if (rank > best) *out = g;
            best = rank > best ? rank : best;
        }
    }
    return QZ_OK;
}

static bool is_float(const qz_json_node *args)
{
    return strcmp(qz_served_text(args, "type", "int"), "float") == 0;
}

static bool is_dynamic(const qz_json_node *args)
{
    const qz_json_node *dynamic = qz_json_get(args, "dynamic");
    return qz_json_true(dynamic) || qz_json_is(dynamic, QZ_JSON_STRING); /* "local" */
}

static void read_strategy(qz_served_scheme *x, const qz_json_node *weights)
{
    const int64_t group = qz_served_int(weights, "group_size", 0);
    const char *strategy = qz_served_text(weights, "strategy", group > 0 ? "group" : "tensor");
    x->granularity = strstr(strategy, "group")          ? QZ_PER_GROUP
                     : strcmp(strategy, "channel") == 0 ? QZ_PER_CHANNEL
                     : strcmp(strategy, "block") == 0   ? QZ_PER_BLOCK
                                                        : QZ_PER_TENSOR;
    x->group = x->granularity == QZ_PER_GROUP ? group : 0;
    const qz_json_node *side = qz_json_first(qz_json_get(weights, "block_structure"));
    if (x->granularity == QZ_PER_BLOCK) x->group = qz_json_is(side, QZ_JSON_NUMBER) ? (int64_t)qz_json_double(side) : 0;
}

static void read_group(qz_served_scheme *x, const qz_served *s, const qz_json_node *group)
{
    const qz_json_node *weights = qz_json_get(group, "weights"), *inputs = qz_json_get(group, "input_activations");
    const char *order = qz_served_text(weights, "actorder", "");
    x->bits = (int)qz_served_int(weights, "num_bits", 8);
    x->floating = is_float(weights);
    x->symmetric = qz_served_bool(weights, "symmetric", true);
    x->ordered =
        strcmp(order, "group") == 0 || strcmp(order, "dynamic") == 0 || qz_json_true(qz_json_get(weights, "actorder"));
    x->format = qz_served_text(group, "format", qz_served_text(s->quant, "format", ""));
    read_strategy(x, weights);
    if (!qz_json_is(inputs, QZ_JSON_OBJECT)) return;
    x->inputs = is_dynamic(inputs) ? QZ_INPUTS_DYNAMIC : QZ_INPUTS_STATIC;
    x->inputs_floating = is_float(inputs);
    x->inputs_symmetric = qz_served_bool(inputs, "symmetric", true);
}

static qz_status say_compressed(const qz_served *s, qz_served_linear *l)
{
    const qz_json_node *group;
    bool ignored;
    QZ_TRY(find_group(&group, s, l));
    QZ_TRY(is_listed(&ignored, qz_json_get(s->quant, "ignore"), l->module, is_target));
    l->said = group && !ignored && qz_json_is(qz_json_get(group, "weights"), QZ_JSON_OBJECT);
    if (group) read_group(&l->scheme, s, group);
    return QZ_OK;
}

static qz_status say_fp8(const qz_served *s, qz_served_linear *l)
{
    const qz_json_node *list = qz_json_get(s->quant, "ignored_layers");
    const qz_json_node *side = qz_json_first(qz_json_get(s->quant, "weight_block_size"));
    qz_served_scheme *x = &l->scheme;
    bool ignored;
    if (!list) list = qz_json_get(s->quant, "modules_to_not_convert");
    QZ_TRY(is_listed(&ignored, list, l->module, s->consumer == QZ_FOR_VLLM ? is_exactly : is_component));
    l->said = !ignored && l->layer >= 0;
    x->bits = 8;
    x->floating = x->symmetric = x->inputs_floating = x->inputs_symmetric = true;
    x->granularity = side ? QZ_PER_BLOCK : QZ_PER_TENSOR;
    x->group = qz_json_is(side, QZ_JSON_NUMBER) ? (int64_t)qz_json_double(side) : 0;
    const char *inputs = qz_served_text(s->quant, "activation_scheme", "dynamic");
    x->inputs = strcmp(inputs, "static") == 0 ? QZ_INPUTS_STATIC : QZ_INPUTS_DYNAMIC;
    return QZ_OK;
}

/* transformers keeps the output head when there is no list. */
static qz_status say_bitsandbytes(const qz_served *s, qz_served_linear *l)
{
    const qz_json_node *list = qz_json_get(s->quant, "llm_int8_skip_modules");
    const bool nibbles = qz_served_bool(s->quant, "load_in_4bit", false);
    bool skipped;
    QZ_TRY(is_listed(&skipped, list, l->module, is_component));
    l->said = !skipped && (l->layer >= 0 || qz_json_is(list, QZ_JSON_ARRAY));
    l->scheme = (qz_served_scheme){.bits = nibbles ? 4 : 8, .floating = nibbles, .symmetric = true, .format = ""};
    l->scheme.granularity = nibbles ? QZ_PER_GROUP : QZ_PER_CHANNEL;
    l->scheme.group = nibbles ? 64 : 0;
    return QZ_OK;
}

qz_status qz_served_say(const qz_served *s, qz_served_linear *l)
{
    l->scheme = (qz_served_scheme){.symmetric = true, .format = ""};
    l->said = false;
    switch (s->method) {
    case QZ_METHOD_AWQ:
        return say_awq(s, l);
    case QZ_METHOD_GPTQ:
        return say_gptq(s, l);
    case QZ_METHOD_COMPRESSED:
        return say_compressed(s, l);
    case QZ_METHOD_FP8:
        return say_fp8(s, l);
    case QZ_METHOD_BITSANDBYTES:
        return say_bitsandbytes(s, l);
    default:
        l->said = l->stored; /* not known how the config says it */
        return QZ_OK;
    }
}
