/* Codes of rounded weights over the steps: figures, freezing, late starts, and zero points that are learned. */
#include <math.h>

#include "numeric/piece.h"
#include "testing/train_case.h"
#include "train/student_parts.h"

static const qz_scheme int4 = {
    .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F32};
static const qz_scheme uint3 = {.format = QZ_FORMAT_INT3, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_F32};

static qz_student_rule rule_of(qz_student_rounding rounding)
{
    return (qz_student_rule){.train_weights = true, .rounding = rounding};
}

/* A step of rounding without data. */
static void look(train_case *c)
{
    check_ok(qz_student_begin_step(c->student, true));
}

static qz_student_health health(const train_case *c)
{
    qz_student_health h;
    cr_assert(qz_student_health_of(c->student, 0, &h));
    return h;
}

/* Weight (0, 1) of the first linear on the code c, in the middle between its neighbours; the scale is kept. */
static void put(train_case *c, double code)
{
    const qz_student_linear *l = qz_student_linear_at(c->student, 0);
    qz_f32(&l->weight)[1] = (float)code * l->q.scales[0];
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b); /* the weight of an average is a float */
}

Test(watch, figures)
{
    train_case c = train_case_new(&int4, NULL, NULL);
    qz_student_health h;
    train_case_start(&c, rule_of((qz_student_rounding){.rule = QZ_STE_CLIP, .watch = true}), 2);
    const qz_student_linear *l = qz_student_linear_at(c.student, 0);
    const double one = 1.0 / (double)(l->n * l->k);
    cr_assert_not(qz_student_health_of(c.student, 0, &h));
    put(&c, 2);
    look(&c);
    cr_assert(health(&c).flipped == 0 && health(&c).oscillation == 0 && health(&c).scale_drift == 0);
    cr_assert(health(&c).saturation == 0, "fitted: nothing lies outside");
    put(&c, 3);
    look(&c);
    cr_assert(near(health(&c).flipped, one) && health(&c).oscillation == 0);
    put(&c, 4);
    look(&c);
    cr_assert(near(health(&c).flipped, one) && health(&c).oscillation == 0, "the same direction");
    put(&c, 3);
    look(&c);
    cr_assert(near(health(&c).flipped, one) && near(health(&c).oscillation, 0.01 * one));
    look(&c);
    cr_assert(health(&c).flipped == 0 && near(health(&c).oscillation, 0.0099 * one));
    put(&c, 7.4);
    look(&c);
    cr_assert(health(&c).saturation == 0, "it still rounds to 7");
    put(&c, 9);
    look(&c);
    cr_assert(near(health(&c).saturation, one));
    l->q.scales[0] *= 1.5f;
    look(&c);
    cr_assert(near(health(&c).scale_drift, 0.5 / (double)qz_scheme_pieces(&int4, l->n, l->k)));
    train_case_free(&c);
}

Test(watch, evaluations_do_not_count)
{
    train_case c = train_case_new(&int4, NULL, NULL);
    train_case_start(&c, rule_of((qz_student_rounding){.rule = QZ_STE_CLIP, .watch = true}), 2);
    put(&c, 2);
    look(&c);
    put(&c, 3);
    check_ok(qz_student_begin_step(c.student, false));
    look(&c);
    cr_assert(health(&c).flipped > 0);
    train_case_free(&c);
}

/* Nagel et al. 2022, algorithm 1, written plainly. */
typedef struct nagel {
    double frequency, mean;
    int code, last;
    bool frozen;
} nagel;

static void nagel_step(nagel *n, int code, double limit)
{
    const int change = (code > n->code) - (code < n->code);
    const bool back = change && n->last && change != n->last;
    n->frequency = 0.01 * back + 0.99 * n->frequency;
    if (change) n->last = change;
    n->mean = 0.01 * code + 0.99 * n->mean;
    n->code = code;
    if (n->frequency <= limit) return;
    n->frozen = true;
    n->code = (int)rint(n->mean);
}

static int code_now(const train_case *c)
{
    qz_qtensor q;
    check_ok(qz_student_codes(c->student, 0, &q, c->arena));
    return q.codes[1] - 8;
}

Test(watch, oscillating_weights_are_frozen_at_the_mean_of_their_codes)
{
    static const int course[] = {2, 3, 2, 2, 2, 3, 2, 2, 2, 2, 2, 3, 2, 3, 3, 3, 3};
    const double limit = 0.035;
    train_case c = train_case_new(&int4, NULL, NULL);
    train_case_start(&c, rule_of((qz_student_rounding){.rule = QZ_STE_CLIP, .freeze = limit}), 2);
    nagel n = {.code = course[0], .mean = course[0]};
    put(&c, course[0]);
    look(&c);
    for (int i = 1; i < (int)(sizeof course / sizeof *course); i++) {
        put(&c, course[i]);
        look(&c);
        if (!n.frozen) nagel_step(&n, course[i], limit);
        cr_assert((health(&c).frozen > 0) == n.frozen, "step %d", i);
        cr_assert(code_now(&c) == n.code, "step %d: %d, expected %d", i, code_now(&c), n.code);
    }
    cr_assert(n.frozen && n.code == 2, "it was mostly 2, and stays it");
    put(&c, -5);
    look(&c);
    cr_assert(code_now(&c) == 2);
    const qz_student_linear *l = qz_student_linear_at(c.student, 0);
    cr_assert(qz_f32(qz_var_value(c.student->step[0].rounded))[1] == 2 * l->q.scales[0]);
    train_case_free(&c);
}

