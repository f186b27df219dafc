/* Static scales of inputs and of the cache in training: averages, learned ones, and what must not change them. */
#include <math.h>
#include <stdlib.h>

#include "numeric/actgrid.h"
#include "testing/train_case.h"
#include "train/student_parts.h"

static const qz_scheme int4 = {
    .format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F32};
static const qz_act_scheme fixed = {
    .mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127.5f};
static const qz_act_scheme shifted = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .divisor = 127.5f};
static const qz_act_scheme fp8 = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_FP8_E4M3, .symmetric = true};
static const qz_kv_scheme cache8 = {.wanted = true, .format = QZ_FORMAT_INT8, .per_head = true};
static const qz_kv_scheme cache_one = {.wanted = true, .format = QZ_FORMAT_FP8_E4M3};

static const qz_student_rule plain_rule = {.train_weights = true, .rounding = {.fit = true, .rule = QZ_STE_CLIP}};

typedef struct seen {
    float low, high;
} seen;

/* Extremes of the first input of layer 0 over sequences [first, first + count) of the case's batch: the first linears
 * read it, and it depends on nothing that is rounded. */
static seen look(train_case *c, int first, int count)
{
    seen s = {0};
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "look"));
    const qz_student_linear *l = qz_student_linear_at(c->student, 0);
    cr_assert(l->layer == 0 && l->input == 0);
    qz_parameter *table = qz_parameters_find(qz_student_parameters(c->student), "model.embed_tokens.weight");
    qz_parameter *norm = qz_parameters_find(qz_student_parameters(c->student), "model.layers.0.input_layernorm.weight");
    cr_assert(table && norm);
    const int64_t width = table->value.shape[1];
    float *data = qz_arena_array(arena, float, (size_t)(count * TRAIN_LENGTH * width));
    const qz_tensor x = qz_tensor_2d(data, QZ_F32, count * TRAIN_LENGTH, width);
    check_ok(qz_op_embedding(qz_backend_best(), &x, &table->value, c->ids + first * TRAIN_LENGTH));
    check_ok(qz_op_rmsnorm(qz_backend_best(), &x, &x, &norm->value, (float)qz_model_config_of(c->model)->norm_eps, 0));
    for (int64_t i = 0; i < qz_tensor_count(&x); i++) {
        s.low = data[i] < s.low ? data[i] : s.low;
        s.high = data[i] > s.high ? data[i] : s.high;
    }
    qz_arena_free(arena);
    return s;
}

static void same_range(const train_case *c, float low, float high)
{
    const qz_student_range *r = c->student->input[0].range;
    cr_assert(r->low == low && r->high == high, "[%.9g, %.9g], expected [%.9g, %.9g]", (double)r->low, (double)r->high,
              (double)low, (double)high);
}

Test(points, averages_follow_the_batches)
{
    for (int recompute = 0; recompute < 2; recompute++) {
        train_case c = train_case_new(&int4, &fixed, &cache8);
        qz_student_rule rule = plain_rule;
        rule.recompute = recompute;
        train_case_start(&c, rule, 1);
        train_case_learn(&c, 0);
        const seen a = look(&c, 0, 1), b = look(&c, 1, 1);
        const float low = a.low + 0.01f * (b.low - a.low), high = a.high + 0.01f * (b.high - a.high);
        same_range(&c, low, high);
        train_case_judge(&c, 9);
        same_range(&c, low, high);
        qz_act_values v;
        check_ok(qz_student_activation(c.student, 0, &v));
        cr_assert(v.scale == qz_act_values_of(low, high, fixed).scale && v.zero == 0);
        train_case_free(&c);
    }
}

static void copy_state(const train_case *c, qz_student_range *range, float *cache)
{
    const qz_model_config *m = qz_model_config_of(c->model);
    memcpy(range, c->student->range, (size_t)(m->layers * c->student->inputs) * sizeof *range);
    memcpy(cache, c->student->cache, (size_t)(2 * m->layers * m->kv_heads) * sizeof *cache);
}

Test(points, recomputation_sees_the_same_values)
{
    qz_student_range range[2][64] = {0};
    float cache[2][64] = {0};
    double loss[2];
    for (int recompute = 0; recompute < 2; recompute++) {
        train_case c = train_case_new(&int4, &shifted, &cache_one);
        qz_student_rule rule = plain_rule;
        rule.recompute = recompute;
        train_case_start(&c, rule, 1);
        for (int i = 0; i < 3; i++) train_case_step(&c, i, 1e-3);
        loss[recompute] = c.loss.loss;
        copy_state(&c, range[recompute], cache[recompute]);
        train_case_free(&c);
    }
    cr_assert(loss[0] == loss[1]);
    cr_assert(memcmp(range[0], range[1], sizeof range[0]) == 0);
    cr_assert(memcmp(cache[0], cache[1], sizeof cache[0]) == 0);
}

Test(points, evaluations_before_the_first_batch_take_their_own_extremes)
{
    train_case c = train_case_new(&int4, &fixed, &cache8);
    train_case_start(&c, plain_rule, 2);
    const double before = train_case_judge(&c, 0);
    qz_act_values v;
    float key[8], value[8];
    cr_assert(isnan(c.student->input[0].range->low));
    cr_assert(isfinite(before));
    check_fails(QZ_ARG, "no batch was seen", qz_student_activation(c.student, 0, &v));
    check_fails(QZ_ARG, "no batch was seen", qz_student_kv(c.student, 0, key, value));
    train_case_learn(&c, 0);
    cr_assert(c.loss.cross_entropy == before, "the first batch counts whole: %.17g, %.17g", c.loss.cross_entropy,
              before);
    train_case_free(&c);
}

