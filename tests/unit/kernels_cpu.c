/* The parts of `cpu` that have a bound of their own: the exponential, the OpenBLAS door, values at the edges. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu_blas.h"
#include "kernels/cpu_tiles.h"
#include "kernels/cpu_wide.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

/* Distance in units in the last place of the fp32 next to `want`. */
static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    if (exponent < -125) exponent = -125;
    return fabs((double)got - want) / ldexp(1, exponent - 24);
}

Test(kernels_cpu, exp_is_within_its_bound)
{
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x42b20000; bits += 211) { /* 0 .. 89 */
        for (int sign = 0; sign < 2; sign++) {
            const float x = sign ? -qz_float_from_bits(bits) : qz_float_from_bits(bits);
            const double want = exp((double)x);
            if (want > FLT_MAX) continue;
            const double error = ulps(qz_fast_exp(x), want);
            cr_assert(error <= TOL_EXP_ULP, "exp(%.9g) = %.9g, is %.9g: %.2f ulp", x, want, qz_fast_exp(x), error);
            worst = fmax(worst, error);
        }
    }
    cr_log_info("exp: %.3f ulp", worst);
}

Test(kernels_cpu, exp_in_double)
{
    double worst = 0;
    for (double x = 0; x > -700; x -= 0.00317) {
        const double want = exp(x), error = fabs(qz_fast_exp_double(x) - want) / want;
        cr_assert(error <= TOL_EXP_DOUBLE, "exp(%.17g) = %.17g, is %.17g", x, qz_fast_exp_double(x), want);
        worst = fmax(worst, error);
    }
    cr_log_info("exp in double: %.3g", worst);
    cr_assert(qz_fast_exp_double(0) == 1 && qz_fast_exp_double(-0.0) == 1);
    cr_assert(qz_fast_exp_double(-700.5) == 0 && qz_fast_exp_double(-INFINITY) == 0);
    cr_assert(isnan(qz_fast_exp_double(NAN)));
}

Test(kernels_cpu, exp_at_the_edges)
{
    cr_assert(qz_fast_exp(0) == 1 && qz_fast_exp(-0.0f) == 1);
    cr_assert(isinf(qz_fast_exp(88.73f)) && isinf(qz_fast_exp(1e30f)) && isinf(qz_fast_exp(INFINITY)));
    cr_assert(qz_fast_exp(-104.5f) == 0 && qz_fast_exp(-1e30f) == 0 && qz_fast_exp(-INFINITY) == 0);
    cr_assert(qz_fast_exp(-103) > 0);
    cr_assert(isnan(qz_fast_exp(NAN)));
}

Test(kernels_cpu, exp_grows)
{
    for (float x = -104; x < 88; x += 0.01f) cr_assert(qz_fast_exp(x + 0.01f) >= qz_fast_exp(x), "at %.9g", x);
}

/* The variants for wide registers make the bits of the scalar function. */
Test(kernels_cpu, swiglu_equals_its_scalar_formula)
{
    enum { COUNT = 100003 };
    static float gate[COUNT], up[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++) {
        gate[i] = (float)(i - COUNT / 2) * 2e-3f;
        up[i] = 1 + (float)(i % 13);
    }
    qz_tensor g = qz_tensor_2d(gate, QZ_F32, 1, COUNT), u = qz_tensor_2d(up, QZ_F32, 1, COUNT);
    qz_tensor out = qz_tensor_2d(y, QZ_F32, 1, COUNT);
    check_ok(qz_op_swiglu(qz_backend_at(1), &out, &g, &u));
    for (int i = 0; i < COUNT; i++) {
        const float want = gate[i] / (1 + qz_fast_exp(-gate[i])) * up[i];
        cr_assert(y[i] == want, "gate %.9g: %.9g, scalar %.9g", gate[i], y[i], want);
    }
}

