/* The solver gptq on a strip of rows: rows do not depend on each other, so a strip goes through all columns on one
 * thread. Columns go in panels, and these in steps of at most 128: a panel first gets the errors of all columns before
 * it by one product, a step those of the panel's steps before it; within a step the kernel passes them on.
 *
 * Where scales are refreshed, a group's come from its columns u as GPTQ has them when the group begins, optimal for the
 * errors so far with nothing else rounded: with c what those errors add to the group's columns, u = w + c L_gg^-T. */
#include <string.h>

#include "quant/gptq.h"

static qz_tensor part_of_l(const qz_gptq_factor *f, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
    const int64_t k = f->stats->k;
    return qz_gptq_view(f->l + row * k + col, rows, cols, k);
}

static const float *weight_row(const qz_gptq_strip *s, int64_t i)
{
    const qz_tensor *w = &s->plan->args->weight;
    return qz_f32(w) + (s->first + i) * w->stride[0];
}

/* Weights of the panel [first, end), and what the columns before it add. */
static qz_status begin_panel(qz_gptq_strip *s, int64_t first, int64_t end)
{
    const qz_gptq_plan *p = s->plan;
    const int64_t k = p->out->cols, width = end - first;
    for (int64_t i = 0; i < s->rows; i++) {
        const float *w = weight_row(s, i);
        for (int64_t j = 0; j < width; j++) s->w[i * p->panel + j] = w[p->factor->visit[first + j]];
    }
    if (first == 0) {
        memset(s->c, 0, (size_t)(s->rows * p->panel) * sizeof *s->c);
        return QZ_OK;
    }
    const qz_tensor c = qz_gptq_view(s->c, s->rows, width, p->panel), d = qz_gptq_view(s->d, s->rows, first, k);
    const qz_tensor l = part_of_l(p->factor, first, width, 0, first);
    return qz_op_linear(p->args->backend, &c, &d, &l, NULL, false);
}

/* Statistics of the visited columns [first, first + count) alone, as far as ranges look at them. */
static void group_stats(qz_gptq_strip *s, int64_t first, int64_t count)
{
    const qz_gptq_factor *f = s->plan->factor;
    s->stats = (qz_stats){.k = count, .tokens = f->stats->tokens, .diagonal = s->cost};
    for (int64_t i = 0; i < count; i++) s->cost[i] = f->cost[f->visit[first + i]];
}

/* u of the group [first, end) of the panel at `panel`, and its scales and zeros. */
static qz_status begin_group(qz_gptq_strip *s, int64_t panel, int64_t first, int64_t end)
{
    const qz_gptq_plan *p = s->plan;
    const qz_solve_args *a = p->args;
    const int64_t width = end - first, at = first - panel, group = p->group[first];
    for (int64_t i = 0; i < s->rows; i++)
        memcpy(s->u + i * p->panel, s->c + i * p->panel + at, (size_t)width * sizeof *s->u);
    const qz_tensor u = qz_gptq_view(s->u, s->rows, width, p->panel);
    const qz_tensor l = part_of_l(p->factor, first, width, first, width);
    QZ_TRY(qz_op_unit_solve(a->backend, &u, &l));
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t j = 0; j < width; j++) s->u[i * p->panel + j] += s->w[i * p->panel + at + j];
    group_stats(s, first, width);
    qz_qtensor q = {.scheme = a->scheme, .rows = s->rows, .cols = width, .scales = s->scales + group * p->rows};
    q.scheme.piece_cols = 0;
    q.zeros = s->zeros ? s->zeros + group * p->rows : NULL;
    QZ_TRY(a->range->choose(&q, a->backend, &u, &s->stats, &a->range_options));
    for (int64_t i = 0; i < s->rows; i++) {
        const int64_t piece = (s->first + i) * p->groups + group;
        p->out->scales[piece] = q.scales[i];
        if (q.zeros) p->out->zeros[piece] = q.zeros[i];
    }
    return QZ_OK;
}

static void give_codes(const qz_gptq_strip *s, const qz_gptq_step *t)
{
    const int32_t *visit = s->plan->factor->visit;
    for (int64_t i = 0; i < s->rows; i++) {
        uint8_t *out = s->plan->out->codes + (s->first + i) * s->plan->out->cols;
        for (int64_t k = t->first; k < t->last; k++) out[visit[k]] = s->codes[i * QZ_ROUND_COLUMNS + k - t->first];
    }
}

static qz_status round_step(qz_gptq_strip *s, const qz_gptq_step *t, int64_t panel)
{
    const qz_gptq_plan *p = s->plan;
    const int64_t k = p->out->cols, width = t->last - t->first, at = t->first - panel;
    qz_tensor codes = qz_tensor_2d(s->codes, QZ_U8, s->rows, width);
    codes.stride[0] = QZ_ROUND_COLUMNS;
    const qz_tensor d = qz_gptq_view(s->d + t->first, s->rows, width, k), loss = qz_tensor_1d(s->loss, QZ_F64, s->rows);
    const qz_tensor w = qz_gptq_view(s->w + at, s->rows, width, p->panel);
    const qz_tensor c = qz_gptq_view(s->c + at, s->rows, width, p->panel);
    const qz_tensor l = part_of_l(p->factor, t->first, width, t->first, width);
    const qz_tensor weight = qz_tensor_1d(p->factor->weight + t->first, QZ_F64, width);
    qz_round_grids grids = {.scheme = &p->args->scheme, .row = p->group + t->first};
    grids.scales = qz_gptq_view(s->scales, p->groups, s->rows, p->rows);
    if (s->zeros) {
        grids.zeros = qz_tensor_2d(s->zeros, QZ_U8, p->groups, s->rows);
        grids.zeros.stride[0] = p->rows;
    }
    QZ_TRY(qz_op_round_columns(p->args->backend, &codes, &d, &loss, &w, &c, &l, &weight, &grids));
    give_codes(s, t);
    return QZ_OK;
}

