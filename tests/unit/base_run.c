/* Random numbers, reports, progress, warnings. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/parallel.h"
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

/* splitmix64 as published; its first outputs from the state 1234567 are known. */
static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

Test(rng, is_seeded_by_splitmix64)
{
    uint64_t x = 1234567;
    cr_assert(splitmix(&x) == UINT64_C(6457827717110365317) && splitmix(&x) == UINT64_C(3203168211198807973));
    qz_rng r;
    qz_rng_seed(&r, 42, 7);
    x = 42;
    x = splitmix(&x) ^ 7;
    for (int i = 0; i < 4; i++) cr_assert(r.s[i] == splitmix(&x));
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
    qz_progress_begin(p, "left open", 1);
    qz_progress_begin(p, "next", 1);
    qz_progress_end(p);
    cr_assert(finished == 5);
    stop = 1;
    qz_progress_begin(p, "again", 1);
    check_fails(QZ_INTERRUPTED, "again", qz_progress_step(p, 1, ""));
    qz_progress_free(p);
    check_ok(qz_progress_step(NULL, 1, "nobody looks"));
}

static double last_estimate;

static int keep_estimate(void *context, const qz_progress_state *state)
{
    last_estimate = state->remaining;
    return 0;
}

Test(progress, estimates_from_what_is_done)
{
    qz_progress *p;
    check_ok(qz_progress_new(&p, keep_estimate, NULL));
    qz_progress_begin(p, "work", 4);
    cr_assert(last_estimate < 0);
    usleep(120000);
    check_ok(qz_progress_step(p, 1, "item"));
    cr_assert(last_estimate > 0.3 && last_estimate < 10, "%g", last_estimate); /* three times what one took */
    check_ok(qz_progress_step(p, 3, "item"));
    qz_progress_end(p);
    cr_assert(last_estimate == 0);
    qz_progress_free(p);
}

static void wait_for(double seconds)
{
    for (double end = qz_seconds() + seconds; qz_seconds() < end;) continue;
}

Test(progress, sections_share_out_the_seconds_of_a_phase)
{
    qz_progress *p;
    check_ok(qz_progress_new(&p, NULL, NULL));
    qz_progress_begin(p, "all", 2);
    qz_progress_section(p, "one");
    wait_for(0.02);
    qz_progress_section(p, "two");
    wait_for(0.01);
    qz_progress_section(p, "one");
    wait_for(0.02);
    qz_progress_end(p);
    cr_assert(qz_progress_seconds(p, "one") >= 0.04 && qz_progress_seconds(p, "two") >= 0.01);
    cr_assert(qz_progress_seconds(p, "all") < 0.01, "%g", qz_progress_seconds(p, "all"));
    qz_progress_book(p, "other", 3);
    double seconds;
    cr_assert_str_eq(qz_progress_at(p, 3, &seconds), "other");
    cr_assert(seconds == 3 && qz_progress_at(p, 4, &seconds) == NULL);
    qz_progress_free(p);
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
