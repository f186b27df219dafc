/* The order in which the solver gptq visits columns: as they are, by falling diag(G), or group by group (the group with
 * the largest diagonal element first) and by falling diag(G) within. Equal ones keep their order. */
#include <stdlib.h>

#include "quant/gptq.h"

typedef struct entry {
    float group_most, diagonal;
    int32_t group, column;
} entry;

static int falling(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->group_most != y->group_most) return x->group_most < y->group_most ? 1 : -1;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->diagonal != y->diagonal) return x->diagonal < y->diagonal ? 1 : -1;
    return x->column < y->column ? -1 : 1;
}

static float diagonal(const qz_stats *s, int64_t k)
{
    return s->gram[k * (s->k + 1)];
}

static float largest(const qz_stats *s, int64_t first, int64_t count)
{
    float most = 0;
    for (int64_t k = first; k < first + count && k < s->k; k++)
        if (diagonal(s, k) > most) most = diagonal(s, k);
    return most;
}

qz_status qz_gptq_visit(int32_t *visit, const qz_stats *stats, qz_gptq_order order, int64_t group, qz_arena *scratch)
{
    const int64_t k = stats->k, width = order == QZ_GPTQ_GAR && group ? group : k;
    qz_arena_mark mark = qz_arena_save(scratch);
    entry *entries = qz_arena_array(scratch, entry, (size_t)k);
    if (!entries) return qz_arena_failed(scratch);
    for (int64_t g = 0; g * width < k; g++) {
        const float most = largest(stats, g * width, width);
        for (int64_t i = g * width; i < (g + 1) * width && i < k; i++)
            entries[i] = (entry){most, diagonal(stats, i), (int32_t)g, (int32_t)i};
    }
    if (order != QZ_GPTQ_NATURAL) qsort(entries, (size_t)k, sizeof *entries, falling);
    for (int64_t i = 0; i < k; i++) visit[i] = entries[i].column;
    qz_arena_restore(scratch, mark);
    return QZ_OK;
}
