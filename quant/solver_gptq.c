/* GPTQ: columns are rounded one after another, and what rounding a column breaks is made good by those that follow
 * (Frantar et al. 2022; the arithmetic is in gptq.h). Four orders of columns:
 *
 *     natural  as they are; a group's scales are chosen from its updated columns when it begins
 *     static   by falling diag(G); scales of the original weights, groups of neighbours
 *     gar      groups by their largest diag(G), then columns by theirs; scales as in natural
 *     desc     by falling diag(G), and groups of columns visited together, as g_idx says: few consumers load it
 *
 * Ranges weigh squared errors by R_kk^2: that is what rounding column k costs when later columns make good what can be
 * made good, where G_kk or a block of G would count what gptq takes away. Scales stay as they are where they are given,
 * where a piece is a whole row or several, and where they are quantized themselves. Nothing is silent: the damping
 * taken, channels that never fired, rows that keep rounding's codes (whose exact loss is less) and a matrix that fell
 * back to rounding, which the recipe must allow, are in `info`. */
#include <assert.h>
#include <string.h>

#include "base/parallel.h"
#include "quant/gptq.h"

enum { STEP = QZ_ROUND_COLUMNS, PANEL = 512, ROWS = 256, LEAST = 64, STRIPS = 8 };

static const char *const orders[] = {"natural", "static", "gar", "desc", NULL}; /* as qz_gptq_order */

static const qz_option options[] = {
    QZ_OPTION_CHOICE("order", QZ_GPTQ_STATIC, orders,
                     "in which columns are rounded: as they are, by falling diag(G) with scales of the original "
                     "weights, by groups, or by falling diag(G) with groups to match (needs g_idx)"),
    QZ_OPTION_END,
};

static qz_gptq_order order_of(const qz_solve_args *a)
{
    const char *name = qz_options_choice(&a->solver_options, "order");
    int i = 0;
    while (strcmp(orders[i], name) != 0) i++;
    return (qz_gptq_order)i;
}

/* Columns that share a scale within a row. */
static int64_t columns_of(const qz_scheme *s, int64_t k)
{
    return s->flat ? s->flat : s->piece_cols && s->piece_cols < k ? s->piece_cols : k;
}

/* The same, and what cannot be. */
static qz_status group_width(int64_t *width, const qz_solve_args *a, qz_gptq_order order)
{
    const qz_scheme *s = &a->scheme;
    const int64_t k = a->weight.shape[1];
    *width = columns_of(s, k);
    if (s->flat && k % s->flat != 0)
        return QZ_FAIL(QZ_UNSUPPORTED, "solver gptq: rows of %lld weights are not whole runs of %lld; use rtn",
                       (long long)k, (long long)s->flat);
    if (order == QZ_GPTQ_DESC && *width < k && (s->flat || s->piece_rows != 1 || s->double_quant))
        return QZ_FAIL(QZ_UNSUPPORTED, "solver gptq: order desc needs groups within rows; use order static");
    return QZ_OK;
}

static bool refreshes(const qz_gptq_plan *p, qz_gptq_order order)
{
    const qz_scheme *s = &p->args->scheme;
    return order != QZ_GPTQ_STATIC && !p->args->given && s->piece_rows == 1 && !s->flat && !s->double_quant &&
           p->groups > 1;
}

static void number_groups(qz_gptq_plan *p, qz_gptq_order order, int64_t width)
{
    for (int64_t k = 0; k < p->out->cols; k++)
        p->group[k] = (int32_t)((order == QZ_GPTQ_DESC ? k : p->factor->visit[k]) / width);
}

/* Where the group of visited column k ends. */
static int64_t run_end(const qz_gptq_plan *p, int64_t k)
{
    const int32_t group = p->group[k];
    while (k < p->out->cols && p->group[k] == group) k++;
    return k;
}

/* A panel is PANEL columns, or as many whole groups as fit (at least one) when groups have scales of their own. */
static int64_t panel_end(const qz_gptq_plan *p, int64_t first)
{
    const int64_t k = p->out->cols;
    if (!p->refresh) return first + PANEL < k ? first + PANEL : k;
    int64_t end = run_end(p, first);
    while (end < k && run_end(p, end) - first <= PANEL) end = run_end(p, end);
    return end;
}

/* Where the step that begins at `first` ends: at the panel's or, with own scales, the group's end at the latest. */
static int64_t step_end(const qz_gptq_plan *p, int64_t first, int64_t panel)
{
    const int64_t whole = p->refresh ? run_end(p, first) : panel;
    return first + STEP < whole ? first + STEP : whole;
}

static void cut(qz_gptq_plan *p)
{
    int64_t panel = 0;
    for (int64_t k = 0; k < p->out->cols; k = p->step[p->steps++].last) {
        qz_gptq_step *t = &p->step[p->steps];
        *t = (qz_gptq_step){.first = k};
        if (k == panel) {
            panel = t->panel_end = panel_end(p, k);
            if (panel - k > p->panel) p->panel = panel - k;
        }
        if (p->refresh && (k == 0 || p->group[k] != p->group[k - 1])) t->group_end = run_end(p, k);
        t->last = step_end(p, k, panel);
    }
}

/* Scales of rounding, apart from those of `out` when these will be refreshed. */
static qz_status plain_scales(qz_gptq_plan *p, qz_qtensor *plain, qz_arena *arena)
{
    qz_qtensor *q = p->out;
    const size_t pieces = (size_t)qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    *plain = *q;
    p->plain = plain;
    if (p->refresh) {
        plain->scales = qz_arena_array(arena, float, pieces);
        if (q->zeros) plain->zeros = qz_arena_array(arena, uint8_t, pieces);
        if (!plain->scales || (q->zeros && !plain->zeros)) return qz_arena_failed(arena);
    }
    if (!p->refresh || p->compare) QZ_TRY(qz_solve_scales(plain, p->args));
    if (q->scheme.double_quant) {
        qz_qtensor_quantize_scales(plain);
        q->scale_offset = plain->scale_offset;
    }
    return QZ_OK;
}

