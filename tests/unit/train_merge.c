/* What is exported of a student is what it was trained with, bit for bit: the rounded values that the forward pass
 * multiplies by, role by role, are those that the exported codes stand for. */
#include "base/rng.h"
#include "model_folder.h"
#include "quant/quant.h"
#include "train/student.h"

typedef struct merging {
    opened o;
    qz_scheme scheme;
    qz_export_plan plan;
    qz_student *student;
} merging;

static bool every(void *context, const char *module)
{
    return true;
}

static bool up_only(void *context, const char *module)
{
    return strstr(module, "up_proj") != NULL;
}

static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32, .double_quant = true};
enum { RANK = 4 };
static const float factor = 1.7f;

static void plan_all(merging *m)
{
    const int layers = (int)qz_model_config_of(m->o.model)->layers;
    qz_export_linear *list = qz_arena_calloc(m->o.arena, 64 * sizeof *list);
    m->plan = (qz_export_plan){.linear = list};
    for (int i = 0; i < layers; i++) {
        for (int j = 0; j < qz_model_linears(m->o.model, i); j++) {
            const qz_linear_place *p = qz_model_linear(m->o.model, i, j);
            list[m->plan.linears++] = (qz_export_linear){.module = qz_model_linear_name(m->o.model, i, j),
                                                         .n = p->n,
                                                         .k = p->k,
                                                         .layer = i,
                                                         .quantized = true,
                                                         .scheme = m->scheme};
        }
    }
}

/* As after some steps: no parameter of an adapter is zero. */
static void shake(qz_student *s)
{
    const qz_parameters *p = qz_student_parameters(s);
    qz_rng rng;
    qz_rng_seed(&rng, 11, 0);
    for (int i = 0; i < p->count; i++)
        for (int64_t j = 0; j < qz_tensor_count(&p->list[i].value); j++) {
            float *x = &qz_f32(&p->list[i].value)[j];
            if (p->list[i].group == QZ_PARAMETER_ADAPTER) *x = (float)(0.05 * qz_rng_normal(&rng));
            if (p->list[i].group == QZ_PARAMETER_MATRIX) *x += (float)(0.01 * qz_rng_normal(&rng));
            if (p->list[i].group == QZ_PARAMETER_SCALE || p->list[i].group == QZ_PARAMETER_OFFSET)
                *x *= (float)(1 + 0.05 * qz_rng_normal(&rng));
        }
}

static merging merging_new(const char *folder, const qz_scheme *scheme, const qz_student_adapters *adapters,
                           const qz_student_rounding *rounding)
{
    merging m = {.o = open_with(folder, qz_backend_best()), .scheme = *scheme};
    plan_all(&m);
    const qz_student_rule rule = {
        .train_weights = !adapters, .plan = &m.plan, .rounding = *rounding, .adapters = adapters};
    check_ok(qz_student_new(&m.student, m.o.model, &rule));
    shake(m.student);
    return m;
}

static void merging_free(merging *m)
{
    qz_student_free(m->student);
    close_model(&m->o);
}

/* ---- what the forward pass multiplies by ---- */

static void exported_values(const merging *m, int i, const qz_tensor *out)
{
    const qz_student_linear *l = qz_student_linear_at(m->student, i);
    qz_qtensor q;
    check_ok(qz_student_codes(m->student, i, &q, m->o.arena));
    qz_qtensor_dequantize(qz_f32(out), &q, 0, l->n);
}

static qz_status rounded_rows(qz_var **out, qz_tape *t, const qz_student_linear *l, int64_t first, int64_t rows,
                              qz_qtensor *grid, qz_arena *arena)
{
    qz_var *a, *b, *sum;
    const qz_tensor window = qz_tensor_rows(&l->b->value, first, rows);
    qz_packed *base = qz_arena_alloc(arena, sizeof *base);
    *base = qz_packed_window(l->base, first, rows);
    QZ_TRY(qz_qtensor_alloc(grid, &l->planned->scheme, rows, l->k, arena));
    QZ_TRY(qz_tape_leaf(&a, t, &l->a->value, &l->a->grad));
    QZ_TRY(qz_tape_leaf(&b, t, &window, NULL));
    QZ_TRY(qz_ag_low_rank(&sum, t, NULL, base, b, a, factor));
    const qz_ag_grid how = {.q = grid, .fit = true, .rule = QZ_STE_CLIP};
    return qz_ag_fake_quant(out, t, sum, &how);
}

