/* Rules about sizes: groups that have kernels, rows and columns that they can cut, and cuts over several devices. */
#include <stdio.h>
#include <string.h>

#include "programs/served.h"

static bool is_one_of(int64_t group, const int64_t *list)
{
    for (; *list; list++)
        if (*list == group) return true;
    return false;
}

/* Group 0 is the whole row, which every kernel takes. */
static bool is_in_groups(const qz_served_linear *l)
{
    return l->said && l->scheme.granularity == QZ_PER_GROUP && !l->scheme.floating;
}

static const int64_t marlin_groups[] = {32, 64, 128, 0};
static const char *const marlin_advice = "use groups of 32, 64 or 128, or whole rows";

static void check_marlin_group(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    if (is_one_of(l->scheme.group, marlin_groups)) return;
    qz_finding_add(f, QZ_HARM_REFUSED, l->module, marlin_advice,
                   "groups of %lld: vLLM's kernels for %s take 32, 64, 128", (long long)l->scheme.group,
                   s->method_name);
}

/* Which kernel takes what: FORMATS.md 2.6 and 3.3. */
static void check_packed_group(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    const qz_served_scheme *x = &l->scheme;
    const bool marlin = is_one_of(x->group, marlin_groups);
    if (x->inputs != QZ_INPUTS_PLAIN) return; /* other kernels; they divide K, which another rule checks */
    if (!x->symmetric && x->bits != 4 && x->bits != 8)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "make it symmetric, or use 4 or 8 bits", "%d bits, asymmetric",
                       x->bits);
    else if (x->bits != 4 && x->bits != 8)
        qz_finding_add(f, QZ_HARM_LIMITED, l->module, "use 4 or 8 bits to be served everywhere",
                       "%d bits: only vLLM's Humming kernel takes them", x->bits);
    else if (!x->symmetric && x->bits == 8)
        qz_finding_add(f, QZ_HARM_LIMITED, l->module, "make 8-bit weights symmetric",
                       "8 bits, asymmetric: only the kernels Machete (Hopper) and Conch take them");
    else if (!marlin && x->symmetric && s->model.stored == QZ_F16)
        qz_finding_add(f, QZ_HARM_LIMITED, l->module, marlin_advice,
                       "groups of %lld: only vLLM's Exllama kernel takes them, in float16", (long long)x->group);
    else if (!marlin)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, marlin_advice, "groups of %lld: no kernel of vLLM takes them",
                       (long long)x->group);
}

static void check_gptqmodel_group(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    static const int64_t awq[] = {16, 32, 64, 128, 0}, gptq[] = {16, 32, 64, 128, 256, 512, 1024, 0};
    if (is_one_of(l->scheme.group, s->method == QZ_METHOD_AWQ ? awq : gptq)) return;
    qz_finding_add(f, QZ_HARM_REFUSED, l->module, marlin_advice, "groups of %lld: gptqmodel has no kernel for them",
                   (long long)l->scheme.group);
}

qz_status qz_serving_group_size(const qz_served *s, qz_findings *f)
{
    const bool words = s->method == QZ_METHOD_AWQ || s->method == QZ_METHOD_GPTQ;
    for (size_t i = 0; i < s->linears; i++) {
        const qz_served_linear *l = &s->linear[i];
        if (!is_in_groups(l)) continue;
        if (s->consumer == QZ_FOR_TRANSFORMERS && words) check_gptqmodel_group(s, l, f);
        if (s->consumer == QZ_FOR_VLLM && words) check_marlin_group(s, l, f);
        if (s->consumer == QZ_FOR_VLLM && s->method == QZ_METHOD_COMPRESSED) check_packed_group(s, l, f);
    }
    return QZ_OK;
}

/* ---- rows and columns ---- */

/* Values in a packed word: along N in AWQ, along K in GPTQ and compressed-tensors; 3 bits: 32 in three words. */
static int64_t word_values(int bits)
{
    return bits == 3 || bits > 8 ? 32 : bits < 1 ? 1 : 32 / bits;
}

static void check_division(const qz_served *s, const qz_served_linear *l, qz_findings *f)
{
    const qz_served_scheme *x = &l->scheme;
    const int64_t values = word_values(x->bits);
    if (x->granularity == QZ_PER_GROUP && x->group && l->k % x->group)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "choose a group that divides the inputs",
                       "%lld inputs do not divide into groups of %lld", (long long)l->k, (long long)x->group);
    if (s->method == QZ_METHOD_AWQ && l->n % values)
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "skip this linear", "%lld outputs do not fill words of %lld",
                       (long long)l->n, (long long)values);
    if (s->method == QZ_METHOD_GPTQ && (l->k % values || l->n % values))
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "skip this linear",
                       "%lld x %lld does not fill words of %lld values", (long long)l->n, (long long)l->k,
                       (long long)values);
}

/* Outputs of the matrix that the server makes of a set, or of the linear itself. */
static int64_t fused_outputs(const qz_served *s, size_t i)
{
    int64_t n = s->linear[i].n;
    for (size_t j = 1; j < qz_served_fused(s, i); j++) n += s->linear[i + j].n;
    return n;
}

