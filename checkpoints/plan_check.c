/* An export plan -> the reasons why it does not fit a container. */
#include "checkpoints/plan_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void qz_reasons_add(qz_reasons *r, const char *format, ...)
{
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    r->count++;
    if (r->dropped || r->used + strlen(line) + 2 > sizeof r->text) {
        r->dropped++;
        return;
    }
    r->used += (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%s%s", r->used ? "\n" : "", line);
}

qz_status qz_reasons_status(const qz_reasons *r)
{
    if (r->count == 0) return QZ_OK;
    if (r->dropped) return QZ_FAIL(QZ_UNSUPPORTED, "%s\nand %zu more", r->text, r->dropped);
    return QZ_FAIL(QZ_UNSUPPORTED, "%s", r->text);
}

static bool is_usual(int64_t group, const int64_t *usual)
{
    for (; *usual; usual++)
        if (*usual == group) return true;
    return false;
}

/* "32, 64, or the whole row": the usual groups that divide k. */
static void list_groups(char *out, size_t size, int64_t k, const int64_t *usual)
{
    size_t n = 0;
    for (; *usual && n < size; usual++)
        if (k % *usual == 0) n += (size_t)snprintf(out + n, size - n, "%lld, ", (long long)*usual);
    if (n < size) snprintf(out + n, size - n, "%sthe whole row (\"channel\")", n ? "or " : "");
}

/* Layers repeat: the first linear of each width speaks for the others. */
static bool is_told(qz_reasons *r, int64_t k)
{
    for (int i = 0; i < r->widths; i++)
        if (r->width[i] == k) return true;
    if (r->widths < QZ_REASONS_WIDTHS) r->width[r->widths++] = k;
    return false;
}

void qz_reasons_group(qz_reasons *r, const qz_export_linear *l, const int64_t *usual)
{
    int64_t group = l->scheme.piece_cols;
    if (group == 0 || group == l->k) return;
    if ((l->k % group == 0 && is_usual(group, usual)) || is_told(r, l->k)) return;
    char text[120];
    list_groups(text, sizeof text, l->k, usual);
    if (l->k % group)
        qz_reasons_add(r, "%s: %lld inputs do not divide into groups of %lld; groups that fit: %s", l->module,
                       (long long)l->k, (long long)group, text);
    else
        qz_reasons_add(r, "%s: found groups of %lld, which readers of %s do not take; groups that fit: %s", l->module,
                       (long long)group, r->container, text);
}

static const qz_export_linear *first_of_set(const qz_export_plan *plan, const qz_export_linear *l)
{
    const qz_export_linear *o = plan->linear;
    while (o->layer != l->layer || o->fused != l->fused) o++;
    return o;
}

void qz_reasons_fused(qz_reasons *r, const qz_export_plan *plan)
{
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (l->fused < 0) continue;
        const qz_export_linear *o = first_of_set(plan, l);
        if (o->quantized != l->quantized)
            qz_reasons_add(r, "%s is quantized, but %s is not; servers fuse them: quantize both or neither",
                           (l->quantized ? l : o)->module, (l->quantized ? o : l)->module);
        else if (l->quantized && !qz_scheme_same(&o->scheme, &l->scheme))
            qz_reasons_add(r, "%s and %s have different schemes; servers fuse them: give them the same", o->module,
                           l->module);
        else if (l->quantized && !qz_act_scheme_same(&o->activation, &l->activation))
            qz_reasons_add(r, "inputs of %s and %s are rounded differently; servers fuse them: give them the same",
                           o->module, l->module);
        else if (l->quantized && o->ordered != l->ordered)
            qz_reasons_add(r, "one of %s and %s is ordered; servers fuse them: order both or neither", o->module,
                           l->module);
    }
}

void qz_reasons_embedding(qz_reasons *r, const qz_export_linear *l)
{
    if (!l->embedding) return;
    qz_reasons_add(r,
                   "%s: no reader of %s (vLLM, transformers) takes quantized embeddings: leave them plain, or use "
                   "compressed-tensors",
                   l->module, r->container);
}

void qz_reasons_weights_only(qz_reasons *r, const qz_export_plan *plan)
{
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (!l->quantized || l->activation.mode == QZ_ACT_NONE) continue;
        qz_reasons_add(r, "%s: its input is to be rounded to %s; %s holds weights only", l->module,
                       qz_format_of(l->activation.format)->name, r->container);
        break;
    }
    if (plan->kv.wanted)
        qz_reasons_add(r, "scales of the key-value cache are asked for; %s holds weights only", r->container);
}

int64_t qz_export_group(const qz_export_linear *l)
{
    const int64_t group = l->scheme.piece_cols;
    if (group == 0) return -1;
    return group == l->k && group != 32 && group != 64 && group != 128 ? -1 : group;
}

bool qz_export_first_of_set(const qz_export_plan *plan, size_t at)
{
    const char *name = plan->linear[at].fused_as;
    for (size_t i = 0; i < at; i++)
        if (plan->linear[i].fused_as && strcmp(plan->linear[i].fused_as, name) == 0) return false;
    return true;
}

const qz_export_linear *qz_export_first_quantized(const qz_export_plan *plan)
{
    for (size_t i = 0; i < plan->linears; i++)
        if (plan->linear[i].quantized) return &plan->linear[i];
    return NULL;
}

void qz_reasons_one_group(qz_reasons *r, const qz_export_plan *plan)
{
    const qz_export_linear *first = qz_export_first_quantized(plan);
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        if (l->quantized && l->scheme.piece_cols != first->scheme.piece_cols)
            qz_reasons_add(r, "%s has groups of %lld, but %s of %lld (0: the whole row); %s has one group size for all",
                           l->module, (long long)l->scheme.piece_cols, first->module,
                           (long long)first->scheme.piece_cols, r->container);
    }
}