Test(kernels_cpu, swiglu_of_extreme_gates)
{
    float gate[] = {0, -0.0f, 30, -30, -87, -90, -1e30f, 1e30f, INFINITY, NAN}, y[10], up[10];
    for (int i = 0; i < 10; i++) up[i] = 1;
    qz_tensor g = qz_tensor_2d(gate, QZ_F32, 1, 10), u = qz_tensor_2d(up, QZ_F32, 1, 10),
              out = qz_tensor_2d(y, QZ_F32, 1, 10);
    for (size_t b = 0; b < 2; b++) {
        check_ok(qz_op_swiglu(qz_backend_at(b), &out, &g, &u));
        cr_assert(y[0] == 0 && y[1] == 0 && y[2] == 30 && fabsf(y[3]) < 3e-12f && fabsf(y[4]) < 1e-35f);
        cr_assert(fabsf(y[5]) < 1e-36f && y[6] == 0 && y[7] == 1e30f && isinf(y[8]) && isnan(y[9]));
    }
}

Test(kernels_cpu, tanh_is_within_its_bound)
{
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x41200000; bits += 173) { /* 0 .. 10 */
        const float x = qz_float_from_bits(bits);
        const double error = ulps(qz_fast_tanh(x), tanh((double)x));
        cr_assert(error <= TOL_TANH_ULP, "tanh(%.9g) = %.9g: %.2f ulp", x, qz_fast_tanh(x), error);
        cr_assert(qz_fast_tanh(-x) == -qz_fast_tanh(x));
        worst = fmax(worst, error);
    }
    cr_log_info("tanh: %.3f ulp", worst);
    cr_assert(qz_fast_tanh(INFINITY) == 1 && qz_fast_tanh(-1e30f) == -1 && isnan(qz_fast_tanh(NAN)));
}

Test(kernels_cpu, geglu_of_extreme_gates)
{
    float gate[] = {0, -0.0f, 30, -30, -1e4f, 1e4f, 1e30f, -1e30f, INFINITY, NAN}, y[10], up[10];
    for (int i = 0; i < 10; i++) up[i] = 1;
    qz_tensor g = qz_tensor_2d(gate, QZ_F32, 1, 10), u = qz_tensor_2d(up, QZ_F32, 1, 10),
              out = qz_tensor_2d(y, QZ_F32, 1, 10);
    for (size_t b = 0; b < 2; b++) {
        check_ok(qz_op_geglu(qz_backend_at(b), &out, &g, &u));
        cr_assert(y[0] == 0 && y[1] == 0 && y[2] == 30 && y[3] == 0 && y[4] == 0 && y[5] == 1e4f);
        cr_assert(y[6] == 1e30f && y[7] == 0 && isinf(y[8]) && isnan(y[9]), "%g %g %g", y[6], y[7], y[8]);
    }
}

Test(kernels_cpu, attention_of_large_scores_stays_finite)
{
    static float q[400], k[400], v[400], y[400];
    for (int i = 0; i < 400; i++) {
        q[i] = 1e4f * (float)(i % 7 - 3);
        k[i] = 1e4f * (float)(i % 5 - 2);
        v[i] = (float)(i % 11);
    }
    qz_tensor qt = qz_tensor_4d(q, QZ_F32, 1, 200, 1, 2), kt = qz_tensor_4d(k, QZ_F32, 1, 200, 1, 2);
    qz_tensor vt = qz_tensor_4d(v, QZ_F32, 1, 200, 1, 2), yt = qz_tensor_4d(y, QZ_F32, 1, 200, 1, 2);
    check_ok(qz_op_attention(qz_backend_at(1), &yt, NULL, &qt, &kt, &vt, &(qz_attention){.scale = 1}));
    for (int i = 0; i < 400; i++) cr_assert(y[i] >= 0 && y[i] <= 10, "%g", y[i]);
}

