/* Statistics come back from the file as they went in; foreign, damaged and unsuitable files are refused. */
#include "calib/stats_file.h"

#include <math.h>

#include "base/file.h"
#include "base/h5.h"
#include "testing/quant_case.h"
#include "testing/tolerances.h"

enum { K = 96, TOKENS = 300, WIDE = 800 };

static const qz_stats_source here = {.program = "qcal test",
                                     .family = "llama",
                                     .backend = "ref",
                                     .model_hash = "aa",
                                     .tokenizer_hash = "bb",
                                     .data_hash = "cc",
                                     .seed = 7,
                                     .samples = 4,
                                     .sequence_length = 75,
                                     .layers = 2,
                                     .type = QZ_F32};
static const qz_stats_wants all = {.reservoir = 16, .histogram = true};

/* Inputs with outlier channels and a dead one; not finished, so that the upper triangle is zero. */
static qz_stats gathered(quant_case *c, int64_t k)
{
    qz_stats s;
    quant_inputs(c, TOKENS, k);
    check_ok(qz_stats_new(&s, k, all, 3, 5, c->arena));
    check_ok(qz_stats_add(&s, c->backend, &c->x));
    for (int i = 0; i < QZ_HISTOGRAM_BINS; i++) s.histogram[i] = (uint64_t)i * 977 + ((uint64_t)i << 40);
    return s;
}

static quant_case case_new(void)
{
    return quant_case_new(4, 8, 8, 1);
}

static qz_stats_file *created(const char *name, qz_stats_source source)
{
    qz_stats_file *f;
    check_ok(qz_stats_file_create(&f, test_path(name), &source));
    return f;
}

static qz_stats_file *opened(const char *name)
{
    qz_stats_file *f;
    check_ok(qz_stats_file_open(&f, test_path(name)));
    return f;
}

static void check_same_rows(const qz_stats *a, const qz_stats *b)
{
    cr_assert(a->reservoir_rows == b->reservoir_rows && a->reservoir_capacity == b->reservoir_capacity);
    cr_assert(memcmp(a->reservoir, b->reservoir, (size_t)(a->reservoir_rows * a->k) * sizeof(float)) == 0);
    cr_assert(memcmp(&a->rng, &b->rng, sizeof a->rng) == 0);
}

static void check_same_sums(const qz_stats *a, const qz_stats *b)
{
    cr_assert(a->k == b->k && a->tokens == b->tokens && a->rescaled == b->rescaled && !b->divisor);
    cr_assert(memcmp(a->absmax, b->absmax, (size_t)a->k * sizeof *a->absmax) == 0);
    cr_assert(memcmp(a->abssum, b->abssum, (size_t)a->k * sizeof *a->abssum) == 0);
    cr_assert(memcmp(a->histogram, b->histogram, QZ_HISTOGRAM_BINS * sizeof *a->histogram) == 0);
}

static size_t gram_size(const qz_stats *s)
{
    return (size_t)(s->k * s->k) * sizeof *s->gram;
}

/* K (K + 1) / 2 is more than a chunk for the wider one. */
Test(stats_file, gives_back_what_was_written)
{
    quant_case c = case_new();
    static const int64_t width[] = {1, K, WIDE};
    for (size_t i = 0; i < 3; i++) {
        qz_stats s = gathered(&c, width[i]), back;
        qz_stats_file *f = created("s.h5", here);
        check_ok(qz_stats_file_write(f, 1, 3, &s));
        check_ok(qz_stats_file_close(f));
        f = opened("s.h5");
        check_ok(qz_stats_file_check(f, &here));
        check_ok(qz_stats_file_read(&back, f, 1, 3, width[i], all, c.arena));
        check_ok(qz_stats_file_close(f));
        check_ok(qz_stats_finish(&s));
        check_same_sums(&s, &back);
        check_same_rows(&s, &back);
        cr_assert(memcmp(s.gram, back.gram, gram_size(&s)) == 0);
    }
    quant_case_free(&c);
}

