/* Rules about linears that servers fuse into one matrix: q, k, v and gate, up. What the fused matrix has only one of
 * must be the same in all. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "programs/served.h"

static bool same_scheme(const qz_served_scheme *a, const qz_served_scheme *b)
{
    return a->bits == b->bits && a->floating == b->floating && a->symmetric == b->symmetric &&
           a->ordered == b->ordered && a->granularity == b->granularity && a->group == b->group &&
           a->inputs == b->inputs && a->inputs_floating == b->inputs_floating &&
           a->inputs_symmetric == b->inputs_symmetric && strcmp(a->format, b->format) == 0;
}

static const char *last_part(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static const char *scheme_text(char out[64], const qz_served_linear *l)
{
    static const char *const grain[] = {"per tensor", "per channel", "group", "block"};
    if (!l->said) return "plain";
    const int used = snprintf(out, 64, "%s%d %s%s", l->scheme.floating ? "float" : "int", l->scheme.bits,
                              l->scheme.symmetric ? "" : "asymmetric ", grain[l->scheme.granularity]);
    if (l->scheme.group) snprintf(out + used, 64 - (size_t)used, " %lld", (long long)l->scheme.group);
    return out;
}

static void check_set(const qz_served_linear *set, size_t count, qz_findings *f)
{
    char a[64], b[64];
    for (size_t i = 1; i < count; i++) {
        const qz_served_linear *l = &set[i];
        if (l->said == set->said && l->stored == set->stored && (!l->said || same_scheme(&l->scheme, &set->scheme)))
            continue;
        qz_finding_add(f, QZ_HARM_REFUSED, l->module, "give all linears of a fused set one scheme, or skip all of them",
                       "%s is %s, %s is %s%s; the server fuses them", last_part(set->module), scheme_text(a, set),
                       last_part(l->module), scheme_text(b, l),
                       l->said == set->said && l->stored != set->stored ? " but stored otherwise" : "");
        return;
    }
}

qz_status qz_serving_fused_schemes(const qz_served *s, qz_findings *f)
{
    for (size_t i = 0; i < s->linears; i++) check_set(&s->linear[i], qz_served_fused(s, i), f);
    return QZ_OK;
}

/* ---- scales ---- */

/* The first of the set whose single number differs from the first one's. */
static const qz_stored *find_different(const qz_served *s, size_t first, size_t count, const char *suffix)
{
    const double value = qz_served_number(qz_served_part(s, s->linear[first].module, suffix));
    for (size_t i = first + 1; i < first + count && isfinite(value); i++) {
        const qz_stored *t = qz_served_part(s, s->linear[i].module, suffix);
        const double other = qz_served_number(t);
        if (isfinite(other) && other != value) return t;
    }
    return NULL;
}

static void check_set_scales(const qz_served *s, size_t first, size_t count, qz_findings *f)
{
    const qz_served_scheme *x = &s->linear[first].scheme;
    const qz_stored *weight = find_different(s, first, count, "weight_scale");
    const qz_stored *input = find_different(s, first, count, "input_scale");
    const qz_stored *zero = find_different(s, first, count, "input_zero_point");
    if (weight && x->floating)
        qz_finding_add(f, QZ_HARM_WRONG, weight->name, "quantize the set with one common scale, or per channel",
                       "per-tensor scales differ in a fused set: the server takes the largest and rounds the other "
                       "weights a second time");
    if (input && x->inputs_floating)
        qz_finding_add(f, QZ_HARM_WRONG, input->name, "give the set one input scale: the input is the same",
                       "static input scales differ in a fused set: the server takes the largest for all");
    else if (input)
        qz_finding_add(f, QZ_HARM_WRONG, input->name, "give the set one input scale: the input is the same",
                       "static input scales differ in a fused set: the server keeps the one it loads last");
    if (zero)
        qz_finding_add(f, QZ_HARM_WRONG, zero->name, "give the set one input zero: the input is the same",
                       "static input zeros differ in a fused set: the server keeps the one it loads last");
}

qz_status qz_serving_fused_scales(const qz_served *s, qz_findings *f)
{
    for (size_t i = 0; i < s->linears; i++) {
        const size_t count = qz_served_fused(s, i);
        if (count) check_set_scales(s, i, count, f);
    }
    return QZ_OK;
}

/* ---- order of inputs ---- */

static const qz_stored *find_order(const qz_served *s, const char *module)
{
    const qz_stored *t = qz_served_part(s, module, "g_idx");
    return t ? t : qz_served_part(s, module, "weight_g_idx");
}

qz_status qz_serving_fused_order(const qz_served *s, qz_findings *f)
{
    for (size_t i = 0; i < s->linears; i++) {
        const size_t count = qz_served_fused(s, i);
        const qz_stored *first = count ? find_order(s, s->linear[i].module) : NULL;
        for (size_t j = 1; j < count; j++) {
            const qz_stored *other = find_order(s, s->linear[i + j].module);
            if (!first && !other) continue;
            if (first && other && first->bytes == other->bytes &&
                memcmp(first->view.data, other->view.data, first->bytes) == 0)
                continue;
            qz_finding_add(f, QZ_HARM_WRONG, s->linear[i + j].module,
                           "quantize the set in one order of its inputs, or with act_order \"static\"",
                           "g_idx differs in a fused set: the server keeps the one it loads last");
        }
    }
    return QZ_OK;
}
