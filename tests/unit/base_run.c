/* Random numbers, reports, progress, warnings, HDF5. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/h5.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/report.h"
#include "base/rng.h"
#include "testing/testing.h"

/* xoshiro256** from the state {1, 2, 3, 4}: the first outputs, worked out from the definition. */
Test(rng, is_xoshiro256starstar)
{
    static const uint64_t expected[] = {11520u, 0u, 1509978240u, 1215971899390074240u};
    qz_rng r = {{1, 2, 3, 4}};
    for (int i = 0; i < 4; i++) cr_assert(qz_rng_u64(&r) == expected[i], "output %d", i);
}

Test(rng, streams_differ_and_repeat)
{
    qz_rng a, b, c;
    qz_rng_seed(&a, 7, 0);
    qz_rng_seed(&b, 7, 0);
    qz_rng_seed(&c, 7, 1);
    uint64_t x = qz_rng_u64(&a);
    cr_assert(x == qz_rng_u64(&b) && x != qz_rng_u64(&c));
}

Test(rng, ranges_and_moments)
{
    qz_rng r;
    double sum = 0, squares = 0;
    int counts[3] = {0};
    size_t order[50];
    bool seen[50] = {false};
    qz_rng_seed(&r, 1, 2);
    for (int i = 0; i < 30000; i++) {
        double u = qz_rng_double(&r), n = qz_rng_normal(&r);
        cr_assert(u >= 0 && u < 1);
        sum += n;
        squares += n * n;
        counts[qz_rng_below(&r, 3)]++;
    }
    cr_assert(fabs(sum / 30000) < 0.03 && fabs(squares / 30000 - 1) < 0.05);
    for (int i = 0; i < 3; i++) cr_assert(abs(counts[i] - 10000) < 400);
    qz_rng_permutation(&r, order, 50);
    for (int i = 0; i < 50; i++) {
        cr_assert(order[i] < 50 && !seen[order[i]]);
        seen[order[i]] = true;
    }
}

Test(report, keeps_rows_and_notes)
{
    qz_report *r;
    check_ok(qz_report_new(&r));
    char name[16];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "row %d", i);
        qz_report_add(r, "section", name, "value", i, "s");
    }
    qz_report_text(r, "section", "x", "text", "words");
    qz_report_note(r, QZ_WARN, "take %s", "care");
    qz_severity severity;
    cr_assert(qz_report_count(r) == 201 && qz_report_find(r, "section", "row 150", "value")->value == 150);
    cr_assert_str_eq(qz_report_find(r, "section", NULL, "text")->text, "words");
    cr_assert(qz_report_find(r, "other", NULL, "value") == NULL);
    cr_assert_str_eq(qz_report_note_at(r, 0, &severity), "take care");
    cr_assert(severity == QZ_WARN && qz_report_notes(r) == 1);
    check_ok(qz_report_status(r));
    qz_report_free(r);
}

Test(report, tells_that_it_lost_something)
{
    qz_report *r;
    check_ok(qz_report_new(&r));
    qz_alloc_fail_at(1);
    qz_report_add(r, "a", "b", "c", 1, "");
    qz_alloc_fail_at(0);
    check_fails(QZ_MEMORY, "lost rows", qz_report_status(r));
    qz_report_free(r);
}

static int calls, finished;

static int count_calls(void *stop, const qz_progress_state *state)
{
    calls++;
    finished += state->finished;
    return *(int *)stop;
}

Test(progress, phases_add_up_and_can_be_stopped)
{
    qz_progress *p;
    int stop = 0;
    check_ok(qz_progress_new(&p, count_calls, &stop));
    for (int i = 0; i < 3; i++) {
        qz_progress_begin(p, "work", 1000);
        for (int j = 0; j < 1000; j++) check_ok(qz_progress_step(p, 1, "item"));
        qz_progress_end(p);
    }
    cr_assert(finished == 3 && calls >= 6 && calls < 100, "%d calls", calls);
    cr_assert(qz_progress_seconds(p, "work") > 0 && qz_progress_seconds(p, "play") == 0);
    stop = 1;
    qz_progress_begin(p, "again", 1);
    check_fails(QZ_INTERRUPTED, "again", qz_progress_step(p, 1, ""));
    qz_progress_free(p);
    check_ok(qz_progress_step(NULL, 1, "nobody looks"));
}

static void keep_warning(void *out, const char *message)
{
    snprintf(out, 64, "%s", message);
}

Test(log, goes_to_the_sink)
{
    char got[64] = "";
    qz_warn("nobody hears %d", 1);
    qz_log_to(keep_warning, got);
    qz_warn("heard %d", 2);
    qz_log_to(NULL, NULL);
    cr_assert_str_eq(got, "heard 2");
}

Test(h5, round_trip)
{
    qz_h5 *f;
    int32_t ids[6] = {1, -2, 3, 70000, 5, 6}, back[6];
    uint16_t narrow[6];
    double d[6];
    uint64_t shape[8];
    int rank;
    bool integer;
    char text[16];
    const char *path = test_path("ids.h5");
    check_ok(qz_h5_create(&f, path));
    check_ok(qz_h5_write(f, "ids", QZ_H5_I32, ids, 2, (uint64_t[]){2, 3}));
    check_ok(qz_h5_write_text(f, "made_by", "a test"));
    check_ok(qz_h5_close(f));
    check_ok(qz_h5_open(&f, path));
    check_ok(qz_h5_shape(f, "ids", &rank, shape, &integer));
    cr_assert(rank == 2 && shape[0] == 2 && shape[1] == 3 && integer);
    check_ok(qz_h5_read(f, "ids", QZ_H5_I32, back, 6));
    cr_assert(memcmp(ids, back, sizeof ids) == 0);
    check_ok(qz_h5_read(f, "ids", QZ_H5_F64, d, 6));
    cr_assert(d[3] == 70000);
    check_fails(QZ_FORMAT, "ids", qz_h5_read(f, "ids", QZ_H5_U16, narrow, 6));
    check_fails(QZ_SHAPE, "6 elements", qz_h5_read(f, "ids", QZ_H5_I32, back, 5));
    check_fails(QZ_FORMAT, "no dataset \"none\"", qz_h5_read(f, "none", QZ_H5_I32, back, 5));
    check_ok(qz_h5_read_text(f, "made_by", text, sizeof text));
    cr_assert_str_eq(text, "a test");
    check_fails(QZ_FORMAT, "no attribute", qz_h5_read_text(f, "absent", text, sizeof text));
    check_ok(qz_h5_close(f));
}

Test(h5, refuses_other_files)
{
    qz_h5 *f;
    test_write_file(test_path("no.h5"), "text", 4);
    check_fails(QZ_FORMAT, "not an HDF5 file", qz_h5_open(&f, test_path("no.h5")));
    check_fails(QZ_IO, "No such file", qz_h5_open(&f, test_path("none.h5")));
}
