/* Round to nearest: equal to the scalar functions for every format, cut, tail and row stride; a table of one solver. */
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "testing/quant_case.h"

static uint8_t expected(const qz_qtensor *q, float w, int64_t piece)
{
    const qz_scheme *s = &q->scheme;
    const qz_format_info *f = qz_format_of(s->format);
    if (f->kind == QZ_KIND_FLOAT) return qz_float_encode(w, q->scales[piece], s->format);
    if (f->kind == QZ_KIND_CODEBOOK) return qz_codebook_encode(w, q->scales[piece], s->format);
    const qz_grid g = {q->scales[piece], q->zeros ? q->zeros[piece] : 1 << (f->bits - 1), (1 << f->bits) - 1,
                       s->narrow};
    return (uint8_t)qz_grid_encode(w, g, s->zero_rule);
}

static void check_scheme(qz_scheme s)
{
    quant_case c = quant_case_new(19, 70, 8, 6);
    const qz_qtensor q = quant_solved(&c, s, "minmax");
    const int64_t cols = qz_scheme_scale_cols(&s, 70);
    for (int64_t i = 0; i < 19 * 70; i++) {
        const int64_t r = s.piece_rows ? i / 70 / s.piece_rows : 0, g = s.piece_cols ? i % 70 / s.piece_cols : 0;
        cr_assert(q.codes[i] == expected(&q, qz_f32(&c.w)[i], r * cols + g), "%s: code %ld",
                  qz_format_of(s.format)->name, (long)i);
    }
    quant_case_free(&c);
}

Test(solver_rtn, every_format_and_cut)
{
    const int64_t cuts[][2] = {{0, 0}, {1, 0}, {1, 32}, {8, 32}, {1, 128}};
    for (int f = QZ_FORMAT_INT2; f < QZ_FORMAT_COUNT; f++)
        for (size_t cut = 0; cut < sizeof cuts / sizeof *cuts; cut++)
            for (int symmetric = 0; symmetric < 2; symmetric++)
                check_scheme(quant_scheme((qz_format)f, cuts[cut][0], cuts[cut][1], symmetric));
}

Test(solver_rtn, rows_may_be_strided)
{
    quant_case c = quant_case_new(12, 64, 8, 7);
    const qz_scheme s = quant_scheme(QZ_FORMAT_INT4, 1, 32, false);
    qz_tensor wide = c.w;
    wide.shape[1] = 40;
    float packed[12 * 40];
    for (int i = 0; i < 12 * 40; i++) packed[i] = qz_f32(&c.w)[i / 40 * 64 + i % 40];
    c.w = wide;
    const qz_qtensor a = quant_solved(&c, s, "minmax");
    c.w = qz_tensor_2d(packed, QZ_F32, 12, 40);
    const qz_qtensor b = quant_solved(&c, s, "minmax");
    check_ok(qz_qtensor_compare(&a, &b));
    quant_case_free(&c);
}

Test(solver_rtn, plain_formats_and_short_memory_are_told)
{
    quant_case c = quant_case_new(4, 8, 8, 7);
    const qz_range *minmax = quant_range("minmax");
    qz_solve_args args = {.backend = c.backend, .weight = c.w, .range = minmax};
    qz_qtensor q;
    args.scheme = quant_scheme(QZ_FORMAT_BF16, 1, 0, false);
    check_fails(QZ_UNSUPPORTED, "bf16", quant_rtn()->solve(&q, &(qz_solve_info){0}, &args, c.arena));
    args.scheme = quant_scheme(QZ_FORMAT_INT4, 1, 0, false);
    args.weight.shape[0] = 1 << 20; /* is not read: there is no memory for its codes */
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "case", quant_rtn()->solve(&q, &(qz_solve_info){0}, &args, c.arena));
    qz_alloc_fail_at(0);
    quant_case_free(&c);
}

Test(solver_rtn, tables_have_names_and_helps)
{
    cr_assert(qz_plugins_find(qz_solvers(), "rtn") >= 0 && qz_plugins_find(qz_solvers(), "none") == -1);
    cr_assert(qz_plugins_find(qz_ranges(), "minmax") >= 0 && qz_plugins_find(qz_ranges(), "clip") >= 0);
    for (size_t i = 0; i < qz_solvers()->count; i++) {
        cr_assert(&qz_solver_at(i)->plugin == qz_solvers()->rows[i] && qz_solver_at(i)->solve != NULL);
        cr_assert(qz_solver_at(i)->plugin.help[0] != '\0');
    }
    for (size_t i = 0; i < qz_ranges()->count; i++) {
        cr_assert(&qz_range_at(i)->plugin == qz_ranges()->rows[i] && qz_range_at(i)->choose != NULL);
        cr_assert(qz_range_at(i)->plugin.help[0] != '\0');
    }
}
