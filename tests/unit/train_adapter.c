/* Adapters of a student: where they may be, LoftQ's start, the base alone, and that a packed base stays packed. */
#include <math.h>

#include "base/rng.h"
#include "model_folder.h"
#include "quant/quant.h"
#include "testing/tolerances.h"
#include "train/step.h"

static const qz_scheme nf4 = {.format = QZ_FORMAT_NF4, .flat = 64, .scale_type = QZ_F32, .double_quant = true};
static const qz_scheme int2 = {
    .format = QZ_FORMAT_INT2, .piece_rows = 1, .piece_cols = 32, .symmetric = false, .scale_type = QZ_F32};

static bool every(void *context, const char *module)
{
    return true;
}

static bool up_only(void *context, const char *module)
{
    return strstr(module, "up_proj") != NULL;
}

static bool none(void *context, const char *module)
{
    return false;
}

static qz_student *student_of(const opened *o, const qz_student_adapters *adapters)
{
    qz_student *s;
    const qz_student_rule rule = {.adapters = adapters};
    check_ok(qz_student_new(&s, o->model, &rule));
    return s;
}

/* ---- where they may be ---- */

static void refused(const qz_student_adapters *adapters, const char *part)
{
    opened o = open_model("tests/golden/models/llama");
    qz_student *s;
    const qz_student_rule rule = {.adapters = adapters};
    check_fails(QZ_ARG, part, qz_student_new(&s, o.model, &rule));
    cr_assert(s == NULL);
    close_model(&o);
}

Test(adapters, targets_that_match_nothing)
{
    refused(&(qz_student_adapters){.rank = 2, .factor = 1, .wanted = none},
            "train.adapter.targets: none of them matches a linear of the model, for instance "
            "\"model.layers.0.self_attn.q_proj\"");
}

Test(adapters, a_rank_larger_than_the_matrix)
{
    const qz_student_adapters large = {.rank = 65, .factor = 1, .wanted = every};
    refused(&large, "rank 65 is larger than the matrix (64, 64)");
    refused(&large, "choose a smaller train.adapter.rank");
}

Test(adapters, only_where_they_are_wanted)
{
    opened o = open_model("tests/golden/models/llama");
    qz_student *s = student_of(&o, &(qz_student_adapters){.rank = 2, .factor = 1, .wanted = up_only});
    int found = 0;
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        cr_assert((l->a != NULL) == (strstr(l->module, "up_proj") != NULL), "%s", l->module);
        found += l->a != NULL;
    }
    cr_assert(found == qz_model_config_of(o.model)->layers);
    cr_assert(qz_student_parameters(s)->count == 2 * found);
    qz_student_free(s);
    close_model(&o);
}

/* ---- LoftQ ---- */

static void weight_of(const qz_student *s, int i, bool merged, const qz_tensor *out)
{
    check_ok(qz_student_weight(s, i, merged, out));
}

/* Sum over all linears of |W - (Q + f B A)|^2. */
static double distance(const opened *o, const qz_student *s)
{
    double sum = 0;
    for (int i = 0; i < qz_student_linears(s); i++) {
        const qz_student_linear *l = qz_student_linear_at(s, i);
        const qz_tensor w = matrix(o->arena, l->n, l->k), mine = matrix(o->arena, l->n, l->k);
        check_ok(qz_ckpt_read_weight(o->ckpt, l->module, l->n, l->k, w.data, o->arena));
        weight_of(s, i, true, &mine);
        for (int64_t j = 0; j < l->n * l->k; j++) {
            const double d = (double)qz_f32(&w)[j] - (double)qz_f32(&mine)[j];
            sum += d * d;
        }
    }
    return sum;
}

static double distance_after(const opened *o, const qz_scheme *base, int64_t loftq)
{
    qz_student *s =
        student_of(o, &(qz_student_adapters){.rank = 8, .factor = 2, .wanted = every, .base = base, .loftq = loftq});
    const double found = distance(o, s);
    qz_student_free(s);
    return found;
}

