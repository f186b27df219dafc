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

/* One object's numbers, named "<name><key>" in messages; `top` is the whole config. */
typedef struct fields {
    const qz_json_node *node;
    const char *name;
    const qz_json_node *top;
    qz_arena *arena;
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

static qz_status read_factors(const qz_rope *rope, const fields *f, const char *key, const float **out)
{
    char name[96];
    double value;
    const qz_json_node *list = qz_json_get(f->node, key);
    snprintf(name, sizeof name, "%s%s", f->name, key);
    if (!qz_json_is(list, QZ_JSON_ARRAY) || (int64_t)qz_json_count(list) != rope->dims / 2)
        return QZ_FAIL(QZ_FORMAT, "%s: found %s of %zu, expected an array with a number for each of %lld frequencies",
                       name, qz_json_type_name(qz_json_type_of(list)), qz_json_count(list),
                       (long long)(rope->dims / 2));
    float *numbers = qz_arena_array(f->arena, float, (size_t)rope->dims / 2), *at = numbers;
    if (!numbers) return qz_arena_failed(f->arena);
    for (const qz_json_node *n = qz_json_first(list); n; n = qz_json_next(n)) {
        QZ_TRY(qz_json_number(n, name, 1 / LARGEST_FACTOR, LARGEST_FACTOR, &value));
        *at++ = (float)value;
    }
    *out = numbers;
    return QZ_OK;
}

/* Microsoft's Phi-3 keeps original_max_position_embeddings beside the object, and that one counts. The attention factor
 * is that of Ding et al. 2024, as in transformers. */
static qz_status read_long(qz_rope *rope, const fields *f)
{
    const char *key = "original_max_position_embeddings";
    const double context = rope->original_context;
    const fields top = {f->top, "", f->top, f->arena}, *where = qz_config_absent(qz_json_get(f->top, key)) ? f : &top;
    QZ_TRY(number_or(where, key, 2, LARGEST_CONTEXT, context, &rope->original_context));
    QZ_TRY(number_or(f, "factor", 1 / LARGEST_FACTOR, LARGEST_FACTOR, context / rope->original_context, &rope->factor));
    QZ_TRY(read_factors(rope, f, "short_factor", &rope->factors));
    QZ_TRY(read_factors(rope, f, "long_factor", &rope->far_factors));
    const double fallback = rope->factor <= 1 ? 1 : sqrt(1 + log(rope->factor) / log(rope->original_context));
    return number_or(f, "attention_factor", 1e-3, LARGEST_FACTOR, fallback, &rope->attention_factor);
}

static const struct {
    const char *name;
    qz_rope_kind kind;
    qz_status (*read)(qz_rope *rope, const fields *f);
} kinds[] = {
    {"default", QZ_ROPE_DEFAULT, NULL},      {"linear", QZ_ROPE_LINEAR, read_linear},
    {"llama3", QZ_ROPE_LLAMA3, read_llama3}, {"yarn", QZ_ROPE_YARN, read_yarn},
    {"longrope", QZ_ROPE_LONG, read_long},   {"su", QZ_ROPE_LONG, read_long}, /* its first name, in files of 2024 */
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
    return QZ_FAIL(QZ_UNSUPPORTED, "%s: found \"%s\", known are default, linear, llama3, yarn, longrope", name, text);
}

/* How many channels of a head are rotated: an even number, of which only some families rotate less than all. */
static qz_status read_part(qz_model_config *out, const fields *f, bool may_be_partial)
{
    double part;
    if (qz_config_absent(qz_json_get(f->node, "partial_rotary_factor"))) return QZ_OK;
    QZ_TRY(number(f, "partial_rotary_factor", 0, 1, &part));
    out->rope.dims = (int64_t)((double)out->head_dim * part);
    if (part == 1) return QZ_OK;
    if (!may_be_partial)
        return QZ_FAIL(QZ_UNSUPPORTED, "%spartial_rotary_factor: found %g, allowed is 1", f->name, part);
    if (out->rope.dims >= 2 && out->rope.dims % 2 == 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%spartial_rotary_factor: found %g, which makes %lld channels of %lld, expected an even "
                   "number of them",
                   f->name, part, (long long)out->rope.dims, (long long)out->head_dim);
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

qz_status qz_config_rope(qz_model_config *out, const qz_json_node *config, const qz_family *family, qz_arena *arena)
{
    const fields top = {config, "", config, arena};
    const char *key = qz_config_absent(qz_json_get(config, "rope_parameters")) ? "rope_scaling" : "rope_parameters";
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s.", key);
    const fields f = {qz_json_get(config, key), prefix, config, arena};
    const double theta = family->default_theta > 0 ? family->default_theta : DEFAULT_THETA;
    out->rope = (qz_rope){.kind = QZ_ROPE_DEFAULT,
                          .dims = out->head_dim,
                          .factor = 1,
                          .attention_factor = 1,
                          .original_context = (double)out->context,
                          .truncate = true};
    QZ_TRY(read_part(out, &top, family->partial_rotation));
    QZ_TRY(number_or(&top, "rope_theta", 2, LARGEST_THETA, theta, &out->rope.theta));
    if (qz_config_absent(f.node)) return QZ_OK;
    if (!qz_json_is(f.node, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an object or null", key,
                       qz_json_type_name(qz_json_type_of(f.node)));
    QZ_TRY(read_part(out, &f, family->partial_rotation));
    QZ_TRY(refuse_nested(&f));
    QZ_TRY(number_or(&f, "rope_theta", 2, LARGEST_THETA, out->rope.theta, &out->rope.theta));
    return read_kind(&out->rope, &f);
}
