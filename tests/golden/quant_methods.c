/* Losses of methods on golden/methods (float64 numpy, no library): tr(D G D^T) = |X D^T|^2 of our result, summed here
 * in double, is at most 1.01 of the reference's. Bits, symmetry and group come from a case's name, sizes from the file:
 *
 *     rtn_int<bits>_<sym|asym>_<g<group>|channel>   also scales and codes
 *     awq_x_g<group>, awq_xw_g<group>               our scales under AutoAWQ's quantizer, which is repeated here
 *     awq_zero_point_rtn_g<group>                   that repetition itself
 *     awq_clip_g<group>                             the range clip
 *     weighted_mse_int<bits>_<sym|asym>_g<group>    the range mse
 *     gptq_int<bits>_<sym|asym>_<g<group>|channel>  order natural; _actorder: desc; _static_actorder: static; _stale
 *                                                   (scales of a block's old weights): static too, which must beat it
 * Methods that come later are listed as skipped. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoints/checkpoints.h"
#include "quant/quant.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef struct fixture {
    qz_arena *arena;
    const qz_backend *backend;
    qz_safetensors *inputs, *rtn;
    qz_json *json;
    qz_tensor w, x; /* (N, K), (T, K) F32 */
    qz_stats stats;
    int64_t n, k, t;
} fixture;

static qz_tensor widened(fixture *f, const char *name)
{
    const qz_stored *s = qz_safetensors_find(f->inputs, name);
    cr_assert(s != NULL && s->view.ndim == 2, "inputs.safetensors has no matrix %s", name);
    const int64_t count = qz_tensor_count(&s->view);
    float *data = qz_arena_array(f->arena, float, (size_t)count);
    check_ok(qz_convert(data, QZ_F32, s->view.data, s->view.dtype, count));
    return qz_tensor_2d(data, QZ_F32, s->view.shape[0], s->view.shape[1]);
}

static void setup(fixture *f)
{
    char *text, path[1024];
    size_t size;
    *f = (fixture){.backend = qz_backend_best()};
    check_ok(qz_arena_new(&f->arena, "golden"));
    check_ok(qz_safetensors_open(&f->inputs, golden_path("methods/inputs.safetensors")));
    check_ok(qz_safetensors_open(&f->rtn, golden_path("methods/rtn.safetensors")));
    snprintf(path, sizeof path, "%s", golden_path("methods/losses.json"));
    check_ok(qz_file_read(&text, &size, path, 1 << 20, f->arena));
    check_ok(qz_json_parse(&f->json, text, size));
    f->w = widened(f, "W");
    f->x = widened(f, "X");
    f->n = f->w.shape[0], f->k = f->w.shape[1], f->t = f->x.shape[0];
    check_ok(qz_stats_new(&f->stats, f->k, (qz_stats_wants){0}, 1, 1, f->arena));
    check_ok(qz_stats_add(&f->stats, f->backend, &f->x));
    check_ok(qz_stats_finish(&f->stats));
}

static void teardown(fixture *f)
{
    qz_json_close(f->json);
    qz_safetensors_close(f->inputs);
    qz_safetensors_close(f->rtn);
    qz_arena_free(f->arena);
}

static double *doubles(fixture *f, int64_t count)
{
    double *out = qz_arena_array(f->arena, double, (size_t)count);
    cr_assert(out != NULL);
    return out;
}

/* |X (Q - W)^T|^2. */
static double loss_of(const fixture *f, const double *q /* (N, K) */)
{
    double sum = 0;
    for (int64_t n = 0; n < f->n; n++)
        for (int64_t t = 0; t < f->t; t++) {
            double y = 0;
            for (int64_t k = 0; k < f->k; k++) {
                const int64_t i = n * f->k + k;
                y += (q[i] - (double)qz_f32(&f->w)[i]) * (double)qz_f32(&f->x)[t * f->k + k];
            }
            sum += y * y;
        }
    return sum;
}

static double loss_of_qtensor(fixture *f, const qz_qtensor *q)
{
    float *values = qz_arena_array(f->arena, float, (size_t)(f->n * f->k));
    double *wide = doubles(f, f->n * f->k);
    qz_qtensor_dequantize(values, q, 0, f->n);
    check_ok(qz_convert(wide, QZ_F64, values, QZ_F32, f->n * f->k));
    return loss_of(f, wide);
}

static void at_most(const char *name, double ours, double theirs)
{
    printf("%-26s ours %.8g, reference %.8g, ratio %.5f\n", name, ours, theirs, ours / theirs);
    cr_assert(ours <= theirs * (1 + TOL_METHOD_LOSS), "%s: our loss %.9g is %.4f of %.9g", name, ours, ours / theirs,
              theirs);
}

static qz_scheme scheme_of(int bits, bool symmetric, int64_t group)
{
    char format[16];
    snprintf(format, sizeof format, "int%d", bits);
    return (qz_scheme){.format = qz_format_find(format),
                       .piece_rows = 1,
                       .piece_cols = group,
                       .symmetric = symmetric,
                       .scale_type = QZ_F32};
}

