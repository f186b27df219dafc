/* What is exported is what was trained: the values of a student's codes are, bit for bit, those that its forward pass
 * multiplies by; in every scheme, with every way to come by scales, and with weights that are frozen. */
#include <stdint.h>
#include <stdio.h>

#include "testing/train_case.h"
#include "train/student_parts.h"

enum { STEPS = 3 };

typedef struct way {
    const char *name;
    qz_student_rounding rounding;
} way;

static const way ways[] = {
    {"ste, fitted", {.fit = true, .rule = QZ_STE_PASS}},
    {"ste, fitted, clip", {.fit = true, .rule = QZ_STE_CLIP, .watch = true}},
    {"ste, kept", {.rule = QZ_STE_CLIP}},
    {"lsq", {.learn_scales = true, .rule = QZ_STE_LSQ}},
    {"lsq+", {.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ, .watch = true}},
    {"lsq+, frozen", {.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ, .freeze = 0.009}},
    {"ste, fitted, frozen", {.fit = true, .rule = QZ_STE_PASS, .freeze = 0.009}},
};
enum { WAYS = sizeof ways / sizeof *ways };

static const char *first_difference(const float *used, const float *stored, int64_t count)
{
    static char text[96];
    int64_t i = 0;
    while (i < count && memcmp(&used[i], &stored[i], sizeof *used) == 0) i++;
    if (i < count)
        snprintf(text, sizeof text, "weight %lld: %.9g used, %.9g stored", (long long)i, (double)used[i],
                 (double)stored[i]);
    return text;
}

/* The weights that the next pass multiplies by, against those that would be stored now. */
static void same_values(const train_case *c, const char *what)
{
    const qz_student *s = c->student;
    check_ok(qz_student_begin_step(c->student, false));
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        qz_arena_mark mark = qz_arena_save(c->arena);
        qz_qtensor q;
        float *stored = qz_arena_array(c->arena, float, (size_t)(l->n * l->k));
        check_ok(qz_student_codes(s, i, &q, c->arena));
        qz_qtensor_dequantize(stored, &q, 0, l->n);
        const float *used = qz_f32(qz_var_value(s->step[i].rounded));
        cr_assert(memcmp(used, stored, (size_t)(l->n * l->k) * sizeof *used) == 0, "%s: %s, %s", what, l->module,
                  first_difference(used, stored, l->n * l->k));
        qz_arena_restore(c->arena, mark);
    }
}

static double frozen_share(const train_case *c)
{
    double sum = 0;
    for (int i = 0; i < qz_student_linears(c->student); i++) {
        qz_student_health h;
        if (qz_student_health_of(c->student, i, &h)) sum += h.frozen;
    }
    return sum;
}

/* Large steps, so that codes turn back and forth. */
static void check_way(const qz_scheme *scheme, const way *w)
{
    char what[160], described[96];
    train_case c = train_case_new(scheme, NULL, NULL);
    qz_scheme_describe(scheme, described, sizeof described);
    snprintf(what, sizeof what, "%s, %s", described, w->name);
    train_case_start(&c, (qz_student_rule){.train_weights = true, .rounding = w->rounding}, TRAIN_SEQUENCES);
    same_values(&c, what);
    for (int i = 0; i < STEPS; i++) {
        train_case_step(&c, i, i % 2 ? 0.03 : 0.02);
        same_values(&c, what);
    }
    cr_assert((frozen_share(&c) > 0) == (w->rounding.freeze > 0), "%s", what);
    train_case_free(&c);
}

static void check_ways(const qz_scheme *scheme, int first, int last)
{
    for (int i = first; i < last; i++) check_way(scheme, &ways[i]);
}

