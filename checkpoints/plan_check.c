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

/* "32, 64, 96, 192, 288, 576": divisors of k that are multiples of 32, the usual ones first. */
static void list_groups(char *out, size_t size, int64_t k, const int64_t *usual)
{
    size_t n = 0;
    for (int pass = 1; pass >= 0; pass--)
        for (int64_t g = 32; g <= k && n < size; g += 32)
            if (k % g == 0 && is_usual(g, usual) == (pass == 1))
                n += (size_t)snprintf(out + n, size - n, "%s%lld", n ? ", " : "", (long long)g);
    if (n == 0) snprintf(out, size, "only the whole row (0)");
}

void qz_reasons_group(qz_reasons *r, const qz_export_linear *l, const int64_t *usual)
{
    int64_t group = l->scheme.piece_cols;
    if (group == 0 || group == l->k) return;
    char text[120];
    if (l->k % group) {
        list_groups(text, sizeof text, l->k, usual);
        qz_reasons_add(r, "%s: %lld inputs do not divide into groups of %lld; groups that fit: %s", l->module,
                       (long long)l->k, (long long)group, text);
    } else if (!is_usual(group, usual)) {
        size_t n = 0;
        for (const int64_t *g = usual; *g && n < sizeof text; g++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%lld, ", (long long)*g);
        qz_reasons_add(r, "%s: found groups of %lld; readers of %s take %sor the whole row (0)", l->module,
                       (long long)group, r->container, text);
    }
}

bool qz_scheme_same(const qz_scheme *a, const qz_scheme *b)
{
    return a->format == b->format && a->piece_rows == b->piece_rows && a->piece_cols == b->piece_cols &&
           a->symmetric == b->symmetric && a->scale_type == b->scale_type;
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
    }
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