static qz_qtensor solved_by(fixture *f, qz_scheme scheme, const char *range, const char *solver, int order)
{
    const qz_range *r = qz_range_at((size_t)qz_plugins_find(qz_ranges(), range));
    const qz_solver *s = qz_solver_at((size_t)qz_plugins_find(qz_solvers(), solver));
    qz_solve_info info;
    const qz_solve_args args = {.backend = f->backend,
                                .weight = f->w,
                                .stats = &f->stats,
                                .scheme = scheme,
                                .range = r,
                                .range_options = qz_options_default(r->plugin.options),
                                .solver_options = {s->plugin.options, {order}}};
    qz_qtensor q;
    check_ok(s->solve(&q, &info, &args, f->arena));
    return q;
}

static qz_qtensor solved(fixture *f, qz_scheme scheme, const char *range)
{
    return solved_by(f, scheme, range, "rtn", 0);
}

/* ---- rtn ---- */

static const void *rtn_data(const fixture *f, const char *name, const char *part, int64_t count)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const qz_stored *s = qz_safetensors_find(f->rtn, full);
    cr_assert(s != NULL && qz_tensor_count(&s->view) == count, "%s", full);
    return s->view.data;
}

/* Equal codes; in a tie one apart, for the reference divides in double. Which way a group's largest magnitude goes (it
 * is always a tie when symmetric) moves the loss of small matrices by percents, so the reference's way is taken then.
 */
static void check_codes(const fixture *f, qz_qtensor *q, const char *name)
{
    const int64_t cols = qz_scheme_scale_cols(&q->scheme, f->k), group = f->k / cols;
    const float *scale = rtn_data(f, name, "scale", f->n * cols), *w = qz_f32(&f->w);
    const uint8_t *zero = rtn_data(f, name, "zero", f->n * cols), *code = rtn_data(f, name, "codes", f->n * f->k);
    for (int64_t i = 0; i < f->n * f->k; i++) {
        const int64_t piece = i / f->k * cols + i % f->k / group;
        const double ratio = w[i] / (double)scale[piece], to_tie = fabs(fabs(ratio - floor(ratio)) - 0.5);
        const int ours = q->codes[i] - (q->zeros ? q->zeros[piece] : zero[piece]), theirs = code[i] - zero[piece];
        if (w[i] != 0)
            cr_assert(fabs((double)q->scales[piece] - scale[piece]) <= TOL_ONE_PRODUCT * scale[piece], "%s", name);
        cr_assert(ours == theirs || (abs(ours - theirs) == 1 && to_tie < TOL_TIE), "%s: code %ld is %d, expected %d",
                  name, (long)i, ours, theirs);
    }
    memcpy(q->codes, code, (size_t)(f->n * f->k));
    if (q->zeros) memcpy(q->zeros, zero, (size_t)(f->n * cols));
}

static bool check_rtn(fixture *f, const char *name, double theirs)
{
    int bits;
    char symmetry[8], pieces[16];
    long group = 0;
    if (sscanf(name, "rtn_int%d_%7[a-z]_%15s", &bits, symmetry, pieces) != 3) return false;
    if (strcmp(pieces, "channel") != 0 && sscanf(pieces, "g%ld", &group) != 1) return false;
    qz_qtensor q = solved(f, scheme_of(bits, strcmp(symmetry, "sym") == 0, group), "minmax");
    check_codes(f, &q, name);
    at_most(name, loss_of_qtensor(f, &q), theirs);
    return true;
}

/* Their best of 80 shrinks by diag(G) against ours by the group's block of G. */
static bool check_mse(fixture *f, const char *name, double theirs)
{
    int bits;
    char symmetry[8];
    long group;
    if (sscanf(name, "weighted_mse_int%d_%7[a-z]_g%ld", &bits, symmetry, &group) != 3) return false;
    const qz_qtensor q = solved(f, scheme_of(bits, strcmp(symmetry, "sym") == 0, group), "mse");
    at_most(name, loss_of_qtensor(f, &q), theirs);
    return true;
}

/* ---- gptq ---- */

static bool check_gptq(fixture *f, const char *name, double theirs)
{
    static const struct {
        const char *suffix;
        int order; /* of the solver's choices */
    } variants[] = {{"", 0}, {"_actorder", 3}, {"_static_actorder", 1}, {"_stale", 1}};
    int bits;
    char symmetry[8], rest[48];
    long group = 0;
    if (sscanf(name, "gptq_int%d_%7[a-z]_%47s", &bits, symmetry, rest) != 3) return false;
    const char *suffix = strchr(rest, '_');
    if (sscanf(rest, "g%ld", &group) != 1 && strncmp(rest, "channel", 7) != 0) return false;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if (strcmp(suffix ? suffix : "", variants[i].suffix) != 0) continue;
        const qz_scheme scheme = scheme_of(bits, strcmp(symmetry, "sym") == 0, group);
        const qz_qtensor q = solved_by(f, scheme, "minmax", "gptq", variants[i].order);
        at_most(name, loss_of_qtensor(f, &q), theirs);
        return true;
    }
    return false;
}

/* ---- awq ---- */

