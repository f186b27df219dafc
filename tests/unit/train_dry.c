/* The plan's figures are those of the run: for every way of training, a dry student and stepper come to the same bytes
 * as the real ones, step after step, evaluations in between. */
#include <stdio.h>

#include "testing/train_case.h"

enum { SEQUENCES = 3, LENGTH = 12, TOKENS = SEQUENCES * LENGTH, STEPS = 3 };

static const qz_scheme int4 = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_F32};
static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32, .double_quant = true};
static const qz_act_scheme token = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};
static const qz_act_scheme fixed = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};
static const qz_kv_scheme kv8 = {.wanted = true, .format = QZ_FORMAT_INT8};

static bool every(void *context, const char *module)
{
    return true;
}

/* In the second layer only: the first one needs no gradient at all. */
static bool second(void *context, const char *module)
{
    return strstr(module, ".1.") != NULL;
}

static bool down(void *context, const char *module)
{
    return strstr(module, "down_proj") || strstr(module, "o_proj");
}

static const qz_student_adapters beside = {.rank = 4, .factor = 2, .dropout = 0.1f, .wanted = every},
                                 packed = {.rank = 4, .factor = 2, .wanted = second, .base = &nf4},
                                 merged = {.rank = 4, .factor = 2, .wanted = every, .merge_aware = true},
                                 partly = {.rank = 4, .factor = 2, .wanted = second, .merge_aware = true},
                                 skipping = {.rank = 4,
                                             .factor = 2,
                                             .wanted = second,
                                             .base = &nf4,
                                             .base_skips = down,
                                             .merge_aware = true};

typedef struct way {
    const char *name;
    qz_student_rule rule;
    bool rounds; /* weights, in int4 */
    const qz_act_scheme *inputs;
    const qz_kv_scheme *cache;
    bool half; /* of the linears are rounded */
    bool late; /* rounding starts with the second step */
    bool teacher;
} way;

static const way ways[] = {
    {"all", .rule = {.train_weights = true}},
    {"recompute", .rule = {.train_weights = true, .recompute = true}},
    {"watched", .rule = {.train_weights = true, .rounding = {.fit = true, .watch = true, .freeze = 0.1}},
     .rounds = true},
    {"teacher", .rule = {.train_weights = true}, .teacher = true},
    {"rounded", .rule = {.train_weights = true, .rounding = {.fit = true, .rule = QZ_STE_CLIP}}, .rounds = true,
     .late = true},
    {"learned",
     .rule = {.train_weights = true, .rounding = {.learn_scales = true, .learn_offsets = true, .rule = QZ_STE_LSQ}},
     .rounds = true, .inputs = &token},
    {"inputs and cache",
     .rule = {.train_weights = true, .recompute = true, .rounding = {.fit = true, .rule = QZ_STE_CLIP}}, .rounds = true,
     .inputs = &fixed, .cache = &kv8},
    {"scales alone", .rule = {.rounding = {.learn_scales = true, .rule = QZ_STE_LSQ}}, .rounds = true, .half = true},
    {"adapters", .rule = {.adapters = &beside}},
    {"adapters on NF4", .rule = {.adapters = &packed, .recompute = true}, .teacher = true},
    {"narrowed", .rule = {.train_weights = true, .plain_type = QZ_BF16}},
    {"narrowed values",
     .rule = {.train_weights = true,
              .recompute = true,
              .plain_type = QZ_F16,
              .plain_values = true,
              .rounding = {.fit = true}},
     .rounds = true, .half = true},
    {"narrowed beside scales", .rule = {.plain_type = QZ_BF16, .rounding = {.learn_scales = true, .rule = QZ_STE_LSQ}},
     .rounds = true, .half = true},
    {"merged in part", .rule = {.adapters = &partly, .plain_type = QZ_F16, .rounding = {.fit = true}}, .rounds = true,
     .half = true},
    {"merged values in part",
     .rule = {.adapters = &skipping, .plain_type = QZ_BF16, .plain_values = true, .rounding = {.fit = true}},
     .rounds = true, .half = true},
    {"merged adapters", .rule = {.adapters = &merged, .rounding = {.fit = true, .rule = QZ_STE_PASS}}, .rounds = true},
};
enum { WAYS = sizeof ways / sizeof *ways };

/* One of the two: students, steppers and teachers alike. */
typedef struct side {
    qz_student *student;
    qz_guide *guide;
    qz_stepper *stepper;
} side;