Test(codes, integers)
{
    static const qz_format formats[] = {QZ_FORMAT_INT2, QZ_FORMAT_INT3, QZ_FORMAT_INT4, QZ_FORMAT_INT8};
    static const int64_t pieces[][2] = {{1, 32}, {1, 0}, {0, 0}};
    for (int i = 0; i < 4 * 2 * 3; i++) {
        const qz_scheme scheme = {.format = formats[i / 6],
                                  .symmetric = i / 3 % 2,
                                  .piece_rows = pieces[i % 3][0],
                                  .piece_cols = pieces[i % 3][1],
                                  .zero_rule = i % 2 ? QZ_ROUND_SUM : QZ_ROUND_VALUE,
                                  .scale_type = i % 3 ? QZ_BF16 : QZ_F16};
        check_ways(&scheme, 0, WAYS);
    }
}

Test(codes, grids_of_their_own)
{
    const qz_scheme narrow = {
        .format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .narrow = true, .scale_type = QZ_F32};
    const qz_scheme least = {
        .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .least_zero = 1, .scale_type = QZ_F16};
    check_ways(&narrow, 0, 3);
    check_ways(&least, 0, WAYS);
}

static const qz_scheme floats[] = {
    {.format = QZ_FORMAT_FP8_E4M3, .scale_type = QZ_F32},
    {.format = QZ_FORMAT_FP8_E4M3, .piece_rows = 1, .scale_type = QZ_BF16},
    {.format = QZ_FORMAT_FP8_E4M3, .piece_rows = 16, .piece_cols = 16, .scale_type = QZ_F32},
    {.format = QZ_FORMAT_FP8_E5M2, .piece_rows = 1, .scale_type = QZ_F32},
    {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32},
    {.format = QZ_FORMAT_NF4, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_F32},
    {.format = QZ_FORMAT_FP4, .flat = 64, .scale_type = QZ_F32},
};
enum { FLOATS = sizeof floats / sizeof *floats };

Test(codes, floats_and_codebooks)
{
    for (int i = 0; i < FLOATS; i++) {
        check_ways(&floats[i], 0, 3);
        check_ways(&floats[i], WAYS - 1, WAYS);
    }
}

/* q, k and v of a layer, and gate and up, are one matrix to a server. */
Test(codes, fused_sets_share_a_scale)
{
    for (int way = 0; way < 3; way++) {
        train_case c = train_case_new(&floats[0], NULL, NULL);
        for (size_t i = 0; i < c.plan.linears; i++) {
            qz_export_linear *l = (qz_export_linear *)(uintptr_t)&c.plan.linear[i];
            l->fused = strstr(l->module, "o_proj") || strstr(l->module, "down") ? -1 : strstr(l->module, "mlp") != NULL;
        }
        train_case_start(&c, (qz_student_rule){.train_weights = true, .rounding = ways[way].rounding}, TRAIN_SEQUENCES);
        for (int i = 0; i < STEPS; i++) train_case_step(&c, i, 0.01);
        same_values(&c, ways[way].name);
        float scale[7];
        for (int i = 0; i < 7; i++) {
            qz_qtensor q;
            check_ok(qz_student_codes(c.student, i, &q, c.arena));
            scale[i] = q.scales[0];
        }
        cr_assert(scale[0] == scale[1] && scale[1] == scale[2] && scale[4] == scale[5]);
        cr_assert(scale[0] != scale[3] && scale[4] != scale[6] && scale[0] != scale[4]);
        train_case_free(&c);
    }
}

Test(codes, floats_and_codebooks_learn)
{
    enum { LONG = 30 };
    for (int i = 0; i < FLOATS; i++) {
        train_case c = train_case_new(&floats[i], NULL, NULL);
        train_case_start(&c, (qz_student_rule){.train_weights = true, .rounding = ways[1].rounding}, TRAIN_SEQUENCES);
        const double before = train_case_judge(&c, 1000);
        for (int j = 0; j < LONG; j++) train_case_step(&c, j, 3e-3);
        const double after = train_case_judge(&c, 1000);
        cr_assert(after < 0.9 * before, "%s: %g -> %g", qz_format_of(floats[i].format)->name, before, after);
        train_case_free(&c);
    }
}
