/* The "train" object: values, what a mode fills in, and each contradiction with its JSON path. */
#include "testing/recipe_case.h"

TestSuite(train, .init = setup, .fini = teardown);

/* Quantized training of all weights. */
static const char recipe[] = "{ \"version\": 1, \"model\": \"in\", \"output\": \"out\","
                             "  \"weights\": { \"format\": \"int3\", \"group\": 128, \"symmetric\": true },"
                             "  \"export\": { \"container\": \"box\" },"
                             "  \"train\": { \"data\": \"a.txt\", \"steps\": 100 },"
                             "  \"evaluate\": { \"data\": \"b.txt\" } }";

/* `recipe` with values set: "path=value". */
#define with(out, ...) recipe_with(out, recipe, (const char *const[]){__VA_ARGS__, NULL})

#define CALIBRATION "calibration.data=c.txt"

Test(train, defaults)
{
    qz_recipe *r;
    check_ok(with(&r, "version=1"));
    const qz_recipe_train *t = &r->train;
    cr_assert(t->wanted && r->weights.wanted);
    cr_assert_str_eq(t->data, "a.txt");
    cr_assert_str_eq(t->field, "text");
    cr_assert(t->pack == QZ_TRAIN_PACK_AUTO && t->start == QZ_TRAIN_FROM_MODEL && t->parameters == QZ_TRAIN_ALL);
    cr_assert(t->steps == 100 && t->batch == 8 && t->micro_batch == 8 && t->sequence_length == 512);
    cr_assert(t->seed == 0 && t->shuffle);
    cr_assert(t->learning_rate == 1e-4 && t->weight_decay == 0);
    cr_assert(t->scale_learning_rate == 0 && t->offset_learning_rate == 0, "there are none to learn");
    cr_assert(t->schedule == QZ_TRAIN_COSINE && t->warmup == 0.05 && t->final_rate == 0.1);
    cr_assert(t->beta1 == 0.9 && t->beta2 == 0.95 && t->epsilon == 1e-8 && t->clip_norm == 1);
    cr_assert(!t->moments_8bit && t->compute == QZ_F32 && !t->recompute);
    cr_assert(t->loss.cross_entropy == 1 && t->loss.divergence == 0 && t->loss.temperature == 1);
    cr_assert(!t->loss.teacher && !t->init && !qz_recipe_starts_from_ptq(r));
    cr_assert(t->quantizer.wanted && t->quantizer.method == QZ_TRAIN_STE && t->quantizer.scales == QZ_TRAIN_DYNAMIC);
    cr_assert(!t->quantizer.pass && !t->quantizer.learned_activations);
    cr_assert(t->quantizer.after == 0 && t->quantizer.freeze == 0);
    cr_assert_not(t->adapter.wanted);
    cr_assert(t->save_every == 200 && t->keep == 2 && t->evaluate_every == 0 && t->patience == 0 && !t->keep_best);
    check_canonical(r);
}

Test(train, a_recipe_without_it_is_as_before)
{
    qz_recipe *r;
    check_ok(with(&r, "train=null"));
    cr_assert_not(r->train.wanted);
    cr_assert_null(strstr(r->text, "train"));
    cr_assert(!r->train.quantizer.wanted && !r->train.adapter.wanted);
    check_canonical(r);
}