/* The derivatives of (code - zero) scale, with a code that is fixed. */
Test(watch, gradients_of_frozen_weights_go_to_scale_and_offset)
{
    train_case c = train_case_new(&uint3, NULL, NULL);
    train_case_start(
        &c,
        rule_of((qz_student_rounding){.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ, .freeze = 1e-9}),
        2);
    const qz_student_linear *l = qz_student_linear_at(c.student, 0);
    float *w = qz_f32(&l->weight);
    look(&c);
    const float start = w[1], scale = l->q.scales[0];
    const double way = start > 0 ? -1 : 1;
    w[1] = start + (float)way * scale;
    look(&c);
    w[1] = start;
    look(&c); /* frozen */
    const double frozen = health(&c).frozen;
    cr_assert(frozen > 0);
    qz_tensor dy = c.student->step[0].grad;
    memset(dy.data, 0, (size_t)qz_tensor_count(&dy) * sizeof(float));
    qz_f32(&dy)[1] = 2;
    const double value = (double)qz_f32(qz_var_value(c.student->step[0].rounded))[1];
    qz_parameters_zero_gradients(qz_student_parameters(c.student));
    check_ok(qz_student_end_step(c.student));
    const double factor = 1 / sqrt(32 * 7.0), s = (double)l->q.scales[0];
    cr_assert(qz_f32(&l->grad)[1] == 0);
    cr_assert(near((double)qz_f32(&l->scale->grad)[0], factor * 2 * value / s) || value == 0, "%g",
              (double)qz_f32(&l->scale->grad)[0]);
    cr_assert(near((double)qz_f32(&l->offset->grad)[0], -factor * 2 * s), "%g", (double)qz_f32(&l->offset->grad)[0]);
    train_case_free(&c);
}

/* ---- late starts ---- */

Test(watch, learned_scales_start_from_the_weights_of_that_step)
{
    const qz_student_rounding roundings[] = {
        {.rule = QZ_STE_CLIP},
        {.learn_scales = true, .rule = QZ_STE_LSQ},
        {.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ},
    };
    for (int i = 0; i < 3; i++) {
        train_case c = train_case_new(&uint3, NULL, NULL);
        qz_qtensor fitted;
        train_case_start(&c, rule_of(roundings[i]), 2);
        qz_student_round(c.student, false);
        for (int j = 0; j < 3; j++) train_case_step(&c, j, 1e-2);
        const qz_student_linear *l = qz_student_linear_at(c.student, 3);
        const size_t pieces = (size_t)qz_scheme_pieces(&uint3, l->n, l->k);
        check_ok(qz_qtensor_alloc(&fitted, &uint3, l->n, l->k, c.arena));
        check_ok(qz_op_fit_ranges(qz_backend_best(), &fitted, &l->weight));
        qz_student_round(c.student, true);
        check_ok(qz_student_begin_step(c.student, false)); /* an evaluation does not start them for good */
        train_case_step(&c, 3, 1e-2);
        cr_assert(memcmp(l->q.scales, fitted.scales, pieces * sizeof(float)) == 0);
        cr_assert(memcmp(l->q.zeros, fitted.zeros, pieces) == 0);
        train_case_step(&c, 4, 1e-2);
        cr_assert((memcmp(l->q.scales, fitted.scales, pieces * sizeof(float)) != 0) == (l->scale != NULL));
        train_case_free(&c);
    }
}

/* ---- LSQ+ ---- */

/* Where every weight lies below the grid, a larger zero lowers all values: the derivative is -scale each. */
Test(watch, offsets_move_against_their_gradient)
{
    train_case c = train_case_new(&uint3, NULL, NULL);
    train_case_start(
        &c, rule_of((qz_student_rounding){.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ}), 2);
    const qz_student_linear *l = qz_student_linear_at(c.student, 0);
    qz_f32(&l->offset->value)[0] = 1; /* nearly all that is negative is cut off */
    look(&c);
    double inside = 0, shifted = 0;
    const float *used = qz_f32(qz_var_value(c.student->step[0].rounded));
    for (int i = 0; i < 32; i++) inside += (double)used[i];
    memset(c.student->step[0].grad.data, 0, (size_t)(l->n * l->k) * sizeof(float));
    for (int i = 0; i < 32; i++) qz_f32(&c.student->step[0].grad)[i] = 1; /* loss: the sum of the values */
    qz_parameters_zero_gradients(qz_student_parameters(c.student));
    check_ok(qz_student_end_step(c.student));
    const float grad = qz_f32(&l->offset->grad)[0];
    cr_assert(grad < 0);
    qz_f32(&l->offset->value)[0] -= grad > 0 ? 1 : -1;
    look(&c);
    used = qz_f32(qz_var_value(c.student->step[0].rounded));
    for (int i = 0; i < 32; i++) shifted += (double)used[i];
    cr_assert(shifted < inside, "%g -> %g", inside, shifted);
    train_case_free(&c);
}

Test(watch, zeros_that_are_exported_are_the_trained_ones_rounded)
{
    train_case c = train_case_new(&uint3, NULL, NULL);
    int moved = 0;
    train_case_start(
        &c, rule_of((qz_student_rounding){.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ}), 2);
    for (int i = 0; i < 6; i++) train_case_step(&c, i, 0.1);
    for (int i = 0; i < qz_student_linears(c.student); i++) {
        const qz_student_linear *l = qz_student_linear_at(c.student, i);
        qz_qtensor q;
        check_ok(qz_student_codes(c.student, i, &q, c.arena));
        for (int64_t j = 0; j < qz_scheme_pieces(&uint3, l->n, l->k); j++) {
            const float trained = qz_f32(&l->offset->value)[j];
            const double rounded = rint(fmin(fmax((double)trained, 0), 7));
            cr_assert(q.zeros[j] == (uint8_t)rounded, "%g is stored as %d", (double)trained, q.zeros[j]);
            moved += trained != (float)rounded;
        }
    }
    cr_assert(moved > 0);
    train_case_free(&c);
}