Test(adapters, loftq_makes_good_what_the_base_loses)
{
    const qz_scheme *bases[] = {&nf4, &int2};
    opened o = open_with("tests/golden/models/llama", qz_backend_best());
    for (int i = 0; i < 2; i++) {
        const double zeros = distance_after(&o, bases[i], 0), once = distance_after(&o, bases[i], 1),
                     often = distance_after(&o, bases[i], 5);
        cr_assert(once < 0.8 * zeros, "base %d: %g, with zeros %g", i, once, zeros);
        cr_assert(often < once, "base %d: %g after five turns, %g after one", i, often, once);
    }
    close_model(&o);
}

/* After one turn the base is the rounded weight, and the adapter the best of its rank for what is left. */
Test(adapters, loftq_begins_with_the_rounded_weight)
{
    opened o = open_with("tests/golden/models/llama", qz_backend_best());
    const qz_student_adapters zeros = {.rank = 4, .factor = 1, .wanted = up_only, .base = &nf4};
    qz_student_adapters loftq = zeros;
    loftq.loftq = 1;
    qz_student *a = student_of(&o, &zeros), *b = student_of(&o, &loftq);
    for (int i = 0; i < qz_student_linears(a); i++) {
        const qz_student_linear *l = qz_student_linear_at(a, i);
        const qz_tensor x = matrix(o.arena, l->n, l->k), y = matrix(o.arena, l->n, l->k);
        weight_of(a, i, false, &x);
        weight_of(b, i, false, &y);
        cr_assert_arr_eq(x.data, y.data, (size_t)(l->n * l->k) * 4, "%s", l->module);
    }
    qz_student_free(a);
    qz_student_free(b);
    close_model(&o);
}

Test(adapters, loftq_finds_the_same_base_again)
{
    opened o = open_with("tests/golden/models/phi3", qz_backend_best());
    const qz_student_adapters how = {.rank = 4, .factor = 2, .wanted = every, .base = &nf4, .loftq = 3};
    qz_student *a = student_of(&o, &how), *b = student_of(&o, &how);
    for (int i = 0; i < qz_student_linears(a); i++) {
        const qz_student_linear *l = qz_student_linear_at(a, i);
        const qz_tensor x = matrix(o.arena, l->n, l->k), y = matrix(o.arena, l->n, l->k);
        weight_of(a, i, true, &x);
        weight_of(b, i, true, &y);
        cr_assert_arr_eq(x.data, y.data, (size_t)(l->n * l->k) * 4, "%s", l->module);
    }
    qz_student_free(a);
    qz_student_free(b);
    close_model(&o);
}

/* ---- the base alone ---- */

enum { SEQUENCES = 2, LENGTH = 12 };

static double loss_of(qz_student *s)
{
    int32_t ids[SEQUENCES * LENGTH], labels[SEQUENCES * LENGTH];
    qz_rng rng;
    qz_stepper *stepper;
    qz_step_loss loss;
    qz_rng_seed(&rng, 5, 0);
    for (int i = 0; i < SEQUENCES * LENGTH; i++) ids[i] = (int32_t)qz_rng_below(&rng, 160);
    for (int i = 0; i < SEQUENCES * LENGTH; i++) labels[i] = (i + 1) % LENGTH ? ids[i + 1] : -100;
    const qz_step_rule rule = {.micro_batch = SEQUENCES, .cross_entropy = 1, .temperature = 1};
    const qz_step_batch batch = {ids, labels, NULL, SEQUENCES, LENGTH};
    check_ok(qz_stepper_new(&stepper, s, NULL, &rule, false));
    check_ok(qz_stepper_judge(stepper, &batch, &loss, NULL));
    qz_stepper_free(stepper);
    return loss.cross_entropy;
}