Test(train, values)
{
    qz_recipe *r;
    check_ok(
        with(&r, "activations={\"format\": \"int8\", \"mode\": \"static\"}",
             "train={\"data\": \"a.jsonl\", \"field\": \"t\", \"pack\": \"documents\", \"steps\": 9, \"batch\": 12,"
             "\"micro_batch\": 4, \"sequence_length\": 64, \"seed\": 7, \"shuffle\": false, \"learning_rate\": 0.5,"
             "\"scale_learning_rate\": 0.25, \"schedule\": \"linear\", \"warmup\": 0, \"final_rate\": 0,"
             "\"weight_decay\": 0.125, \"beta1\": 0.5, \"beta2\": 0.75, \"epsilon\": 1e-6, \"clip_norm\": 0,"
             "\"moments\": \"int8\", \"compute\": \"bf16\", \"recompute\": true, \"init\": \"folder\","
             "\"loss\": {\"cross_entropy\": 0, \"divergence\": 2, \"temperature\": 3, \"teacher\": \"big\"},"
             "\"quantizer\": {\"method\": \"lsq\", \"after\": 3, \"freeze\": 0.25, \"activations\": \"learned\"},"
             "\"save_every\": 5, \"keep\": 3, \"evaluate_every\": 2, \"patience\": 4, \"keep_best\": true,"
             "\"validation\": {\"data\": \"v.jsonl\", \"field\": \"v\", \"windows\": 0, \"sequence_length\": 32}}"));
    const qz_recipe_train *t = &r->train;
    cr_assert(t->pack == QZ_TRAIN_PACK_DOCUMENTS && t->batch == 12 && t->micro_batch == 4 && t->sequence_length == 64);
    cr_assert(t->seed == 7 && !t->shuffle && t->learning_rate == 0.5 && t->scale_learning_rate == 0.25);
    cr_assert(t->schedule == QZ_TRAIN_LINEAR && t->warmup == 0 && t->final_rate == 0 && t->weight_decay == 0.125);
    cr_assert(t->beta1 == 0.5 && t->beta2 == 0.75 && t->epsilon == 1e-6 && t->clip_norm == 0);
    cr_assert(t->moments_8bit && t->compute == QZ_BF16 && t->recompute);
    cr_assert(t->loss.cross_entropy == 0 && t->loss.divergence == 2 && t->loss.temperature == 3);
    cr_assert_str_eq(t->loss.teacher, "big");
    cr_assert_str_eq(t->init, "folder");
    cr_assert(t->quantizer.method == QZ_TRAIN_LSQ && t->quantizer.scales == QZ_TRAIN_LEARNED);
    cr_assert(t->quantizer.after == 3 && t->quantizer.freeze == 0.25 && t->quantizer.learned_activations);
    cr_assert(t->save_every == 5 && t->keep == 3 && t->evaluate_every == 2 && t->patience == 4 && t->keep_best);
    cr_assert_str_eq(t->validation.data, "v.jsonl");
    cr_assert_str_eq(t->validation.field, "v");
    cr_assert(t->validation.wanted && t->validation.windows == 0 && t->validation.sequence_length == 32);
    check_canonical(r);
}

/* What the mode fills in, and that 0 is a value where it can be given. */
Test(train, defaults_of_the_modes)
{
    qz_recipe *r;
    check_ok(with(&r, "train.start=random"));
    cr_assert(r->train.learning_rate == 1e-3 && r->train.weight_decay == 0.1 && r->train.steps == 100);
    check_ok(with(&r, "train.start=random", "train.steps=null"));
    cr_assert_eq(r->train.steps, 2000);
    check_ok(with(&r, "train.parameters=adapter", "train.steps=null"));
    cr_assert_eq(r->train.steps, 500);
    check_ok(with(&r, "train.steps=null"));
    cr_assert_eq(r->train.steps, 1000);
    check_canonical(r);
    check_ok(with(&r, "train.start=random", "train.weight_decay=0", "train.learning_rate=0.002"));
    cr_assert(r->train.weight_decay == 0 && r->train.learning_rate == 0.002);
    check_canonical(r);
    check_ok(with(&r, "train.parameters=adapter"));
    cr_assert(r->train.learning_rate == 2e-4 && r->train.adapter.wanted && !r->train.quantizer.wanted);
    check_canonical(r);
    check_ok(with(&r, "train.quantizer.method=lsq+", "weights.symmetric=false"));
    cr_assert_eq(r->train.quantizer.scales, QZ_TRAIN_LEARNED);
    cr_assert(r->train.scale_learning_rate == 1e-4);
    cr_assert_float_eq(r->train.offset_learning_rate, 5e-3, 1e-15);
    check_canonical(r);
    check_ok(with(&r, "train.quantizer.method=lsq", "train.learning_rate=0.002"));
    cr_assert(r->train.scale_learning_rate == 0.002 && r->train.offset_learning_rate == 0);
    check_ok(with(&r, "train.init=ptq"));
    cr_assert(qz_recipe_starts_from_ptq(r) && r->train.quantizer.scales == QZ_TRAIN_FROZEN);
    check_canonical(r);
}

