/* What training sees of a weight is what the file will hold: fake_quant gives the bits of encode, then dequantize, on
 * every backend of the host, for every format with codes, every cut, symmetric, asymmetric and narrow, both rules of
 * the zero, all types of scales, and double quantization. The same for a packed matrix, whose rows dequantize to these
 * bits. */
#include "base/arena.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "numeric/piece.h"
#include "testing/testing.h"

enum { N = 37, K = 70 };

static const struct {
    int64_t rows, cols, flat;
} cuts[] = {{0, 0, 0}, {1, 0, 0}, {1, 32, 0}, {1, 7, 0}, {8, 16, 0}, {0, 16, 0}, {0, 0, 64}, {0, 0, 1000}};

/* Rows of zeros, of one sign, tiny, huge; ties of a symmetric grid; both zeros. */
static void fill(float *w, qz_rng *rng)
{
    for (int i = 0; i < N * K; i++) {
        const int row = i / K;
        w[i] = (float)qz_rng_normal(rng);
        if (row % 9 == 1) w[i] = i % 2 ? 0.0f : -0.0f;
        if (row % 9 == 2) w[i] = w[i] < 0 ? w[i] : -w[i];
        if (row % 9 == 3) w[i] *= 1e-38f;
        if (row % 9 == 4) w[i] *= 1e37f;
        if (row % 9 == 5) w[i] = (float)(i % 15) - 7.5f;
        if (i % 41 == 7) w[i] *= 9;
    }
}

/* The codes by numeric/, and the values that they stand for. */
static void expect(float *out, qz_qtensor *q, const float *w)
{
    for (int64_t n = 0; n < N; n++) {
        for (int64_t k = 0, end; k < K; k = end) {
            int64_t piece;
            end = qz_scheme_run(&piece, &q->scheme, K, n, k);
            qz_piece_encode(q->codes + n * K + k, w + n * K + k, end - k, q, piece);
        }
    }
    if (q->scheme.double_quant) qz_qtensor_quantize_scales(q);
    qz_qtensor_dequantize(out, q, 0, N);
}

static void check_bits(const float *got, const float *want, const qz_scheme *s, const char *what)
{
    char text[96];
    qz_scheme_describe(s, text, sizeof text);
    for (int i = 0; i < N * K; i++)
        cr_assert(qz_float_bits(got[i]) == qz_float_bits(want[i]), "%s, %s: element %d is %.9g, not %.9g", what, text,
                  i, got[i], want[i]);
}

static void check_scheme(const qz_scheme *s, const float *w, float shrink, qz_arena *arena)
{
    static float got[N * K], want[N * K];
    const qz_tensor in = qz_tensor_2d((void *)w, QZ_F32, N, K), out = qz_tensor_2d(got, QZ_F32, N, K);
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        qz_packed packed;
        qz_qtensor q;
        if (!backend->available() || backend->device != QZ_HOST) continue;
        check_ok(qz_qtensor_alloc(&q, s, N, K, arena));
        check_ok(qz_op_fit_ranges(backend, &q, &in));
        for (int64_t i = 0; i < qz_scheme_pieces(s, N, K); i++) q.scales[i] *= shrink;
        if (s->double_quant) qz_qtensor_encode_scales(&q);
        check_ok(qz_op_fake_quant(backend, &out, &in, &q));
        expect(want, &q, w);
        check_bits(got, want, s, backend->plugin.name);
        check_ok(qz_packed_from(&packed, &q, arena));
        memset(got, 0xff, sizeof got);
        qz_packed_rows(got, &packed, 0, 5);
        qz_packed_rows(got + 5 * K, &packed, 5, N - 5);
        check_bits(got, want, s, "packed");
    }
}

/* Symmetric, asymmetric, narrow, and asymmetric with zeros of at least 1, as far as the format knows them. */
static void check_format(qz_format format, const float *w)
{
    const bool whole = qz_format_of(format)->kind == QZ_KIND_INTEGER;
    const bool table = qz_format_of(format)->kind == QZ_KIND_CODEBOOK;
    static const qz_dtype types[] = {QZ_F32, QZ_F16, QZ_BF16};
    for (int i = 0; i < (int)(sizeof cuts / sizeof *cuts) * (whole ? 8 : table ? 2 : 1); i++) {
        const int cut = i % (int)(sizeof cuts / sizeof *cuts), kind = i / (int)(sizeof cuts / sizeof *cuts);
        qz_arena *arena;
        const qz_scheme s = {.format = format,
                             .piece_rows = cuts[cut].rows,
                             .piece_cols = cuts[cut].cols,
                             .flat = cuts[cut].flat,
                             .symmetric = !whole || kind % 4 < 2,
                             .narrow = whole && kind % 4 == 1,
                             .least_zero = whole && kind % 4 == 3,
                             .zero_rule = kind / 4 ? QZ_ROUND_SUM : QZ_ROUND_VALUE,
                             .scale_type = types[i % 3],
                             .double_quant = table && kind == 1};
        check_ok(qz_arena_new(&arena, "test"));
        check_scheme(&s, w, 1, arena);
        check_scheme(&s, w, 0.4f, arena);
        qz_arena_free(arena);
    }
}

Test(kernels_fake_quant, gives_the_bits_of_the_file)
{
    static float w[N * K];
    qz_rng rng;
    qz_rng_seed(&rng, 3, 0);
    fill(w, &rng);
    for (int f = 0; f < QZ_FORMAT_COUNT; f++)
        if (qz_format_of((qz_format)f)->kind != QZ_KIND_PLAIN) check_format((qz_format)f, w);
}

/* What is on the grid stays where it is. */
Test(kernels_fake_quant, twice_is_once)
{
    static float w[N * K], once[N * K], twice[N * K];
    qz_arena *arena;
    qz_rng rng;
    qz_rng_seed(&rng, 4, 0);
    for (int i = 0; i < N * K; i++) w[i] = (float)qz_rng_normal(&rng);
    check_ok(qz_arena_new(&arena, "test"));
    for (int f = 0; f < QZ_FORMAT_COUNT; f++) {
        const qz_scheme s = {.format = (qz_format)f, .piece_rows = 1, .piece_cols = 32, .symmetric = f % 2};
        const qz_tensor a = qz_tensor_2d(w, QZ_F32, N, K), b = qz_tensor_2d(once, QZ_F32, N, K);
        const qz_tensor c = qz_tensor_2d(twice, QZ_F32, N, K);
        qz_qtensor q;
        if (qz_format_of(s.format)->kind == QZ_KIND_PLAIN) continue;
        check_ok(qz_qtensor_alloc(&q, &s, N, K, arena));
        check_ok(qz_op_fit_ranges(qz_backend_best(), &q, &a));
        check_ok(qz_op_fake_quant(qz_backend_best(), &b, &a, &q));
        check_ok(qz_op_fake_quant(qz_backend_best(), &c, &b, &q));
        check_bits(twice, once, &s, "twice");
    }
    qz_arena_free(arena);
}