/* Correlations in binary16: no overflow whatever the size of the channels, the diagonal exact. */
Test(stats_file, half_precision)
{
    quant_case c = case_new();
    qz_stats s = gathered(&c, K), back;
    qz_stats_source source = here;
    source.type = QZ_F16;
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j <= i; j++) s.gram[i * K + j] *= 1e12f; /* far beyond 65504 */
    qz_stats_file *f = created("h.h5", source);
    check_ok(qz_stats_file_write(f, 0, 0, &s));
    check_ok(qz_stats_file_close(f));
    f = opened("h.h5");
    cr_assert(qz_stats_file_source(f)->type == QZ_F16);
    check_ok(qz_stats_file_read(&back, f, 0, 0, K, all, c.arena));
    check_ok(qz_stats_file_close(f));
    double worst = 0;
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j <= i; j++) {
            double g = s.gram[i * K + j], h = back.gram[i * K + j];
            double room = TOL_HALF_GRAM * fabs(g) + 0x1p-25 * sqrt((double)s.gram[i * K + i] * s.gram[j * K + j]);
            cr_assert(fabs(h - g) <= room, "(%d, %d): %g, %g", (int)i, (int)j, g, h);
            if (i != j && g != 0 && fabs(h - g) / fabs(g) > worst) worst = fabs(h - g) / fabs(g);
            cr_assert(back.gram[j * K + i] == back.gram[i * K + j]);
            cr_assert(i != j || h == g);
        }
    cr_assert(worst > 1e-5, "%g: it was not rounded", worst);
    quant_case_free(&c);
}

Test(stats_file, only_what_is_wanted_is_read)
{
    quant_case c = case_new();
    qz_stats s = gathered(&c, K), back;
    qz_stats_file *f = created("s.h5", here);
    check_ok(qz_stats_file_write(f, 0, 0, &s));
    s.histogram = NULL;
    s.reservoir = NULL;
    check_ok(qz_stats_file_write(f, 0, 1, &s));
    check_ok(qz_stats_file_close(f));
    f = opened("s.h5");
    check_ok(qz_stats_file_read(&back, f, 0, 0, K, (qz_stats_wants){0}, c.arena));
    cr_assert(!back.histogram && !back.reservoir && back.reservoir_rows == 0);
    check_ok(qz_stats_file_read(&back, f, 0, 1, K, (qz_stats_wants){0}, c.arena));
    check_fails(QZ_ARG, "layers/0/o: has no histogram, which this recipe needs",
                qz_stats_file_read(&back, f, 0, 1, K, (qz_stats_wants){.histogram = true}, c.arena));
    check_fails(QZ_ARG, "layers/0/o: has no token rows",
                qz_stats_file_read(&back, f, 0, 1, K, (qz_stats_wants){.reservoir = 1}, c.arena));
    check_fails(QZ_ARG, "has no statistics of layers/1/qkv; it was made for other layers",
                qz_stats_file_read(&back, f, 1, 0, K, all, c.arena));
    check_fails(QZ_SHAPE, "layers/0/qkv: has 96 channels, expected 95",
                qz_stats_file_read(&back, f, 0, 0, K - 1, all, c.arena));
    cr_assert(qz_stats_file_has(f, 0, 0) && !qz_stats_file_has(f, 0, 2) && !qz_stats_file_has(f, 1, 0));
    check_ok(qz_stats_file_close(f));
    quant_case_free(&c);
}