/* g_idx */
static void write_permutation(const qz_gptq_plan *p)
{
    for (int64_t k = 0; k < p->out->cols; k++) p->out->permutation[p->factor->visit[k]] = p->group[k];
}

static qz_status plan_new(qz_gptq_plan *p, qz_qtensor *plain, qz_gptq_order order, int64_t width, qz_arena *arena)
{
    const int64_t n = p->out->rows, k = p->out->cols;
    p->groups = (k + width - 1) / width;
    p->refresh = refreshes(p, order);
    p->compare = order != QZ_GPTQ_DESC || p->groups == 1;
    p->group = qz_arena_array(arena, int32_t, (size_t)k);
    p->step = qz_arena_array(arena, qz_gptq_step, (size_t)(k + 1));
    if (!p->group || !p->step) return qz_arena_failed(arena);
    number_groups(p, order, width);
    cut(p);
    p->rows = ROWS;
    while (p->rows > LEAST && (n + p->rows - 1) / p->rows < STRIPS) p->rows /= 2;
    return plain_scales(p, plain, arena);
}

static qz_status first_error(const qz_error *errors, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (errors[i].code != QZ_OK) return qz_error_restore(&errors[i]);
    return QZ_OK;
}

static qz_status solve_strips(int64_t *kept, const qz_gptq_plan *p, qz_arena *scratch)
{
    const int64_t n = p->out->rows, threads = qz_threads();
    qz_gptq_strip *strips = qz_arena_array(scratch, qz_gptq_strip, (size_t)threads);
    qz_error *errors = qz_arena_calloc(scratch, (size_t)threads * sizeof *errors);
    if (!strips || !errors) return qz_arena_failed(scratch);
    for (int64_t i = 0; i < threads; i++) QZ_TRY(qz_gptq_strip_new(&strips[i], p, scratch));
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < n; first += p->rows) {
        const int thread = qz_thread_index();
        if (errors[thread].code != QZ_OK) continue;
        const qz_status status = qz_gptq_strip_solve(&strips[thread], first, n - first < p->rows ? n - first : p->rows);
        if (status != QZ_OK) qz_error_save(&errors[thread], status);
    }
    for (int64_t i = 0; i < threads; i++) *kept += strips[i].kept;
    return first_error(errors, threads);
}

static qz_status fall_back(qz_qtensor *out, qz_solve_info *info, const qz_solve_args *a, qz_arena *arena)
{
    if (!a->may_fall_back)
        return QZ_FAIL(QZ_NUMERIC,
                       "the Gram matrix has no Cholesky factor with any damping of %s times the mean of its diagonal; "
                       "calibrate on more data, or allow rounding with \"on_failure\": \"rtn\"",
                       qz_gptq_ladder());
    const qz_solver *rtn = qz_solver_at((size_t)qz_plugins_find(qz_solvers(), "rtn"));
    QZ_TRY(rtn->solve(out, info, a, arena));
    info->fell_back = true;
    return QZ_OK;
}

static qz_status solve(qz_qtensor *out, qz_solve_info *info, const qz_solve_args *a, qz_arena *arena)
{
    const qz_gptq_order order = order_of(a);
    int64_t width;
    qz_qtensor plain;
    qz_stats costs = *a->stats;
    qz_solve_args mine = *a;
    qz_gptq_plan plan = {.args = &mine, .out = out};
    assert(!a->stats->divisor && a->stats->k == a->weight.shape[1]);
    *info = (qz_solve_info){0};
    QZ_TRY(group_width(&width, a, order));
    QZ_TRY(qz_qtensor_alloc(out, &a->scheme, a->weight.shape[0], a->weight.shape[1], arena));
    if (order == QZ_GPTQ_DESC && width < out->cols) {
        out->permutation = qz_arena_array(arena, int32_t, (size_t)out->cols);
        if (!out->permutation) return qz_arena_failed(arena);
    }
    qz_arena_mark mark = qz_arena_save(arena);
    QZ_TRY(qz_gptq_factor_get(&plan.factor, a, order, width, arena));
    if (!plan.factor) {
        qz_arena_restore(arena, mark);
        return fall_back(out, info, a, arena);
    }
    costs.diagonal = plan.factor->cost;
    mine.stats = &costs;
    if (a->shared) mark = qz_arena_save(arena); /* which may be the arena of what is shared */
    info->damping = plan.factor->damping;
    info->dead_channels = plan.factor->dead;
    QZ_TRY(plan_new(&plan, &plain, order, width, arena));
    if (out->permutation) write_permutation(&plan);
    QZ_TRY(solve_strips(&info->rows_kept, &plan, arena));
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

/* Of a strip, with the widest panel that any order has. */
static uint64_t work_bytes(const qz_scheme *s, int64_t k)
{
    const int64_t width = columns_of(s, k), panel = width < k && width > PANEL ? width : PANEL;
    return qz_gptq_strip_bytes(ROWS, panel, (k + width - 1) / width, k);
}

const qz_solver qz_solver_gptq = {
    .plugin = {"gptq", "rounds column by column and makes good what each breaks in those that follow",
               "Frantar et al. 2022", options},
    .needs = QZ_NEED_GRAM,
    .solve = solve,
    .factor_bytes = qz_gptq_factor_bytes,
    .work_bytes = work_bytes,
};