Test(points, scales_of_the_cache)
{
    for (int i = 0; i < 2; i++) {
        const qz_kv_scheme *kv = i ? &cache8 : &cache_one;
        train_case c = train_case_new(&int4, NULL, kv);
        float key[8], value[8];
        train_case_start(&c, plain_rule, 2);
        train_case_learn(&c, 0);
        check_ok(qz_student_kv(c.student, 1, key, value));
        cr_assert(c.plan.kv_heads == 2);
        cr_assert(key[0] > 0 && value[0] > 0);
        cr_assert((key[0] == key[1]) == !kv->per_head);
        cr_assert((value[0] == value[1]) == !kv->per_head);
        train_case_free(&c);
    }
}

Test(points, averages_gather_while_rounding_is_off)
{
    train_case c = train_case_new(&int4, &fixed, &cache8), plain = train_case_new(&int4, NULL, NULL);
    train_case_start(&c, plain_rule, 2);
    train_case_start(&plain, (qz_student_rule){.train_weights = true}, 2);
    qz_student_round(c.student, false);
    qz_student_round(plain.student, false);
    train_case_learn(&c, 0);
    train_case_learn(&plain, 0);
    cr_assert(c.loss.loss == plain.loss.loss);
    const seen a = look(&c, 0, 2);
    same_range(&c, a.low, a.high);
    train_case_free(&c);
    train_case_free(&plain);
}

/* ---- learned ---- */

static qz_student_rule learned_rule(void)
{
    qz_student_rule rule = plain_rule;
    rule.rounding.learn_activations = true;
    return rule;
}

Test(points, learned_scales_start_from_what_was_seen)
{
    train_case c = train_case_new(&int4, &shifted, NULL);
    train_case_start(&c, learned_rule(), 2);
    const qz_parameter *p =
        qz_parameters_find(qz_student_parameters(c.student), "model.layers.0.self_attn.q_proj.input_scale");
    cr_assert(p && p->group == QZ_PARAMETER_SCALE);
    qz_student_round(c.student, false);
    train_case_step(&c, 0, 1e-3);
    cr_assert(*qz_f32(&p->value) == 0);
    qz_student_round(c.student, true);
    train_case_learn(&c, 1);
    const qz_student_range *r = c.student->input[0].range;
    const qz_act_values v = qz_act_values_of(r->low, r->high, shifted);
    cr_assert(*qz_f32(&p->value) == v.scale && r->zero == (float)v.zero && r->started == 1);
    cr_assert(*qz_f32(&p->grad) != 0);
    train_case_free(&c);
}

/* Steps against the sign of the gradient, which is not the slope of a step function but points the same way where much
 * is cut off. */
Test(points, gradients_of_learned_scales_lower_the_loss)
{
    const qz_act_scheme *schemes[] = {&fixed, &shifted, &fp8};
    for (int i = 0; i < 3; i++) {
        train_case c = train_case_new(&int4, schemes[i], NULL);
        qz_student_rule rule = learned_rule();
        train_case_start(&c, rule, 2);
        train_case_learn(&c, 0);
        const qz_parameters *all = qz_student_parameters(c.student);
        double norm = 0;
        for (int j = 0; j < all->count; j++) { /* too small by far: most inputs are cut off */
            if (!strstr(all->list[j].name, ".input_scale")) continue;
            *qz_f32(&all->list[j].value) *= 0.05f;
            norm++;
        }
        cr_assert(norm == 8, "four inputs in each of two layers, %g", norm);
        train_case_learn(&c, 0);
        const double before = c.loss.loss;
        for (int step = 0; step < 5; step++) {
            for (int j = 0; j < all->count; j++) {
                if (!strstr(all->list[j].name, ".input_scale")) continue;
                float *scale = qz_f32(&all->list[j].value);
                *scale *= *qz_f32(&all->list[j].grad) < 0 ? 1.1f : 1 / 1.1f;
            }
            train_case_learn(&c, 0);
        }
        cr_assert(c.loss.loss < before, "%g -> %g", before, c.loss.loss);
        train_case_free(&c);
    }
}

Test(points, micro_batches_add_up_to_the_gradient)
{
    float grad[2];
    for (int i = 0; i < 2; i++) {
        train_case c = train_case_new(&int4, &fixed, NULL);
        train_case_start(&c, learned_rule(), 2);
        train_case_learn(&c, 0); /* starts from both sequences */
        train_case_stop(&c);
        train_case_start(&c, learned_rule(), i ? 1 : 2);
        const qz_parameters *p = qz_student_parameters(c.student);
        for (int j = 0; j < p->count; j++)
            if (strstr(p->list[j].name, ".input_scale")) *qz_f32(&p->list[j].value) = 0.01f;
        for (int j = 0; j < 8; j++) c.student->range[j] = (qz_student_range){-1, 1, 0, 1};
        train_case_learn(&c, 0);
        grad[i] = *qz_f32(&c.student->input[1].scale->grad);
        train_case_free(&c);
    }
    cr_assert(grad[0] != 0);
    cr_assert_float_eq(grad[0], grad[1], 1e-4 * fabsf(grad[0]), "%g %g", (double)grad[0], (double)grad[1]);
}

Test(points, linears_of_one_input_must_agree)
{
    train_case c = train_case_new(&int4, &fixed, NULL);
    qz_student_rule rule = plain_rule;
    ((qz_export_linear *)(uintptr_t)c.plan.linear)[1].activation.mode = QZ_ACT_TOKEN;
    rule.plan = &c.plan;
    check_fails(QZ_ARG, "read the same input", qz_student_new(&c.student, c.model, &rule));
    train_case_free(&c);
}