/* A reservoir that is not full goes on where it stopped. */
Test(stats_file, a_record_that_was_read_can_grow)
{
    quant_case c = case_new();
    qz_stats s, back;
    quant_inputs(&c, 10, K);
    check_ok(qz_stats_new(&s, K, all, 3, 5, c.arena));
    check_ok(qz_stats_add(&s, c.backend, &c.x));
    qz_stats_file *f = created("s.h5", here);
    check_ok(qz_stats_file_write(f, 0, 0, &s));
    check_ok(qz_stats_file_close(f));
    f = opened("s.h5");
    check_ok(qz_stats_file_read(&back, f, 0, 0, K, all, c.arena));
    check_ok(qz_stats_file_close(f));
    quant_inputs(&c, TOKENS, K);
    check_ok(qz_stats_finish(&s));
    check_ok(qz_stats_add(&s, c.backend, &c.x));
    check_ok(qz_stats_add(&back, c.backend, &c.x));
    cr_assert(s.reservoir_rows == 16);
    check_same_rows(&s, &back);
    check_same_sums(&s, &back);
    cr_assert(memcmp(s.gram, back.gram, gram_size(&s)) == 0);
    quant_case_free(&c);
}

Test(stats_file, experts_and_cache)
{
    quant_case c = case_new();
    qz_stats s = gathered(&c, 8), back, bare = s;
    qz_stats_source source = here;
    qz_h5 *raw;
    double peak;
    source.experts = 2;
    bare.gram = NULL;
    qz_stats_file *f = created("e.h5", source);
    for (int input = 0; input < 6; input++) {
        s.tokens = 100 + input;
        check_ok(qz_stats_file_write(f, 0, input, &s));
    }
    check_ok(qz_stats_file_write_kv(f, 0, false, &bare));
    check_ok(qz_stats_file_write_kv(f, 0, true, &s));
    check_ok(qz_stats_file_write_number(f, "largest_activation", 0.1f));
    check_ok(qz_stats_file_close(f));
    f = opened("e.h5");
    for (int input = 0; input < 6; input++) {
        check_ok(qz_stats_file_read(&back, f, 0, input, 8, all, c.arena));
        cr_assert(back.tokens == 100 + input);
    }
    cr_assert(qz_stats_file_has_kv(f, 0, true) && !qz_stats_file_has_kv(f, 1, true));
    check_ok(qz_stats_file_read_kv(&back, f, 0, false, 8, all, c.arena));
    cr_assert_null(back.gram);
    check_same_sums(&bare, &back);
    check_same_rows(&bare, &back);
    check_ok(qz_stats_file_read_kv(&back, f, 0, true, 8, (qz_stats_wants){0}, c.arena));
    cr_assert(back.gram && !back.reservoir);
    check_ok(qz_stats_file_read_number(f, "largest_activation", &peak));
    cr_assert(peak == 0.1f);
    check_fails(QZ_FORMAT, "no attribute \"none\"", qz_stats_file_read_number(f, "none", &peak));
    check_ok(qz_stats_file_close(f));
    check_ok(qz_h5_open(&raw, test_path("e.h5")));
    cr_assert(qz_h5_has(raw, "layers/0/qkv/gram") && qz_h5_has(raw, "layers/0/experts/1/down/gram"));
    check_ok(qz_h5_close(raw));
    quant_case_free(&c);
}

Test(stats_file, another_run_is_refused)
{
    qz_stats_file *f = created("s.h5", here);
    qz_stats_source mine = here;
    check_ok(qz_stats_file_check(f, &mine));
    mine.model_hash = "ax";
    check_fails(QZ_ARG, "the model is another one: the file says aa, this run ax", qz_stats_file_check(f, &mine));
    mine.data_hash = "cx";
    mine.samples = 5;
    check_fails(QZ_ARG,
                "the model is another one: the file says aa, this run ax\nthe calibration data is another one: "
                "the file says cc, this run cx\nthe number of samples is another one: the file says 4, this run 5",
                qz_stats_file_check(f, &mine));
    mine = here;
    mine.tokenizer_hash = "b";
    check_fails(QZ_ARG, "the tokenizer is another one: the file says bb, this run b", qz_stats_file_check(f, &mine));
    mine = (qz_stats_source){.model_hash = "aa", .backend = "cpu", .seed = 9};
    check_ok(qz_stats_file_check(f, &mine)); /* the rest is not known or does not matter */
    qz_stats_file_abandon(f);
    qz_stats_file_abandon(NULL);
    cr_assert(!qz_path_exists(test_path("s.h5")) && !qz_path_exists(test_path("s.h5.tmp")));
}