Test(train, nothing_has_to_be_quantized)
{
    qz_recipe *r;
    const qz_recipe_weights *w;
    const qz_recipe_activations *a;
    check_ok(with(&r, "weights=null", "train.start=random"));
    cr_assert(!r->weights.wanted && !r->train.quantizer.wanted);
    cr_assert_not(qz_recipe_module(r, "model.layers.0.mlp.up_proj", &w, &a));
    cr_assert_null(strstr(r->text, "\"weights\""));
    check_canonical(r);
    check_fails(QZ_ARG, "weights: missing", with(&r, "weights=null", "train=null"));
    check_fails(QZ_ARG, "activations: nothing is quantized without \"weights\": add it",
                with(&r, "weights=null", "activations.format=int8"));
    check_fails(QZ_ARG, "overrides: nothing is quantized without",
                with(&r, "weights=null", "overrides=[{\"match\": [\"a\"], \"skip\": true}]"));
    check_fails(QZ_ARG, "train.quantizer: there is nothing to round without \"weights\"",
                with(&r, "weights=null", "train.quantizer.method=lsq"));
    check_fails(QZ_ARG, "train.init: nothing is rounded while training (there is no weights)",
                with(&r, "weights=null", "train.init=ptq"));
    check_fails(QZ_ARG, "train.parameters: there are no scales without \"weights\"",
                with(&r, "weights=null", "train.parameters=scales"));
}

Test(train, adapters)
{
    qz_recipe *r;
    check_ok(with(&r, "train.parameters=adapter", "train.adapter.base.format=nf4",
                  "train.adapter.base.double_quant=true", "train.adapter.start=loftq", "train.adapter.dropout=0.1",
                  "train.adapter.targets=[\"q_proj\", \"v_proj\"]"));
    const qz_recipe_adapter *a = &r->train.adapter;
    cr_assert(a->rank == 16 && a->alpha == 32 && a->dropout == 0.1 && !a->rslora && !a->merge_aware);
    cr_assert(a->loftq && a->loftq_iterations == 1 && a->targets.count == 2);
    cr_assert(a->base.wanted && a->base.format == QZ_FORMAT_NF4 && a->base.group == 64 && a->base.double_quant);
    cr_assert(a->base.symmetric && a->base.skip.count == 1);
    check_canonical(r);
    check_ok(with(&r, "train.parameters=adapter", "train.adapter.merge_aware=true", "train.adapter.rslora=true"));
    cr_assert(r->train.quantizer.wanted && !r->train.adapter.base.wanted);
    check_canonical(r);
    check_fails(QZ_ARG, "train.adapter: train.parameters does not ask for an adapter", with(&r, "train.adapter={}"));
    check_fails(QZ_ARG, "train.adapter.start: found \"loftq\", which makes good what quantizing the base loses",
                with(&r, "train.parameters=adapter", "train.adapter.start=loftq"));
    check_fails(QZ_ARG, "train.adapter.merge_aware: there is no scheme to round the merged weights by",
                with(&r, "train.parameters=adapter", "weights=null", "train.adapter.merge_aware=true"));
    check_fails(QZ_ARG, "train.adapter.dropout: found 0.5, but merge_aware",
                with(&r, "train.parameters=adapter", "train.adapter={\"merge_aware\": true, \"dropout\": 0.5}"));
    check_fails(QZ_ARG, "train.init: the merged weight changes with its adapter",
                with(&r, "train.parameters=adapter", "train.adapter.merge_aware=true", "train.init=folder"));
    check_fails(QZ_ARG, "train.quantizer.freeze: found 0.02, but codes of merged weights are not followed",
                with(&r, "train.parameters=adapter", "train.adapter.merge_aware=true", "train.quantizer.freeze=0.02"));
    check_fails(QZ_ARG, "train.quantizer.scales: the merged weight changes with its adapter",
                with(&r, "train.parameters=adapter", "train.adapter.merge_aware=true", "train.quantizer.method=lsq"));
    check_fails(QZ_ARG, "train.quantizer: an adapter is trained beside unrounded weights",
                with(&r, "train.parameters=adapter", "train.quantizer={}"));
    check_fails(QZ_ARG, "train.init: nothing is rounded while training (train.adapter.merge_aware is false)",
                with(&r, "train.parameters=adapter", "train.init=folder"));
    check_fails(QZ_ARG, "train.adapter.base.group: nf4 takes a group of 64, 128,",
                with(&r, "train.parameters=adapter", "train.adapter.base={\"format\": \"nf4\", \"group\": 96}"));
    check_fails(
        QZ_ARG, "train.adapter.base.double_quant: found true, but int4 has none",
        with(&r, "train.parameters=adapter", "train.adapter.base={\"format\": \"int4\", \"double_quant\": true}"));
    check_fails(QZ_ARG, "train.adapter.base.format: missing: as weights.format",
                with(&r, "train.parameters=adapter", "train.adapter.base={}"));
}