Test(adapters, switched_off_they_leave_the_base)
{
    opened o = open_with("tests/golden/models/llama", qz_backend_best());
    const qz_student_adapters zeros = {.rank = 4, .factor = 1, .wanted = every, .base = &nf4};
    qz_student_adapters loftq = zeros;
    loftq.loftq = 1;
    qz_student *base = student_of(&o, &zeros), *s = student_of(&o, &loftq);
    const double alone = loss_of(base), with = loss_of(s);
    qz_student_adapt(s, false);
    cr_assert(loss_of(s) == alone);
    qz_student_adapt(s, true);
    cr_assert(loss_of(s) == with && with != alone);
    qz_student_free(base);
    qz_student_free(s);
    close_model(&o);
}

/* Roles are windows of a matrix that is stored, and packed, as one; plain matrices are such windows too. */
Test(adapters, backends_agree_on_windows_of_a_base)
{
    const qz_scheme *bases[] = {NULL, &nf4, &int2};
    for (int i = 0; i < 3; i++) {
        double loss[2];
        for (int j = 0; j < 2; j++) {
            opened o = open_with("tests/golden/models/phi3", j ? ref_backend() : qz_backend_best());
            qz_student *s =
                student_of(&o, &(qz_student_adapters){.rank = 4, .factor = 1, .wanted = every, .base = bases[i]});
            loss[j] = loss_of(s);
            qz_student_free(s);
            close_model(&o);
        }
        cr_assert(fabs(loss[0] / loss[1] - 1) < TOL_TRAIN_LOSS, "base %d: %.9g and %.9g", i, loss[0], loss[1]);
    }
}

/* ---- a packed base stays packed ---- */

/* Of a training step on sequences of two tokens, so that what depends on their number is small. */
static uint64_t step_bytes(const opened *o, const qz_student_adapters *adapters, bool dry, uint64_t *held)
{
    enum { TOKENS = 2 };
    const int32_t ids[TOKENS] = {1, 2}, labels[TOKENS] = {2, -100};
    qz_student *s;
    qz_stepper *stepper;
    qz_step_loss loss;
    const qz_student_rule how = {.adapters = adapters, .dry = dry};
    const qz_step_rule rule = {.micro_batch = 1, .cross_entropy = 1, .temperature = 1};
    const qz_step_batch batch = {ids, labels, NULL, 1, TOKENS};
    check_ok(qz_student_new(&s, o->model, &how));
    check_ok(qz_stepper_new(&stepper, s, NULL, &rule, dry));
    check_ok(qz_stepper_run(stepper, &batch, 0, &loss));
    const uint64_t bytes = qz_stepper_bytes(stepper);
    *held = qz_student_bytes(s);
    qz_stepper_free(stepper);
    qz_student_free(s);
    return bytes;
}

static uint64_t numbers_of(const opened *o)
{
    uint64_t sum = 0;
    for (int i = 0; i < qz_model_config_of(o->model)->layers; i++)
        for (int j = 0; j < qz_model_linears(o->model, i); j++) {
            const qz_linear_place *p = qz_model_linear(o->model, i, j);
            sum += (uint64_t)(p->n * p->k);
        }
    return sum;
}

Test(adapters, no_dequantized_base_is_kept)
{
    opened o = open_with("demo/model", qz_backend_best());
    const qz_student_adapters how = {.rank = 4, .factor = 1, .wanted = every, .base = &nf4};
    uint64_t held, again;
    const uint64_t step = step_bytes(&o, &how, false, &held), plan = step_bytes(&o, &how, true, &again);
    const uint64_t numbers = numbers_of(&o);
    cr_assert(step == plan && held == again);
    /* a dequantized copy would be 4 bytes a number; a tile is a sixteenth of it here, logits are the rest */
    cr_assert(step < numbers, "%llu bytes, %llu numbers", (unsigned long long)step, (unsigned long long)numbers);
    /* the adapters with their gradients, 4.127 bits a number, and the embeddings in fp32 */
    const uint64_t adapters = 2 * 4 * (uint64_t)qz_model_config_of(o.model)->layers * 4 *
                              (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 768));
    const uint64_t rest = 4096 * 256 * 4 + 9 * 256 * 4;
    cr_assert(held >= adapters + rest && held <= adapters + rest + (uint64_t)((double)numbers * 4.13 / 8), "%llu bytes",
              (unsigned long long)held);
    close_model(&o);
}
