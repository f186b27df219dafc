/* The rotation's parameters out of config.json: one object `rope_parameters` (transformers 5), or `rope_theta` beside
 * an optional `rope_scaling` (transformers 4; older files say `type` for `rope_type`). FORMATS.md 10.2. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/families.h"
#include "models/rope.h"

#define DEFAULT_THETA 10000.0
#define LARGEST_THETA 1e18
#define LARGEST_FACTOR 1e6
#define LARGEST_CONTEXT 1e9

/* One object's numbers, named "<name><key>" in messages. */
typedef struct fields {
    const qz_json_node *node;
    const char *name;
} fields;

static qz_status number(const fields *f, const char *key, double low, double high, double *out)
{
    char name[96];
    snprintf(name, sizeof name, "%s%s", f->name, key);
    return qz_json_number(qz_json_get(f->node, key), name, low, high, out);
}

static qz_status number_or(const fields *f, const char *key, double low, double high, double fallback, double *out)
{
    *out = fallback;
    return qz_config_absent(qz_json_get(f->node, key)) ? QZ_OK : number(f, key, low, high, out);
}

static qz_status read_linear(qz_rope *rope, const fields *f)
{
    return number(f, "factor", 1, LARGEST_FACTOR, &rope->factor);
}

static qz_status read_llama3(qz_rope *rope, const fields *f)
{
    QZ_TRY(number(f, "factor", 1, LARGEST_FACTOR, &rope->factor));
    QZ_TRY(number(f, "low_freq_factor", 1e-3, LARGEST_FACTOR, &rope->low_freq_factor));
    QZ_TRY(number(f, "high_freq_factor", 1e-3, LARGEST_FACTOR, &rope->high_freq_factor));
    QZ_TRY(number(f, "original_max_position_embeddings", 1, LARGEST_CONTEXT, &rope->original_context));
    if (rope->high_freq_factor > rope->low_freq_factor) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%shigh_freq_factor: found %g, allowed is more than low_freq_factor, which is %g",
                   f->name, rope->high_freq_factor, rope->low_freq_factor);
}

/* Peng et al. 2023, eq. 22 */
static double attention_scale(double factor, double m)
{
    return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1;
}

static qz_status read_yarn(qz_rope *rope, const fields *f)
{
    double m, m_all;
    QZ_TRY(number(f, "factor", 1, LARGEST_FACTOR, &rope->factor));
    QZ_TRY(number_or(f, "original_max_position_embeddings", 1, LARGEST_CONTEXT, rope->original_context,
                     &rope->original_context));
    QZ_TRY(number_or(f, "beta_fast", 1e-3, LARGEST_FACTOR, 32, &rope->beta_fast));
    QZ_TRY(number_or(f, "beta_slow", 1e-3, LARGEST_FACTOR, 1, &rope->beta_slow));
    QZ_TRY(number_or(f, "mscale", 0, LARGEST_FACTOR, 0, &m));
    QZ_TRY(number_or(f, "mscale_all_dim", 0, LARGEST_FACTOR, 0, &m_all));
    double fallback = attention_scale(rope->factor, 1);
    if (m > 0 && m_all > 0) fallback = attention_scale(rope->factor, m) / attention_scale(rope->factor, m_all);
    QZ_TRY(number_or(f, "attention_factor", 1e-3, LARGEST_FACTOR, fallback, &rope->attention_factor));
    const qz_json_node *truncate = qz_json_get(f->node, "truncate");
    if (!qz_config_absent(truncate)) QZ_TRY(qz_json_bool(truncate, "truncate", &rope->truncate));
    if (rope->beta_fast > rope->beta_slow) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%sbeta_fast: found %g, allowed is more than beta_slow, which is %g", f->name,
                   rope->beta_fast, rope->beta_slow);
}

static const struct {
    const char *name;
    qz_rope_kind kind;
    qz_status (*read)(qz_rope *rope, const fields *f);
} kinds[] = {
    {"default", QZ_ROPE_DEFAULT, NULL},
    {"linear", QZ_ROPE_LINEAR, read_linear},
    {"llama3", QZ_ROPE_LLAMA3, read_llama3},
    {"yarn", QZ_ROPE_YARN, read_yarn},
};

static qz_status read_kind(qz_rope *rope, const fields *f)
{
    char name[96];
    const char *text = "default";
    const char *key = qz_json_get(f->node, "rope_type") ? "rope_type" : "type";
    snprintf(name, sizeof name, "%s%s", f->name, key);
    if (qz_json_get(f->node, key)) QZ_TRY(qz_json_string(qz_json_get(f->node, key), name, &text));
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(text, kinds[i].name) != 0) continue;
        rope->kind = kinds[i].kind;
        return kinds[i].read ? kinds[i].read(rope, f) : QZ_OK;
    }
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: found \"%s\", known are default, linear, llama3, yarn", name, text);
}

/* What would change the rotation but is not something that we do. */
static qz_status refuse_partial(const fields *f)
{
    double part;
    QZ_TRY(number_or(f, "partial_rotary_factor", 0, 1, 1, &part));
    if (part == 1) return QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "%spartial_rotary_factor: found %g, allowed is 1", f->name, part);
}

static qz_status refuse_nested(const fields *f)
{
    for (const qz_json_node *c = qz_json_first(f->node); c; c = qz_json_next(c))
        if (qz_json_is(c, QZ_JSON_OBJECT))
            return QZ_FAIL(QZ_UNSUPPORTED,
                           "%s%s: found an object; one rotation for each type of layer is not supported", f->name,
                           qz_json_key(c));
    return QZ_OK;
}

qz_status qz_config_rope(qz_model_config *out, const qz_json_node *config)
{
    const fields top = {config, ""};
    const char *key = qz_config_absent(qz_json_get(config, "rope_parameters")) ? "rope_scaling" : "rope_parameters";
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.", key);
    const fields f = {qz_json_get(config, key), prefix};
    out->rope = (qz_rope){.kind = QZ_ROPE_DEFAULT,
                          .theta = DEFAULT_THETA,
                          .factor = 1,
                          .attention_factor = 1,
                          .original_context = (double)out->context,
                          .truncate = true};
    QZ_TRY(refuse_partial(&top));
    QZ_TRY(number_or(&top, "rope_theta", 2, LARGEST_THETA, DEFAULT_THETA, &out->rope.theta));
    if (qz_config_absent(f.node)) return QZ_OK;
    if (!qz_json_is(f.node, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an object or null", key,
                       qz_json_type_name(qz_json_type_of(f.node)));
    QZ_TRY(refuse_partial(&f));
    QZ_TRY(refuse_nested(&f));
    QZ_TRY(number_or(&f, "rope_theta", 2, LARGEST_THETA, out->rope.theta, &out->rope.theta));
    return read_kind(&out->rope, &f);
}
