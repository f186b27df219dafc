/* Observers on golden/methods (float64 numpy): exactly from the sample, and within a stated distance from the log
 * histogram that calibration keeps instead of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoints/checkpoints.h"
#include "numeric/actgrid.h"
#include "quant/distribution.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fixture {
    qz_arena *arena;
    qz_safetensors *inputs;
    qz_json *json;
    const qz_json_node *root;
    qz_distribution sample, histogram;
} fixture;

static double number(const qz_json_node *at, const char *key)
{
    double out;
    check_ok(qz_json_number(qz_json_get(at, key), key, -1e300, 1e300, &out));
    return out;
}

static void setup(fixture *f)
{
    char *text, path[1024];
    size_t size;
    check_ok(qz_arena_new(&f->arena, "golden"));
    check_ok(qz_safetensors_open(&f->inputs, golden_path("methods/inputs.safetensors")));
    snprintf(path, sizeof path, "%s", golden_path("methods/observers.json"));
    check_ok(qz_file_read(&text, &size, path, 1 << 20, f->arena));
    check_ok(qz_json_parse(&f->json, text, size));
    f->root = qz_json_root(f->json);
    const qz_stored *s = qz_safetensors_find(f->inputs, "X");
    const int64_t count = qz_tensor_count(&s->view);
    float *x = qz_arena_array(f->arena, float, (size_t)count);
    check_ok(qz_convert(x, QZ_F32, s->view.data, s->view.dtype, count));
    const qz_tensor view = qz_tensor_2d(x, QZ_F32, s->view.shape[0], s->view.shape[1]);
    uint64_t *counts = qz_arena_calloc(f->arena, QZ_HISTOGRAM_BINS * sizeof *counts);
    check_ok(qz_op_histogram(qz_backend_best(), counts, &view));
    f->sample = (qz_distribution){
        .low = (float)number(f->root, "min"), .high = (float)number(f->root, "max"), .sample = x, .count = count};
    f->histogram = (qz_distribution){.low = f->sample.low, .high = f->sample.high, .histogram = counts};
}

static void teardown(fixture *f)
{
    qz_json_close(f->json);
    qz_safetensors_close(f->inputs);
    qz_arena_free(f->arena);
}

static const qz_act_scheme int8 = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127};

/* The larger side of the range that an observer gives. */
static float found(const char *name, const qz_distribution *d, qz_options options)
{
    float lo, hi;
    check_ok(qz_observer_at((size_t)qz_plugins_find(qz_observers(), name))->finish(&lo, &hi, d, &int8, &options));
    cr_assert(lo <= 0 && hi >= 0);
    return -lo > hi ? -lo : hi;
}

static qz_options options_of(const char *name)
{
    const qz_plugins *list = qz_observers();
    return qz_options_default(list->rows[qz_plugins_find(list, name)]->options);
}

Test(golden_observers, minmax)
{
    fixture f;
    setup(&f);
    cr_assert(found("minmax", &f.sample, options_of("minmax")) == (float)number(f.root, "absmax"));
    teardown(&f);
}

Test(golden_observers, percentile)
{
    fixture f;
    setup(&f);
    for (const qz_json_node *c = qz_json_first(f.root); c; c = qz_json_next(c)) {
        double percent;
        if (sscanf(qz_json_key(c), "percentile_%lf", &percent) != 1) continue;
        qz_options options = options_of("percentile");
        options.value[qz_options_index(options.table, "percent")] = percent;
        const double wanted = qz_json_double(c), exact = (double)found("percentile", &f.sample, options);
        const double coarse = (double)found("percentile", &f.histogram, options);
        printf("percentile %g: %.8g, expected %.8g; histogram %.8g\n", percent, exact, wanted, coarse);
        cr_assert(fabs(exact - wanted) <= TOL_ONE_PRODUCT * wanted, "%.9g, expected %.9g", exact, wanted);
        cr_assert(fabs(coarse - wanted) <= TOL_HISTOGRAM_BIN * wanted, "%.9g, expected %.9g", coarse, wanted);
    }
    teardown(&f);
}

/* Error of a threshold, from the sample. */
static double error_at(const fixture *f, float threshold)
{
    return qz_distribution_error(&f->sample, &int8, qz_act_values_of(-threshold, threshold, int8));
}

Test(golden_observers, mse)
{
    fixture f;
    setup(&f);
    const qz_json_node *mse = qz_json_get(f.root, "mse"), *errors = qz_json_get(mse, "errors");
    const double absmax = number(f.root, "absmax"), best = number(mse, "best_i");
    double least = INFINITY;
    int i = 1;
    for (const qz_json_node *c = qz_json_first(errors); c; c = qz_json_next(c), i++) {
        const double ours = error_at(&f, (float)(absmax * i / 200)), wanted = qz_json_double(c);
        cr_assert(fabs(ours - wanted) <= TOL_SUM_OF_ROUNDINGS * wanted, "%d: %.9g, expected %.9g", i, ours, wanted);
        least = fmin(least, wanted);
    }
    const float exact = found("mse", &f.sample, options_of("mse")),
                coarse = found("mse", &f.histogram, options_of("mse"));
    printf("mse: %g of 200, expected %g; histogram %g, its error %.6f of the least\n", (double)exact / absmax * 200,
           best, (double)coarse / absmax * 200, error_at(&f, coarse) / least);
    cr_assert(error_at(&f, exact) <= least * (1 + TOL_SUM_OF_ROUNDINGS), "not the least error");
    cr_assert(error_at(&f, coarse) <= least * (1 + TOL_HISTOGRAM_MSE));
    teardown(&f);
}

Test(golden_observers, entropy)
{
    fixture f;
    double bins[2048], coarse_bins[2048];
    int i = 0;
    setup(&f);
    const qz_json_node *entropy = qz_json_get(f.root, "entropy"), *at = qz_json_get(entropy, "kl_at");
    const double absmax = number(f.root, "absmax"), least = number(entropy, "kl_at_best");
    qz_distribution_linear(bins, 2048, &f.sample);
    qz_distribution_linear(coarse_bins, 2048, &f.histogram);
    for (const qz_json_node *c = qz_json_first(qz_json_get(entropy, "histogram")); c; c = qz_json_next(c), i++)
        cr_assert(bins[i] == qz_json_double(c), "bin %d holds %g, expected %g", i, bins[i], qz_json_double(c));
    for (const qz_json_node *c = qz_json_first(at); c; c = qz_json_next(c)) {
        const double ours = qz_observer_entropy_divergence(bins, atoi(qz_json_key(c)), &int8);
        cr_assert(fabs(ours - qz_json_double(c)) <= TOL_SAME_FP64, "%s: %.12g, expected %.12g", qz_json_key(c), ours,
                  qz_json_double(c));
    }
    const float exact = found("entropy", &f.sample, options_of("entropy"));
    const float coarse = found("entropy", &f.histogram, options_of("entropy"));
    const double its = qz_observer_entropy_divergence(bins, (int)lrint((double)coarse / absmax * 2048), &int8);
    printf("entropy: %.8g, expected %.8g; histogram %.8g, its divergence %.4g against %.4g\n", (double)exact,
           number(entropy, "threshold"), (double)coarse, its, least);
    const double found_at = qz_observer_entropy_divergence(bins, (int)lrint((double)exact / absmax * 2048), &int8);
    cr_assert(found_at <= least + TOL_SAME_FP64, "divergence %.12g, least %.12g", found_at, least);
    cr_assert(its <= least + TOL_HISTOGRAM_KL);
    teardown(&f);
}