static void check_tiles(const qz_served *s, size_t i, qz_findings *f)
{
    const qz_served_linear *l = &s->linear[i];
    const int64_t n = fused_outputs(s, i), k = l->k;
    if (n % 32 || k % 32)
        qz_finding_add(f, QZ_HARM_LIMITED, l->module, "serve it on a GPU, or skip this linear",
                       "%lld x %lld as fused: vLLM's kernel for CPUs needs multiples of 32", (long long)n,
                       (long long)k);
    if (n % 64 || k % 128)
        qz_finding_add(f, QZ_HARM_LIMITED, l->module, "serve it with vLLM of August 2026 or later, which pads",
                       "%lld x %lld as fused: the Marlin kernel of older vLLM needs outputs in 64, inputs in 128",
                       (long long)n, (long long)k);
}

/* vLLM's validate_fp8_block_shape: of a fused matrix all but the last part must be whole blocks. */
static void check_blocks(const qz_served *s, size_t i, qz_findings *f)
{
    for (size_t j = 0; j + 1 < qz_served_fused(s, i); j++) {
        const qz_served_linear *l = &s->linear[i + j];
        if (l->scheme.group && l->n % l->scheme.group)
            qz_finding_add(f, QZ_HARM_REFUSED, l->module, "use scales per channel or tensor",
                           "%lld outputs are no whole blocks of %lld, and the server fuses it with what follows",
                           (long long)l->n, (long long)l->scheme.group);
    }
}

static bool starts_set(const qz_served *s, size_t i)
{
    return qz_served_fused(s, i) || i == 0 || s->linear[i].layer < 0 || s->linear[i - 1].layer != s->linear[i].layer ||
           s->linear[i - 1].expert != s->linear[i].expert ||
           qz_role_stage(s->linear[i - 1].role) != qz_role_stage(s->linear[i].role);
}

qz_status qz_serving_shapes(const qz_served *s, qz_findings *f)
{
    for (size_t i = 0; i < s->linears; i++) {
        const qz_served_linear *l = &s->linear[i];
        if (!l->said) continue;
        const bool whole_set = s->consumer == QZ_FOR_VLLM && starts_set(s, i);
        check_division(s, l, f);
        if (whole_set && !l->scheme.floating && l->scheme.inputs == QZ_INPUTS_PLAIN &&
            s->method != QZ_METHOD_BITSANDBYTES)
            check_tiles(s, i, f);
        if (whole_set && l->scheme.granularity == QZ_PER_BLOCK) check_blocks(s, i, f);
    }
    return QZ_OK;
}

/* ---- several devices ---- */

typedef struct reason {
    const char *where, *advice;
    char text[200];
} reason;

static bool cannot_split(reason *r, const char *where, int64_t size, const char *of, int64_t parts, int64_t unit)
{
    if (size % parts == 0 && size / parts % unit == 0) return false;
    r->where = where;
    r->advice = size % parts ? "serve it on fewer devices" : "serve it on fewer devices, or choose a smaller group";
    if (size % parts)
        snprintf(r->text, sizeof r->text, "%lld %s", (long long)size, of);
    else
        snprintf(r->text, sizeof r->text, "%lld %s a device are no multiple of %lld", (long long)(size / parts), of,
                 (long long)unit);
    return true;
}

static bool heads_refuse(reason *r, const qz_served *s, int64_t parts)
{
    const qz_model_config *c = &s->model;
    if (cannot_split(r, "num_attention_heads", c->heads, "attention heads", parts, 1)) return true;
    if (c->kv_heads % parts == 0 || parts % c->kv_heads == 0) return false;
    r->where = "num_key_value_heads";
    r->advice = "serve it on fewer devices";
    snprintf(r->text, sizeof r->text, "%lld key-value heads", (long long)c->kv_heads);
    return true;
}

/* Outputs of q, k, v, gate, up are cut, and inputs of o and down; key-value heads that are fewer than the devices are
 * copied. */
static bool linear_refuses(reason *r, const qz_served *s, const qz_served_linear *l, int64_t parts)
{
    const qz_served_scheme *x = &l->scheme;
    const int64_t side = x->group ? x->group : 1;
    const bool rows = qz_role_stage(l->role) == QZ_STAGE_O || qz_role_stage(l->role) == QZ_STAGE_DOWN;
    const bool copied = (l->role == QZ_ROLE_K || l->role == QZ_ROLE_V) && s->model.kv_heads < parts;
    int64_t unit = 1;
    if (rows) {
        unit = x->granularity == QZ_PER_GROUP || x->granularity == QZ_PER_BLOCK ? side : 1;
        if (!l->said) unit = 1;
        return cannot_split(r, l->module, l->k, "inputs", parts, unit);
    }
    if (l->said && x->granularity == QZ_PER_BLOCK) unit = side;
    if (l->said && s->method == QZ_METHOD_AWQ) unit = word_values(x->bits);
    return cannot_split(r, l->module, l->n, "outputs", copied ? s->model.kv_heads : parts, unit);
}

qz_status qz_serving_tensor_parallel(const qz_served *s, qz_findings *f)
{
    for (int64_t parts = 2; parts <= 8; parts *= 2) {
        reason r;
        bool refused = heads_refuse(&r, s, parts);
        for (size_t i = 0; i < s->linears && !refused; i++)
            if (s->linear[i].layer >= 0) refused = linear_refuses(&r, s, &s->linear[i], parts);
        if (refused)
            qz_finding_add(f, QZ_HARM_LIMITED, r.where, r.advice, "cannot be cut over %lld devices: %s",
                           (long long)parts, r.text);
    }
    return QZ_OK;
}