Test(kernels_cpu, log_prob_of_large_and_infinite_logits)
{
    float z[] = {1e30f, 0, -INFINITY, 88, 88, 88};
    double out[2];
    int32_t target[] = {0, 1};
    qz_tensor logits = qz_tensor_2d(z, QZ_F32, 2, 3), o = qz_tensor_1d(out, QZ_F64, 2);
    for (size_t b = 0; b < 2; b++) {
        check_ok(qz_op_log_prob(qz_backend_at(b), &o, &logits, target));
        cr_assert(out[0] == 0 && fabs(out[1] + log(3)) < 1e-12, "%g %g", out[0], out[1]);
    }
}

/* A base's entry of probability 0 counts nothing, whatever the other's; NaN spreads to the sums. */
Test(kernels_cpu, divergence_sums_of_infinite_logits)
{
    float a[] = {3, -INFINITY, 3, 1, NAN, 2}, b[] = {7, 7, -INFINITY, 1, 1, 2};
    double out[2 * QZ_DIVERGENCE_SUMS];
    qz_tensor sums = qz_tensor_2d(out, QZ_F64, 2, QZ_DIVERGENCE_SUMS);
    for (size_t i = 0; i < 2; i++) {
        qz_tensor x = qz_tensor_2d(a, QZ_F32, 2, 3), y = qz_tensor_2d(b, QZ_F32, 2, 3);
        check_ok(qz_op_divergence_sums(qz_backend_at(i), &sums, &x, &y));
        cr_assert(out[QZ_DIVERGENCE_MAX_A] == 3 && out[QZ_DIVERGENCE_TOP_A] == 0 && out[QZ_DIVERGENCE_SUM_A] == 2);
        cr_assert(out[QZ_DIVERGENCE_MAX_B] == 7 && out[QZ_DIVERGENCE_TOP_B] == 0 && out[QZ_DIVERGENCE_SUM_B] == 2);
        cr_assert(isinf(out[QZ_DIVERGENCE_WEIGHTED]) && out[QZ_DIVERGENCE_WEIGHTED] > 0);
        cr_assert(isnan(out[QZ_DIVERGENCE_SUMS + QZ_DIVERGENCE_SUM_A]));
        b[2] = 3;
        check_ok(qz_op_divergence_sums(qz_backend_at(i), &sums, &x, &y));
        cr_assert(out[QZ_DIVERGENCE_WEIGHTED] == -4, "%g", out[QZ_DIVERGENCE_WEIGHTED]);
        b[2] = -INFINITY;
    }
}

Test(kernels_cpu, older_core_is_named_with_what_to_do)
{
    const char *text = qz_blas_core_warning("Haswell", 3);
    cr_assert(text && strstr(text, "Haswell") && strstr(text, "AVX-512"));
    cr_assert(strstr(text, "unset OPENBLAS_CORETYPE"), "%s", text);
    text = qz_blas_core_warning("Prescott", 2);
    cr_assert(text && strstr(text, "Prescott") && strstr(text, "AVX2"));
    cr_assert(qz_blas_core_warning("Haswell", 2) == NULL);
    cr_assert(qz_blas_core_warning("SkylakeX", 3) == NULL);
    cr_assert(qz_blas_core_warning("Prescott", 0) == NULL);
    cr_assert(qz_blas_core_warning("a core of the future", 3) == NULL);
}

/* Unless the environment insists, no older core than the processor offers is in force (cpu_blas.c chooses again). */
Test(kernels_cpu, core_fits_the_processor)
{
    cr_assert(strstr(qz_blas_describe(), "OpenBLAS") != NULL);
    const char *warning = qz_backend_at(1)->warning();
    cr_assert(getenv("OPENBLAS_CORETYPE") || warning == NULL, "%s", warning);
}