static side side_new(const qz_model *m, const way *w, const qz_export_plan *plan, bool dry)
{
    side s = {0};
    qz_student_rule rule = w->rule;
    const qz_step_rule step = {
        .micro_batch = 2, .cross_entropy = 1, .divergence = w->teacher ? 1 : 0, .temperature = 2};
    rule.plan = w->rounds ? plan : NULL;
    rule.dry = dry;
    check_ok(qz_student_new(&s.student, m, &rule));
    if (w->teacher) check_ok(qz_guide_new(&s.guide, m, dry));
    check_ok(qz_stepper_new(&s.stepper, s.student, s.guide, &step, dry));
    if (w->late) qz_student_round(s.student, false);
    return s;
}

static void side_free(side *s)
{
    qz_stepper_free(s->stepper);
    qz_guide_free(s->guide);
    qz_student_free(s->student);
}

static void same_bytes(const char *folder, const way *w, const char *when, const side *a, const side *b)
{
    const uint64_t step = qz_stepper_bytes(a->stepper), dry = qz_stepper_bytes(b->stepper);
    cr_assert(step == dry && step > 0, "%s, %s, %s: steps took %llu bytes, planned %llu", folder, w->name, when,
              (unsigned long long)step, (unsigned long long)dry);
    const uint64_t student = qz_student_bytes(a->student), planned = qz_student_bytes(b->student);
    cr_assert(student == planned, "%s, %s, %s: the student takes %llu bytes, planned %llu", folder, w->name, when,
              (unsigned long long)student, (unsigned long long)planned);
    if (a->guide) cr_assert(qz_guide_bytes(a->guide) == qz_guide_bytes(b->guide), "%s, %s: teacher", folder, w->name);
}

static void step_both(side *real, side *dry, int number)
{
    int32_t ids[TOKENS], labels[TOKENS];
    qz_step_loss loss;
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = (i * 7 + number * 13) % 160;
        labels[i] = (i + 1) % LENGTH ? (ids[i] + 7) % 160 : -100;
    }
    const qz_step_batch batch = {ids, labels, NULL, SEQUENCES, LENGTH};
    const qz_step_batch shape = {.sequences = SEQUENCES, .length = LENGTH};
    check_ok(qz_stepper_run(real->stepper, &batch, (uint64_t)number, &loss));
    cr_assert(loss.cross_entropy > 0);
    check_ok(qz_stepper_run(dry->stepper, &shape, (uint64_t)number, &loss));
    if (number != 1) return;
    check_ok(qz_stepper_judge(real->stepper, &batch, &loss, NULL));
    check_ok(qz_stepper_judge(dry->stepper, &shape, &loss, NULL));
}

static void check_way(const char *folder, const qz_model *m, const way *w, qz_arena *arena)
{
    qz_export_plan plan = train_plan(m, &int4, w->inputs, w->cache, arena);
    for (size_t i = 0; w->half && i < plan.linears; i += 2) ((qz_export_linear *)plan.linear)[i].quantized = false;
    side real = side_new(m, w, &plan, false), dry = side_new(m, w, &plan, true);
    for (int i = 0; i < STEPS; i++) {
        char when[32];
        snprintf(when, sizeof when, "step %d", i);
        if (i == 1) qz_student_round(real.student, true), qz_student_round(dry.student, true);
        step_both(&real, &dry, i);
        same_bytes(folder, w, when, &real, &dry);
    }
    side_free(&real);
    side_free(&dry);
}

static void check_folder(const char *folder)
{
    qz_ckpt *ckpt;
    qz_model *m;
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_ckpt_open(&ckpt, golden_path(folder)));
    check_ok(qz_model_open(&m, ckpt, qz_backend_best(), NULL));
    for (int i = 0; i < WAYS; i++) check_way(folder, m, &ways[i], arena);
    qz_model_close(m);
    qz_ckpt_close(ckpt);
    qz_arena_free(arena);
}

Test(dry, llama)
{
    check_folder("models/llama");
}

Test(dry, gemma2)
{
    check_folder("models/gemma2");
}

Test(dry, phi3)
{
    check_folder("models/phi3");
}

Test(dry, qwen2)
{
    check_folder("models/qwen2");
}

Test(dry, qwen3)
{
    check_folder("models/qwen3");
}