Test(train, quantizers)
{
    qz_recipe *r;
    check_ok(with(&r, "train.parameters=scales", "train.quantizer.method=lsq"));
    check_canonical(r);
    check_fails(QZ_ARG, "train.parameters: found \"scales\", but they are not learned",
                with(&r, "train.parameters=scales"));
    check_fails(QZ_ARG, "train.quantizer.scales: found \"learned\", but ste has no gradient of a scale",
                with(&r, "train.quantizer.scales=learned"));
    check_fails(QZ_ARG, "train.quantizer.scales: lsq learns the scales: set \"learned\"",
                with(&r, "train.quantizer={\"method\": \"lsq\", \"scales\": \"frozen\"}"));
    check_fails(QZ_ARG, "train.quantizer.scales: found \"dynamic\", which would throw the scales of train.init away",
                with(&r, "train.init=folder", "train.quantizer.scales=dynamic"));
    check_fails(QZ_ARG, "train.quantizer.gradient: found \"pass\", but lsq stops",
                with(&r, "train.quantizer={\"method\": \"lsq\", \"gradient\": \"pass\"}"));
    check_fails(QZ_ARG, "weights.symmetric: found true, but lsq+ learns zero points",
                with(&r, "train.quantizer.method=lsq+"));
    check_fails(QZ_ARG, "weights.format: found \"fp8_e4m3\", but scales are learned of integer formats only",
                with(&r, "train.quantizer.method=lsq", "weights={\"format\": \"fp8_e4m3\"}"));
    check_fails(
        QZ_ARG, "overrides.0.weights.format: found \"fp8_e4m3\", but scales are learned",
        with(&r, "train.quantizer.method=lsq",
             "overrides=[{\"match\": [\"a\"], \"weights\": {\"format\": \"fp8_e4m3\", \"group\": \"channel\"}}]"));
    check_fails(QZ_ARG, "train.quantizer.after: found 100, but training ends after 100 steps",
                with(&r, "train.quantizer.after=100"));
    check_fails(QZ_ARG, "train.quantizer.method: unknown method \"lqs\"; did you mean \"lsq\"?",
                with(&r, "train.quantizer.method=lqs"));
}

/* What qcal's methods are for when a recipe trains. */
Test(train, methods_of_qcal)
{
    qz_recipe *r;
    check_ok(with(&r, "train.init=ptq", "weights.solver=careful", "weights.range=shrink", "transforms=[\"turning\"]",
                  CALIBRATION));
    check_canonical(r);
    check_fails(QZ_ARG, "weights.solver: found \"careful\", but training rounds to nearest",
                with(&r, "weights.solver=careful", CALIBRATION));
    check_fails(QZ_ARG, "weights.range: found \"shrink\", but training takes its scales from the extremes",
                with(&r, "weights.range=shrink", CALIBRATION));
    check_fails(QZ_ARG, "transforms: they are fitted before training only with train.init \"ptq\"",
                with(&r, "transforms=[\"turning\"]"));
    check_fails(QZ_ARG, "weights.solver: the solver \"careful\" needs statistics of calibration text",
                with(&r, "train.init=ptq", "weights.solver=careful"));
}

#define SORTED "weights.solver={\"method\": \"careful\", \"order\": \"desc\"}"