Test(kernels_cpu, pieces_cover_every_element_once)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {1000, 17}, {2, 16384}, {3, 16385}, {1, 100000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const qz_pieces pieces = qz_pieces_of(shapes[s][0], shapes[s][1]);
        int64_t covered = 0, last = -1;
        for (int64_t i = 0; i < pieces.count; i++) {
            const qz_piece p = qz_piece_at(&pieces, i);
            cr_assert(p.rows > 0 && p.cols > 0 && p.row * shapes[s][1] + p.col > last);
            last = (p.row + p.rows - 1) * shapes[s][1] + p.col + p.cols - 1;
            covered += p.rows * p.cols;
        }
        cr_assert(covered == shapes[s][0] * shapes[s][1]);
    }
    cr_assert(qz_tile_side(2048, 512, 128, 4) == 512 && qz_tile_side(100, 512, 128, 4) == 128);
}

/* A factor with a few diagonals of binary fractions: its product is exact. */
enum { DIAGONALS = 5 };
static const int64_t below[DIAGONALS] = {0, 1, 700, 1500, 2777};
static const double known[DIAGONALS] = {4, -0.5, 0.25, 1, -2};

static void fill_product(qz_triangle t)
{
    memset(t.data, 0, (size_t)qz_triangle_count(t.size) * sizeof *t.data);
    for (int64_t k = 0; k < t.size; k++)
        for (int i = 0; i < DIAGONALS; i++)
            for (int j = 0; j <= i && k + below[i] < t.size; j++)
                qz_triangle_row(t, k + below[i])[k + below[j]] += known[i] * known[j];
}

static double known_at(int64_t row, int64_t col)
{
    for (int i = 0; i < DIAGONALS; i++)
        if (row - col == below[i]) return known[i];
    return 0;
}

static void check_known(int64_t size, double *first, double *second)
{
    const int64_t count = qz_triangle_count(size);
    double *const data[] = {first, second};
    int64_t failed;
    for (int i = 0; i < 2; i++) {
        const qz_tensor a = qz_tensor_1d(data[i], QZ_F64, count);
        fill_product(qz_triangle_of(data[i], size));
        qz_threads_set(i ? 3 : 1);
        check_ok(qz_cpu_cholesky(&a, size, &failed));
        cr_assert(failed == -1);
    }
    cr_assert(memcmp(first, second, (size_t)count * sizeof *first) == 0, "%ld: threads matter", (long)size);
    for (int64_t i = 0; i < size; i++) {
        const double *row = qz_triangle_row(qz_triangle_of(first, size), i);
        for (int64_t j = 0; j <= i; j++)
            cr_assert(fabs(row[j] - known_at(i, j)) < TOL_SAME_FP64, "%ld: (%ld, %ld) is %g", (long)size, (long)i,
                      (long)j, row[j]);
    }
}

/* A whole and a partial last band, and more bands than tiles are wanted. */
Test(kernels_cpu, cholesky_over_many_bands)
{
    static const int64_t sizes[] = {QZ_TRIANGLE_BAND, QZ_TRIANGLE_BAND + 1, 3900};
    double *first = malloc((size_t)qz_triangle_count(3900) * sizeof *first);
    double *second = malloc((size_t)qz_triangle_count(3900) * sizeof *second);
    cr_assert(first && second);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_known(sizes[i], first, second);
    free(first);
    free(second);
}

Test(kernels_cpu, triangle_has_room_for_every_row)
{
    for (int64_t size = 1; size < 5000; size += size < 40 ? 1 : 211) {
        const qz_triangle t = qz_triangle_of(NULL, size);
        for (int64_t i = 0; i + 1 < size; i++) {
            cr_assert(qz_triangle_stride(t, i) > i);
            cr_assert(qz_triangle_offset(t, i) + i < qz_triangle_offset(t, i + 1), "%ld: %ld", (long)size, (long)i);
        }
        cr_assert(qz_triangle_offset(t, size - 1) + size <= qz_triangle_count(size));
        cr_assert(2 * qz_triangle_count(size) >= size * size, "the FP32 matrix needs the same memory");
    }
}