/* The errors of step `t` to the rest of its panel. */
static qz_status pass_on(qz_gptq_strip *s, const qz_gptq_step *t, int64_t panel, int64_t end)
{
    const qz_gptq_plan *p = s->plan;
    if (t->last == end) return QZ_OK;
    const qz_tensor c = qz_gptq_view(s->c + t->last - panel, s->rows, end - t->last, p->panel);
    const qz_tensor d = qz_gptq_view(s->d + t->first, s->rows, t->last - t->first, p->out->cols);
    const qz_tensor l = part_of_l(p->factor, t->last, end - t->last, t->first, t->last - t->first);
    return qz_op_linear(p->args->backend, &c, &d, &l, NULL, true);
}

/* Scales and zeros of the strip as (groups, rows); refreshed ones are filled in as their groups begin. */
static void take_scales(qz_gptq_strip *s)
{
    const qz_gptq_plan *p = s->plan;
    const qz_qtensor *q = p->plain;
    const int64_t k = q->cols, width = (k + p->groups - 1) / p->groups;
    if (p->refresh) return;
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t g = 0; g < p->groups; g++) {
            int64_t piece;
            const int64_t column = q->scheme.piece_cols ? g * q->scheme.piece_cols : g * width;
            qz_scheme_run(&piece, &q->scheme, k, s->first + i, column);
            s->scales[g * p->rows + i] = q->scales[piece];
            if (s->zeros) s->zeros[g * p->rows + i] = q->zeros[piece];
        }
}

qz_status qz_gptq_strip_solve(qz_gptq_strip *s, int64_t first, int64_t rows)
{
    const qz_gptq_plan *p = s->plan;
    int64_t panel = 0, end = 0;
    s->first = first;
    s->rows = rows;
    memset(s->loss, 0, (size_t)rows * sizeof *s->loss);
    take_scales(s);
    for (int64_t i = 0; i < p->steps; i++) {
        const qz_gptq_step *t = &p->step[i];
        if (t->panel_end) {
            panel = t->first;
            end = t->panel_end;
            QZ_TRY(begin_panel(s, panel, end));
        }
        if (t->group_end) QZ_TRY(begin_group(s, panel, t->first, t->group_end));
        QZ_TRY(round_step(s, t, panel));
        QZ_TRY(pass_on(s, t, panel, end));
    }
    return p->compare ? qz_gptq_strip_compare(s) : QZ_OK;
}

uint64_t qz_gptq_strip_bytes(int64_t rows, int64_t panel, int64_t groups, int64_t k)
{
    enum { ALLOCATIONS = 15, PADDING = 64 };
    const uint64_t floats = (uint64_t)(rows * (2 * k + 3 * panel) + k + panel + groups * rows);
    const uint64_t bytes = (uint64_t)(groups * rows + QZ_ROUND_COLUMNS * rows), wide = (uint64_t)(5 * rows);
    return floats * sizeof(float) + bytes + wide * sizeof(double) + ALLOCATIONS * PADDING;
}

qz_status qz_gptq_strip_new(qz_gptq_strip *s, const qz_gptq_plan *p, qz_arena *arena)
{
    const size_t k = (size_t)p->out->cols, rows = (size_t)p->rows, panel = rows * (size_t)p->panel, whole = rows * k;
    const size_t scales = (size_t)p->groups * rows;
    *s = (qz_gptq_strip){.plan = p,
                         .d = qz_arena_array(arena, float, whole),
                         .other = qz_arena_array(arena, float, p->compare ? whole : 1),
                         .w = qz_arena_array(arena, float, panel),
                         .c = qz_arena_array(arena, float, panel),
                         .u = qz_arena_array(arena, float, p->refresh ? panel : 1),
                         .row = qz_arena_array(arena, float, k),
                         .scales = qz_arena_array(arena, float, scales),
                         .zeros = p->out->zeros ? qz_arena_array(arena, uint8_t, scales) : NULL,
                         .codes = qz_arena_array(arena, uint8_t, QZ_ROUND_COLUMNS * rows),
                         .loss = qz_arena_array(arena, double, rows),
                         .partial = qz_arena_array(arena, double, rows),
                         .exact = qz_arena_array(arena, double, 2 * rows),
                         .active = qz_arena_array(arena, int64_t, rows),
                         .cost = qz_arena_array(arena, float, (size_t)p->panel)};
    const bool made = s->d && s->other && s->w && s->c && s->u && s->row && s->scales && s->codes && s->loss &&
                      s->partial && s->exact && s->active && s->cost;
    return made && (s->zeros || !p->out->zeros) ? QZ_OK : qz_arena_failed(arena);
}
