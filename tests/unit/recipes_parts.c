/* Weights' groups and formats, activations, the cache, statistics, acceptance: values, defaults, and what is refused.
 */
#include "testing/recipe_case.h"

TestSuite(parts, .init = setup, .fini = teardown);

/* FAKE_RECIPE with values set: "path=value". */
#define with(out, ...) recipe_with(out, FAKE_RECIPE, (const char *const[]){__VA_ARGS__, NULL})

Test(parts, groups_become_pieces)
{
    static const struct {
        const char *set;
        int64_t rows, cols;
    } cases[] = {{"weights.group=channel", 1, 0}, {"weights.group=tensor", 0, 0}, {"weights.group=block", 128, 128}};
    qz_recipe *r;
    for (size_t i = 0; i < 3; i++) {
        check_ok(with(&r, "weights.format=fp8_e4m3", cases[i].set));
        qz_scheme s = qz_weights_scheme(&r->weights, QZ_BF16);
        cr_assert_eq(s.piece_rows, cases[i].rows);
        cr_assert_eq(s.piece_cols, cases[i].cols);
        cr_assert(s.symmetric && s.scale_type == QZ_BF16 && s.format == QZ_FORMAT_FP8_E4M3);
        check_canonical(r);
    }
    check_ok(with(&r, "weights.group=tensor"));
    cr_assert_eq(qz_weights_scheme(&r->weights, QZ_F16).piece_rows, 0);
    check_ok(with(&r, "weights.group=64"));
    cr_assert_eq(qz_weights_scheme(&r->weights, QZ_F16).piece_cols, 64);
    check_fails(QZ_ARG, "weights.group: found \"block\", but int4 takes a number of inputs, \"channel\" or \"tensor\"",
                with(&r, "weights.group=block"));
    check_fails(QZ_ARG, "weights.group: found 128, but fp8_e4m3 takes \"channel\", \"tensor\" or \"block\"",
                with(&r, "weights.format=fp8_e4m3"));
    check_fails(QZ_ARG, "\"tensor\" (one for all) or \"block\" (one for 128 x 128)", with(&r, "weights.group=row"));
}

Test(parts, codebooks)
{
    qz_recipe *r;
    check_ok(with(&r, "weights.format=nf4", "weights.group=null"));
    cr_assert_eq(r->weights.group, 64);
    cr_assert(r->weights.symmetric && !r->weights.double_quant);
    check_ok(with(&r, "weights.format=fp4", "weights.double_quant=true"));
    cr_assert_eq(r->weights.group, 128);
    cr_assert(qz_weights_scheme(&r->weights, QZ_F32).double_quant);
    check_canonical(r);
    check_fails(QZ_ARG, "weights.group: nf4 takes a group of 64, 128,",
                with(&r, "weights.format=nf4", "weights.group=channel"));
    check_fails(QZ_ARG, "weights.group: nf4 takes a group of 64, 128,",
                with(&r, "weights.format=nf4", "weights.group=96"));
    check_fails(QZ_ARG, "weights.symmetric: found false, but nf4 has no zero points",
                with(&r, "weights.format=nf4", "weights.symmetric=false"));
    check_fails(QZ_ARG, "weights.double_quant: found true, but int4 has none: it is for nf4 and fp4 (from --set)",
                with(&r, "weights.double_quant=true"));
}

Test(parts, what_a_failing_solver_does)
{
    qz_recipe *r;
    check_ok(with(&r, "weights.group=64"));
    cr_assert_not(r->weights.fall_back);
    check_ok(with(&r, "weights.on_failure=rtn"));
    cr_assert(r->weights.fall_back);
    check_canonical(r);
    check_fails(QZ_ARG, "weights.on_failure: unknown on_failure \"rnt\"; did you mean \"rtn\"? There are: stop, rtn",
                with(&r, "weights.on_failure=rnt"));
}

Test(parts, activations_are_not_rounded_unless_asked)
{
    qz_recipe *r;
    check_ok(with(&r, "weights.group=64"));
    cr_assert_eq(r->activations.mode, QZ_ACT_NONE);
    cr_assert_not(r->kv_cache.scheme.wanted);
    cr_assert_null(strstr(r->text, "\"mode\""));
}

Test(parts, dynamic_activations)
{
    qz_recipe *r;
    check_ok(with(&r, "activations={\"format\": \"int8\"}"));
    cr_assert_eq(r->activations.mode, QZ_ACT_TOKEN);
    cr_assert_eq(r->activations.format, QZ_FORMAT_INT8);
    cr_assert(r->activations.symmetric && !r->activations.observer.name);
    check_canonical(r);
    check_ok(with(&r, "activations.format=fp8_e4m3", "activations.group=128"));
    cr_assert_eq(r->activations.mode, QZ_ACT_GROUP);
    cr_assert_eq(r->activations.group, 128);
    check_canonical(r);
    check_ok(with(&r, "activations.format=int8", "calibration=null", "transforms=[]", "weights.range=plain"));
    check_fails(QZ_ARG, "activations.observer: dynamic scales are not observed: leave the key out",
                with(&r, "activations.format=int8", "activations.observer=tail"));
    check_fails(QZ_ARG, "activations.format: missing", with(&r, "activations={}"));
    check_fails(QZ_ARG, "activations.format: unknown format \"int4\"", with(&r, "activations.format=int4"));
    check_fails(QZ_ARG, "activations.mode: unknown mode \"statik\"; did you mean \"static\"?",
                with(&r, "activations.format=int8", "activations.mode=statik"));
    check_fails(QZ_ARG, "activations.group: found 0, expected an integer from 1",
                with(&r, "activations.format=int8", "activations.group=0"));
    check_fails(QZ_ARG, "activations.symmetric: found false, but fp8_e5m2 has no zero points",
                with(&r, "activations.format=fp8_e5m2", "activations.symmetric=false"));
}