/* A permutation has no place in a grid that is trained. */
Test(train, orders_of_a_solver)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "weights.solver.order: found \"desc\", whose groups are permuted",
                with(&r, "train.init=ptq", SORTED, CALIBRATION));
    check_fails(QZ_ARG, "overrides.0.weights.solver.order: found \"desc\"",
                with(&r, "train.init=ptq", CALIBRATION,
                     "overrides=[{\"match\": [\"a\"], \"weights\": {\"solver\": {\"method\": \"careful\", "
                     "\"order\": \"desc\"}}}]"));
    check_ok(with(&r, "train.init=ptq", SORTED, CALIBRATION, "weights.group=channel"));
    cr_assert(qz_weights_ordered(&r->weights));
    check_ok(
        with(&r, "train.init=ptq", CALIBRATION, "weights.solver={\"method\": \"careful\", \"order\": \"static\"}"));
    cr_assert_not(qz_weights_ordered(&r->weights));
    check_ok(with(&r, "train.parameters=adapter", SORTED, CALIBRATION));
}

#define TWICE "weights={\"format\": \"nf4\", \"double_quant\": true}"

/* Scales that are quantized themselves: stored or frozen, but not trained through. */
Test(train, scales_that_are_quantized)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "weights.double_quant: found true, but scales that are quantized themselves", with(&r, TWICE));
    check_fails(QZ_ARG, "weights.double_quant: found true",
                with(&r, TWICE, "train.parameters=adapter", "train.adapter.merge_aware=true"));
    check_fails(QZ_ARG, "overrides.0.weights.double_quant: found true",
                with(&r, "weights={\"format\": \"nf4\"}",
                     "overrides=[{\"match\": [\"a\"], \"weights\": {\"double_quant\": true}}]"));
    check_ok(with(&r, TWICE, "train.parameters=adapter"));
    check_ok(with(&r, "weights={\"format\": \"nf4\"}"));
}

#define STATIC "activations={\"format\": \"int8\", \"mode\": \"static\"}"
#define DYNAMIC "activations={\"format\": \"int8\"}"
#define ADAPTER "train.parameters=adapter", "train.adapter.base.format=nf4"

/* What nothing would come of is refused, with what it needs. */
Test(train, keys_without_effect)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "train.quantizer.activations: found \"learned\", but no activations have static scales",
                with(&r, "train.quantizer.activations=learned"));
    check_fails(QZ_ARG, "train.quantizer.activations: found", with(&r, "train.quantizer.activations=learned", DYNAMIC));
    check_fails(QZ_ARG, "train.scale_learning_rate: found 0.01, but no scales are learned",
                with(&r, "train.scale_learning_rate=0.01"));
    check_fails(QZ_ARG, "train.scale_learning_rate: found", with(&r, "train.scale_learning_rate=0.01", ADAPTER));
    check_fails(QZ_ARG, "train.scale_learning_rate: found",
                with(&r, "train.scale_learning_rate=0.01", "train.start=random", "weights=null"));
    check_fails(QZ_ARG, "train.offset_learning_rate: found 0.5, but only lsq+ learns zero points",
                with(&r, "train.offset_learning_rate=0.5", "train.quantizer.method=lsq"));
    check_fails(QZ_ARG, "train.loss.temperature: found 2, but it belongs to the divergence",
                with(&r, "train.loss.temperature=2"));
    check_fails(QZ_ARG, "train.adapter.loftq_iterations: found 3, but the adapter starts with zeros",
                with(&r, ADAPTER, "train.adapter.loftq_iterations=3"));
}

Test(train, the_same_keys_with_effect)
{
    qz_recipe *r;
    check_ok(with(&r, "train.quantizer.activations=learned", "train.scale_learning_rate=0.01", STATIC));
    check_canonical(r);
    check_ok(with(&r, "train.quantizer.activations=learned",
                  "overrides=[{\"match\": [\"a\"], \"activations\": {\"format\": \"int8\", \"mode\": "
                  "\"static\"}}]"));
    check_canonical(r);
    check_ok(with(&r, "train.scale_learning_rate=0.01", "train.quantizer.method=lsq"));
    check_ok(with(&r, "train.offset_learning_rate=0.5", "train.quantizer.method=lsq+", "weights.symmetric=false"));
    check_ok(with(&r, "train.loss.temperature=2", "train.loss.divergence=1"));
    check_ok(with(&r, ADAPTER, "train.adapter.start=loftq", "train.adapter.loftq_iterations=3"));
    check_ok(with(&r, ADAPTER, "train.loss.temperature=1", "train.adapter.loftq_iterations=1"));
}