/* The weight of one role, rounded on a tape as the forward pass does it, against the exported rows. */
static void same_rows(const merging *m, int layer, qz_role role)
{
    int64_t first, rows;
    int index = 0;
    for (int i = 0; i < layer; i++) index += qz_model_linears(m->o.model, i);
    index += qz_model_role_rows(m->o.model, layer, role, &first, &rows);
    const qz_student_linear *l = qz_student_linear_at(m->student, index);
    const qz_tensor exported = matrix(m->o.arena, l->n, l->k);
    qz_tape *t;
    qz_var *rounded;
    qz_qtensor grid;
    exported_values(m, index, &exported);
    check_ok(qz_tape_new(&t, qz_model_backend(m->o.model), false));
    check_ok(rounded_rows(&rounded, t, l, first, rows, &grid, m->o.arena));
    cr_assert(memcmp(qz_f32(&exported) + first * l->k, qz_var_value(rounded)->data, (size_t)(rows * l->k) * 4) == 0,
              "%s, role %d", l->module, (int)role);
    qz_tape_free(t);
}

static void check_merge_aware(const char *folder, const qz_scheme *scheme, const qz_scheme *base)
{
    const qz_student_adapters adapters = {
        .rank = RANK, .factor = factor, .wanted = every, .base = base, .merge_aware = true};
    merging m = merging_new(folder, scheme, &adapters, &(qz_student_rounding){.fit = true, .rule = QZ_STE_CLIP});
    for (int i = 0; i < qz_model_config_of(m.o.model)->layers; i++)
        for (int role = 0; role < QZ_ROLES; role++) same_rows(&m, i, (qz_role)role);
    merging_free(&m);
}

static const qz_scheme schemes[] = {
    {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F16},
    {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_BF16},
    {.format = QZ_FORMAT_INT4, .piece_rows = 1, .symmetric = true, .scale_type = QZ_F16},
    {.format = QZ_FORMAT_INT8, .piece_rows = 1, .symmetric = true, .scale_type = QZ_BF16},
    {.format = QZ_FORMAT_INT8, .piece_rows = 1, .piece_cols = 64, .scale_type = QZ_F16},
    {.format = QZ_FORMAT_INT3, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F16},
};
enum { SCHEMES = sizeof schemes / sizeof *schemes };

Test(merge, merge_aware_codes_are_what_was_trained)
{
    for (int i = 0; i < SCHEMES; i++) {
        check_merge_aware("tests/golden/models/llama", &schemes[i], &nf4);
        check_merge_aware("tests/golden/models/qwen2", &schemes[i], NULL);
    }
}

/* The forward pass rounds the rows of q, k and v apart; they are stored, and exported, as one. */
Test(merge, fused_linears_are_rounded_in_parts)
{
    for (int i = 0; i < SCHEMES; i++) check_merge_aware("tests/golden/models/phi3", &schemes[i], &nf4);
}

/* Linears without an adapter are part of the merged checkpoint, so training computes with their rounded values too. */
Test(merge, linears_without_an_adapter_are_rounded_once)
{
    const qz_student_adapters adapters = {
        .rank = RANK, .factor = factor, .wanted = up_only, .base = &nf4, .merge_aware = true};
    for (int i = 0; i < SCHEMES; i++) {
        merging m = merging_new("tests/golden/models/llama", &schemes[i], &adapters,
                                &(qz_student_rounding){.fit = true, .rule = QZ_STE_CLIP});
        for (int j = 0; j < qz_student_linears(m.student); j++) {
            const qz_student_linear *l = qz_student_linear_at(m.student, j);
            const qz_tensor exported = matrix(m.o.arena, l->n, l->k), used = matrix(m.o.arena, l->n, l->k);
            if (l->a) continue;
            exported_values(&m, j, &exported);
            check_ok(qz_student_weight(m.student, j, true, &used));
            cr_assert_arr_eq(exported.data, used.data, (size_t)(l->n * l->k) * 4, "%s", l->module);
        }
        merging_free(&m);
    }
}