Test(parts, static_activations)
{
    qz_recipe *r;
    check_ok(with(&r, "activations={\"format\": \"int8\", \"mode\": \"static\", \"symmetric\": false}"));
    cr_assert_eq(r->activations.mode, QZ_ACT_TENSOR);
    cr_assert_not(r->activations.symmetric);
    cr_assert_str_eq(r->activations.observer.name, "auto");
    cr_assert_eq(r->activations.observer.index, -1);
    check_canonical(r);
    check_ok(with(&r, "activations={\"format\": \"fp8_e4m3\", \"mode\": \"static\", \"observer\": {\"method\": "
                      "\"tail\", \"share\": 0.75}}"));
    cr_assert_eq(r->activations.observer.index, 1);
    cr_assert_eq(qz_options_number(&r->activations.observer.options, "share"), 0.75);
    check_canonical(r);
    check_fails(QZ_ARG, "activations.observer: unknown observer \"tale\"; did you mean \"tail\"?",
                with(&r, "activations={\"format\":\"int8\",\"mode\":\"static\",\"observer\":\"tale\"}"));
    check_fails(QZ_ARG, "activations.group: found 128, but static activations have one scale for all",
                with(&r, "activations={\"format\":\"int8\",\"mode\":\"static\",\"group\":128}"));
    check_fails(QZ_ARG, "activations.mode: static scales need statistics of calibration text, but calibration.data",
                with(&r, "activations={\"format\":\"int8\",\"mode\":\"static\"}", "calibration=null", "transforms=[]",
                     "weights.range=plain"));
}

Test(parts, cache)
{
    qz_recipe *r;
    check_ok(with(&r, "kv_cache.format=fp8_e4m3"));
    cr_assert(r->kv_cache.scheme.wanted && !r->kv_cache.scheme.per_head);
    cr_assert_eq(r->kv_cache.scheme.format, QZ_FORMAT_FP8_E4M3);
    cr_assert_str_eq(r->kv_cache.observer.name, "extremes");
    check_canonical(r);
    check_ok(with(&r, "kv_cache={\"format\": \"int8\", \"granularity\": \"head\", \"observer\": \"tail\"}"));
    cr_assert(r->kv_cache.scheme.per_head && r->kv_cache.observer.index == 1);
    check_canonical(r);
    check_fails(QZ_ARG, "kv_cache.format: missing", with(&r, "kv_cache={}"));
    check_fails(QZ_ARG, "kv_cache.granularity: unknown granularity \"token\"",
                with(&r, "kv_cache={\"format\": \"int8\", \"granularity\": \"token\"}"));
    check_fails(QZ_ARG, "kv_cache: scales need statistics of calibration text, but calibration.samples is 0",
                with(&r, "kv_cache.format=int8", "calibration.samples=0", "transforms=[]", "weights.range=plain"));
}

Test(parts, calibration_and_statistics)
{
    qz_recipe *r;
    check_ok(with(&r, "weights.group=64"));
    cr_assert_eq(r->calibration.propagate, QZ_PROPAGATE_AUTO);
    cr_assert_eq(r->calibration.expert_tokens, 256);
    cr_assert_eq(r->statistics.type, QZ_F32);
    cr_assert_eq(r->statistics.layers.count, 0);
    check_ok(with(&r, "calibration.propagate=original", "calibration.expert_tokens=0", "statistics.type=f16",
                  "statistics.layers=[\"model.layers.1\"]"));
    cr_assert_eq(r->calibration.propagate, QZ_PROPAGATE_ORIGINAL);
    cr_assert_eq(r->calibration.expert_tokens, 0);
    cr_assert_eq(r->statistics.type, QZ_F16);
    cr_assert_str_eq(r->statistics.layers.pattern[0], "model.layers.1");
    check_canonical(r);
    check_fails(QZ_ARG, "calibration.propagate: unknown propagate \"quantised\"; did you mean \"quantized\"?",
                with(&r, "calibration.propagate=quantised"));
}

Test(parts, acceptance)
{
    qz_recipe *r;
    check_ok(with(&r, "evaluate.accept={\"kl\": 0.05, \"top1_agreement\": 0.9, \"layer_error\": 0.2}"));
    cr_assert_eq(r->evaluate.accept_perplexity_ratio, 0);
    cr_assert_eq(r->evaluate.accept_kl, 0.05);
    cr_assert_eq(r->evaluate.accept_top1, 0.9);
    cr_assert_eq(r->evaluate.accept_layer_error, 0.2);
    check_canonical(r);
    check_fails(QZ_ARG, "evaluate.accept.kl: this figure is not evaluated: evaluate.data: missing",
                with(&r, "evaluate={\"accept\": {\"kl\": 0.05}}"));
    check_fails(QZ_ARG, "evaluate.accept.top1_agreement: found 1.5, expected a number from 0.001 to 1",
                with(&r, "evaluate.accept.top1_agreement=1.5"));
    check_fails(
        QZ_ARG, "evaluate.accept.layer_error: layer errors are measured on the calibration text, but",
        with(&r, "evaluate.accept.layer_error=0.1", "calibration=null", "transforms=[]", "weights.range=plain"));
    check_fails(QZ_ARG, "evaluate.accept.top1: unknown key \"top1\"; there are: perplexity_ratio, kl,",
                with(&r, "evaluate.accept.top1=0.5"));
}