static void write_two(const char *name)
{
    quant_case c = case_new();
    qz_stats s = gathered(&c, K);
    qz_stats_file *f = created(name, here);
    check_ok(qz_stats_file_write(f, 0, 0, &s));
    check_ok(qz_stats_file_write(f, 0, 1, &s));
    check_ok(qz_stats_file_close(f));
    quant_case_free(&c);
}

Test(stats_file, foreign_and_damaged_files)
{
    qz_stats_file *f;
    qz_h5 *h5;
    qz_arena *arena;
    char *bytes;
    size_t size;
    check_fails(QZ_IO, "none.h5", qz_stats_file_open(&f, test_path("none.h5")));
    test_write_file(test_path("text.h5"), "text", 4);
    check_fails(QZ_FORMAT, "text.h5: is not an HDF5 file", qz_stats_file_open(&f, test_path("text.h5")));
    check_ok(qz_h5_create(&h5, test_path("ids.h5")));
    check_ok(qz_h5_write(h5, "ids", QZ_H5_I32, (int32_t[]){1}, 1, (uint64_t[]){1}));
    check_ok(qz_h5_close(h5));
    check_fails(QZ_FORMAT, "ids.h5: is an HDF5 file, but not one that `qcal calibrate` wrote",
                qz_stats_file_open(&f, test_path("ids.h5")));
    check_ok(qz_h5_create(&h5, test_path("new.h5")));
    check_ok(qz_h5_write_text(h5, "format", "qcal statistics"));
    check_ok(qz_h5_write_int(h5, "/", "version", 2));
    check_ok(qz_h5_close(h5));
    check_fails(QZ_FORMAT, "of version 2, and this program reads version 1",
                qz_stats_file_open(&f, test_path("new.h5")));
    cr_assert_null(f);
    write_two("s.h5");
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&bytes, &size, test_path("s.h5"), 1 << 24, arena));
    test_write_file(test_path("cut.h5"), bytes, size - 100);
    check_fails(QZ_FORMAT, "cut.h5: is not an HDF5 file: truncated", qz_stats_file_open(&f, test_path("cut.h5")));
    qz_arena_free(arena);
}

Test(stats_file, numbers_that_are_not_finite_are_refused)
{
    quant_case c = case_new();
    qz_stats s = gathered(&c, 8), back;
    s.gram[2 * 8 + 2] = NAN;
    qz_stats_file *f = created("s.h5", here);
    check_ok(qz_stats_file_write(f, 0, 0, &s));
    check_ok(qz_stats_file_close(f));
    f = opened("s.h5");
    check_fails(QZ_NUMERIC, "layers/0/qkv: the statistics of channel 2",
                qz_stats_file_read(&back, f, 0, 0, 8, all, c.arena));
    check_ok(qz_stats_file_close(f));
    quant_case_free(&c);
}

Test(stats_file, sizes_are_an_upper_bound)
{
    write_two("s.h5");
    uint64_t real, said = 2 * qz_stats_file_input_bytes(K, QZ_F32, all);
    check_ok(qz_file_size(test_path("s.h5"), &real));
    cr_assert(real <= said, "%llu bytes, announced %llu", (unsigned long long)real, (unsigned long long)said);
    /* Llama 3 8B: 32 layers with three inputs of 4096 and one of 14336 channels */
    double gb = 32e-9 * (double)(3 * qz_stats_file_input_bytes(4096, QZ_F32, (qz_stats_wants){0}) +
                                 qz_stats_file_input_bytes(14336, QZ_F32, (qz_stats_wants){0}));
    cr_assert(gb > 16 && gb < 17, "%g", gb);
    cr_assert(qz_stats_file_input_bytes(4096, QZ_F16, (qz_stats_wants){0}) <
              qz_stats_file_input_bytes(4096, QZ_F32, (qz_stats_wants){0}) * 51 / 100);
}