/* Training that rounds sees the inputs and the cache itself. */
Test(train, static_scales_without_calibration)
{
    static const char *const inputs = "activations={\"format\": \"int8\", \"mode\": \"static\"}";
    static const char *const cache = "kv_cache={\"format\": \"fp8_e4m3\"}";
    qz_recipe *r;
    check_ok(with(&r, inputs, cache));
    check_fails(QZ_ARG, "calibration.data is missing", with(&r, inputs, "train.init=ptq"));
    check_fails(QZ_ARG, "calibration.data is missing", with(&r, cache, "train.init=ptq"));
    check_fails(QZ_ARG, "calibration.data is missing", with(&r, inputs, "train.parameters=adapter"));
    check_ok(with(&r, inputs, "train.parameters=adapter", "train.adapter.merge_aware=true"));
    check_fails(QZ_ARG, "calibration.data is missing", with(&r, inputs, "train=null"));
}

Test(train, losses_and_starts)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "train.loss: cross_entropy and divergence are both 0", with(&r, "train.loss.cross_entropy=0"));
    check_fails(QZ_ARG, "train.loss.teacher: a teacher is asked for the divergence only",
                with(&r, "train.loss.teacher=big"));
    check_fails(QZ_ARG, "train.loss.teacher: missing: the divergence from the model before training",
                with(&r, "train.start=random", "train.loss.divergence=1"));
    check_ok(with(&r, "train.start=random", "train.loss.divergence=1", "train.loss.teacher=big"));
    check_fails(QZ_ARG, "train.parameters: random weights have to be trained themselves",
                with(&r, "train.start=random", "train.parameters=adapter"));
    check_fails(QZ_ARG, "train.init: there is nothing to quantize in random weights",
                with(&r, "train.start=random", "train.init=ptq"));
}

#define VALIDATION "train.validation={\"data\": \"v.txt\"}"

/* Nothing is chosen on the text whose figures are reported. */
Test(train, what_is_judged_while_training)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "train.evaluate_every: train.validation is missing", with(&r, "train.evaluate_every=2"));
    check_fails(QZ_ARG, "train.patience: train.validation is missing", with(&r, "train.patience=2"));
    check_fails(QZ_ARG, "train.keep_best: train.validation is missing", with(&r, "train.keep_best=true"));
    check_fails(QZ_ARG, "train.patience: nothing is evaluated while training: set train.evaluate_every",
                with(&r, "train.patience=2", VALIDATION));
    check_fails(QZ_ARG, "train.keep_best: nothing is evaluated while training",
                with(&r, "train.keep_best=true", VALIDATION));
    check_fails(QZ_ARG, "train.validation.data: missing", with(&r, "train.validation={}"));
    check_fails(QZ_ARG, "train.validation.data: found the text of evaluate.data, \"v.txt\"",
                with(&r, VALIDATION, "evaluate={\"data\": \"v.txt\"}"));
    check_ok(with(&r, "train.evaluate_every=2", VALIDATION, "evaluate=null"));
    cr_assert(r->train.validation.windows == 16 && r->train.validation.sequence_length == 512);
    cr_assert_str_eq(r->train.validation.field, "text");
}

Test(train, steps_and_evaluations)
{
    qz_recipe *r;
    check_fails(QZ_ARG, "train.micro_batch: found 3, which does not divide train.batch, 8",
                with(&r, "train.micro_batch=3"));
    check_fails(QZ_ARG, "train.steps: found 0, expected an integer from 1", with(&r, "train.steps=0"));
    check_fails(QZ_ARG, "train.data: missing: text to train on", with(&r, "train.data=null"));
    check_fails(QZ_ARG, "evaluate.accept.layer_error: errors of layers are measured by `qcal run` only",
                with(&r, "evaluate.accept.layer_error=0.5", CALIBRATION));
    check_fails(QZ_ARG, "train.learning_rat: unknown key; did you mean \"learning_rate\"?",
                with(&r, "train.learning_rat=1"));
    check_fails(QZ_ARG, "outputs.0.train: a recipe that trains writes one checkpoint",
                with(&r, "outputs=[{\"output\": \"o\"}]"));
}