/* AutoAWQ's quantizer of one group: 4 bits, the range is max - min and need not hold 0. */
static void pseudo(double *out, const double *w, int64_t group)
{
    double lo = w[0], hi = w[0];
    for (int64_t i = 1; i < group; i++) {
        lo = fmin(lo, w[i]);
        hi = fmax(hi, w[i]);
    }
    const double s = fmax(hi - lo, 1e-5) / 15, z = fmin(fmax(-rint(lo / s), 0), 15);
    for (int64_t i = 0; i < group; i++) out[i] = (fmin(fmax(rint(w[i] / s) + z, 0), 15) - z) * s;
}

/* The loss of Q(W s) / s. */
static double pseudo_loss(fixture *f, const float *scale, int64_t group)
{
    double *w = doubles(f, f->n * f->k), *q = doubles(f, f->n * f->k);
    for (int64_t i = 0; i < f->n * f->k; i++) w[i] = (double)qz_f32(&f->w)[i] * (double)scale[i % f->k];
    for (int64_t i = 0; i < f->n * f->k; i += group) pseudo(q + i, w + i, group);
    for (int64_t i = 0; i < f->n * f->k; i++) q[i] /= (double)scale[i % f->k];
    return loss_of(f, q);
}

static bool check_search(fixture *f, const char *name, double theirs)
{
    char variant[4];
    long group;
    if (sscanf(name, "awq_%3[xw]_g%ld", variant, &group) != 2) return false;
    const qz_range *minmax = qz_range_at((size_t)qz_plugins_find(qz_ranges(), "minmax"));
    const qz_search_weight weight = {.weight = f->w, .range = minmax};
    const qz_search_args args = {.backend = f->backend,
                                 .weight = &weight,
                                 .weights = 1,
                                 .stats = &f->stats,
                                 .scheme = scheme_of(4, false, group),
                                 .grid = 20,
                                 .weight_means = strcmp(variant, "xw") == 0};
    qz_search_result found = {.scale = qz_arena_array(f->arena, float, (size_t)f->k)};
    check_ok(qz_scale_search(&found, &args, f->arena));
    at_most(name, pseudo_loss(f, found.scale, group), theirs);
    return true;
}

static bool check_pseudo(fixture *f, const char *name, double theirs)
{
    long group;
    if (sscanf(name, "awq_zero_point_rtn_g%ld", &group) != 1) return false;
    float *ones = qz_arena_array(f->arena, float, (size_t)f->k);
    for (int64_t k = 0; k < f->k; k++) ones[k] = 1;
    const double ours = pseudo_loss(f, ones, group);
    cr_assert(fabs(ours - theirs) <= TOL_SAME_FP64 * theirs, "%s: %.12g, expected %.12g", name, ours, theirs);
    return true;
}

static bool check_clip(fixture *f, const char *name, double theirs)
{
    long group;
    if (sscanf(name, "awq_clip_g%ld", &group) != 1) return false;
    const qz_qtensor q = solved(f, scheme_of(4, false, group), "clip");
    at_most(name, loss_of_qtensor(f, &q), theirs);
    return true;
}

static bool (*const checks[])(fixture *f, const char *name, double theirs) = {check_rtn,    check_pseudo, check_clip,
                                                                              check_search, check_gptq,   check_mse};
enum { CHECKS = sizeof checks / sizeof checks[0] };

Test(golden_methods, losses)
{
    fixture f;
    int compared = 0;
    setup(&f);
    const qz_json_node *losses = qz_json_get(qz_json_root(f.json), "losses");
    for (const qz_json_node *c = qz_json_first(losses); c; c = qz_json_next(c)) {
        int i = 0;
        qz_arena_mark mark = qz_arena_save(f.arena);
        while (i < CHECKS && !checks[i](&f, qz_json_key(c), qz_json_double(c))) i++;
        qz_arena_restore(f.arena, mark);
        compared += i < CHECKS;
        if (i == CHECKS) printf("skipped: %s (a later method)\n", qz_json_key(c));
    }
    cr_assert(compared > 0, "nothing in losses.json was compared");
    printf("compared: %d losses of %s; skipped: observers.json (a later method)\n", compared, golden_path("methods"));
    teardown(&f);
}

/* Our own measure, fp32 sums in G and in the quadratic form, against the reference. */
Test(golden_methods, our_own_loss_is_the_same)
{
    fixture f;
    double loss, energy, wanted;
    setup(&f);
    check_ok(qz_json_number(qz_json_get(qz_json_root(f.json), "output_energy"), "output_energy", 0, 1e300, &wanted));
    const qz_qtensor q = solved(&f, scheme_of(4, false, 32), "clip");
    check_ok(qz_output_loss(&loss, &energy, f.backend, &f.w, &q, &f.stats, f.arena));
    cr_assert(fabs(energy - wanted) <= TOL_LOSS_F32 * wanted, "energy %.9g, expected %.9g", energy, wanted);
    wanted = loss_of_qtensor(&f, &q);
    cr_assert(fabs(loss - wanted) <= TOL_LOSS_F32 * wanted, "loss %.9g, expected %.9g", loss, wanted);
    teardown(&f);
}
