/* The journal gives back what was written, drops a torn end, and refuses what is damaged or from another run. */
#include "calib/journal.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "testing/testing.h"

static const qz_journal_text identity[] = {{"program", "0.1.0"}, {"recipe", "5f"}, {"backend", "cpu \"x\""}};
enum { PROPERTIES = 3 };

static const double hard[] = {0.1, 1.0 / 3, -0.0, 5e-324, 1.7976931348623157e308, 123456789012345678.0, 16777217};
enum { HARD = 7 };

static void add_layer(qz_journal *j, int index)
{
    char name[32];
    snprintf(name, sizeof name, "layers.%d.q", index);
    const qz_journal_text tensor[] = {{name, "aa"}, {"\xc3\xa9\"\n", "bb"}};
    qz_report_row row[HARD + 1];
    for (int i = 0; i < HARD; i++) row[i] = (qz_report_row){"linear", name, "error", "%", hard[i], NULL};
    row[HARD] = (qz_report_row){"linear", "", "method", "", 0, "gptq"};
    const qz_journal_note note[] = {{QZ_WARN, "large"}, {QZ_INFO, "fine"}};
    const qz_journal_number number[] = {{"peak", 0.1f}, {"inf", INFINITY}, {"minus", -INFINITY}, {"nan", NAN}};
    check_ok(qz_journal_add(j, &(qz_journal_layer){.layer = index,
                                                   .tensor = tensor,
                                                   .tensors = 2,
                                                   .row = row,
                                                   .rows = HARD + 1,
                                                   .note = note,
                                                   .notes = 2,
                                                   .number = number,
                                                   .numbers = 4}));
}

static void write_journal(const char *folder, int layers)
{
    qz_journal *j;
    check_ok(qz_journal_create(&j, folder, identity, PROPERTIES));
    for (int i = 0; i < layers; i++) add_layer(j, i);
    qz_journal_close(j);
}

static const char *path_of_journal(void)
{
    return test_path(QZ_JOURNAL_NAME);
}

static void check_layer(const qz_journal_layer *l, int index)
{
    char name[32];
    snprintf(name, sizeof name, "layers.%d.q", index);
    cr_assert(l->layer == index && l->tensors == 2 && l->rows == HARD + 1 && l->notes == 2 && l->numbers == 4);
    cr_assert_str_eq(l->tensor[0].name, name);
    cr_assert_str_eq(l->tensor[1].name, "\xc3\xa9\"\n");
    cr_assert_str_eq(l->tensor[1].value, "bb");
    for (int i = 0; i < HARD; i++) {
        cr_assert(memcmp(&l->row[i].value, &hard[i], sizeof *hard) == 0, "%.17g", hard[i]);
        cr_assert_str_eq(l->row[i].where, name);
        cr_assert_null(l->row[i].text);
    }
    cr_assert_str_eq(l->row[HARD].text, "gptq");
    cr_assert_str_eq(l->row[0].unit, "%");
    cr_assert(l->note[0].severity == QZ_WARN && l->note[1].severity == QZ_INFO);
    cr_assert(*qz_journal_number_of(l, "peak") == 0.1f && *qz_journal_number_of(l, "inf") == INFINITY);
    cr_assert(*qz_journal_number_of(l, "minus") == -INFINITY && isnan(*qz_journal_number_of(l, "nan")));
    cr_assert_null(qz_journal_number_of(l, "none"));
}

Test(journal, gives_back_what_was_written)
{
    qz_journal *j;
    cr_assert_not(qz_journal_is_there(test_folder()));
    cr_assert(qz_journal_peek(test_folder()) == 0);
    write_journal(test_folder(), 2);
    cr_assert(qz_journal_is_there(test_folder()) && qz_journal_peek(test_folder()) == 2);
    check_ok(qz_journal_open(&j, test_folder()));
    check_ok(qz_journal_compare(j, identity, PROPERTIES));
    add_layer(j, 2);
    qz_journal_close(j);
    check_ok(qz_journal_open(&j, test_folder()));
    cr_assert(qz_journal_layers(j) == 3);
    for (int i = 0; i < 3; i++) check_layer(qz_journal_layer_at(j, (size_t)i), i);
    cr_assert_null(qz_journal_layer_at(j, 3));
    qz_journal_close(j);
    qz_journal_close(NULL);
}

Test(journal, names_what_changed)
{
    qz_journal *j;
    qz_journal_text now[PROPERTIES + 1] = {identity[0], identity[1], identity[2], {"seed", "7"}};
    write_journal(test_folder(), 1);
    check_ok(qz_journal_open(&j, test_folder()));
    now[1].value = "60";
    check_fails(QZ_ARG, "the recipe changed: resume.jsonl says 5f, this run 60\nrun with --overwrite in place of --res",
                qz_journal_compare(j, now, PROPERTIES));
    now[0].value = "0.2.0";
    check_fails(QZ_ARG, "the program changed: resume.jsonl says 0.1.0, this run 0.2.0\nthe recipe changed",
                qz_journal_compare(j, now, PROPERTIES));
    check_fails(QZ_ARG, "the seed changed: resume.jsonl says nothing, this run 7",
                qz_journal_compare(j, now, PROPERTIES + 1));
    check_fails(QZ_ARG, "the backend changed: resume.jsonl says cpu \"x\", this run nothing",
                qz_journal_compare(j, identity, 2));
    qz_journal_close(j);
}

/* Whatever a crash leaves of the last line, the layers before it are there and writing goes on behind them. */
Test(journal, a_torn_last_line_is_dropped)
{
    qz_arena *arena;
    char *text;
    size_t two, three;
    check_ok(qz_arena_new(&arena, "t"));
    write_journal(test_folder(), 2);
    check_ok(qz_file_read(&text, &two, path_of_journal(), 1 << 20, arena));
    write_journal(test_folder(), 3);
    check_ok(qz_file_read(&text, &three, path_of_journal(), 1 << 20, arena));
    for (size_t size = two; size < three; size += size < three - 20 ? 17 : 1) {
        qz_journal *j;
        test_write_file(path_of_journal(), text, size);
        check_ok(qz_journal_open(&j, test_folder()));
        cr_assert(qz_journal_layers(j) == 2, "%zu of %zu bytes", size, three);
        qz_journal_close(j);
        uint64_t left;
        check_ok(qz_file_size(path_of_journal(), &left));
        cr_assert(left == two);
    }
    memset(text + two + 20, 0, three - two - 20); /* the length was on the disk, the data were not */
    test_write_file(path_of_journal(), text, three);
    qz_journal *j;
    check_ok(qz_journal_open(&j, test_folder()));
    add_layer(j, 2);
    qz_journal_close(j);
    check_ok(qz_journal_open(&j, test_folder()));
    cr_assert(qz_journal_layers(j) == 3);
    check_layer(qz_journal_layer_at(j, 2), 2);
    qz_journal_close(j);
    qz_arena_free(arena);
}

Test(journal, damage_before_the_end_is_refused)
{
    qz_arena *arena;
    qz_journal *j;
    char *text;
    size_t size;
    check_ok(qz_arena_new(&arena, "t"));
    write_journal(test_folder(), 2);
    check_ok(qz_file_read(&text, &size, path_of_journal(), 1 << 20, arena));
    char *second = strchr(text, '\n') + 1;
    for (int line = 1; line <= 2; line++) {
        char *at = line == 1 ? text + 12 : second + 12, was = *at, message[32];
        *at = (char)(was + 1);
        test_write_file(path_of_journal(), text, size);
        snprintf(message, sizeof message, "line %d is damaged", line);
        check_fails(QZ_FORMAT, message, qz_journal_open(&j, test_folder()));
        cr_assert_null(j);
        *at = was;
    }
    test_write_file(path_of_journal(), text, 30);
    check_fails(QZ_FORMAT, "line 1 is damaged", qz_journal_open(&j, test_folder()));
    test_write_file(path_of_journal(), "", 0);
    check_fails(QZ_FORMAT, "is empty", qz_journal_open(&j, test_folder()));
    cr_assert(qz_journal_peek(test_folder()) == 0);
    check_fails(QZ_IO, "cannot be opened", qz_journal_open(&j, test_path("none")));
    qz_arena_free(arena);
}

Test(journal, another_format_is_named)
{
    qz_journal *j;
    char print[QZ_HASH_TEXT], text[128];
    const char *start = "{\"format\":\"9\"";
    qz_hash_bytes(print, start, strlen(start));
    snprintf(text, sizeof text, "%s,\"end\":\"%s\"}\n", start, print);
    test_write_file(path_of_journal(), text, strlen(text));
    check_ok(qz_journal_open(&j, test_folder()));
    check_fails(QZ_ARG, "the journal's format changed: resume.jsonl says 9, this run 1",
                qz_journal_compare(j, identity, 0));
    qz_journal_close(j);
}

static void fill_report(qz_report *r)
{
    qz_report_add(r, "linear", "l1", "error", 0.5, "%");
    qz_report_text(r, "linear", "l1", "method", "rtn");
    qz_report_note(r, QZ_WARN, "100%% of it");
}

Test(journal, a_report_goes_on)
{
    qz_arena *arena;
    qz_report *report, *later;
    qz_journal *j;
    qz_journal_layer layer = {.layer = 4};
    check_ok(qz_arena_new(&arena, "t"));
    check_ok(qz_report_new(&report));
    check_ok(qz_report_new(&later));
    qz_report_add(report, "before", "", "x", 1, "");
    qz_report_note(report, QZ_INFO, "before");
    qz_journal_mark mark = qz_journal_mark_of(report);
    fill_report(report);
    check_ok(qz_journal_since(&layer, report, mark, arena));
    cr_assert(layer.rows == 2 && layer.notes == 1);
    check_ok(qz_journal_create(&j, test_folder(), identity, PROPERTIES));
    check_ok(qz_journal_add(j, &layer));
    qz_journal_close(j);
    check_ok(qz_journal_open(&j, test_folder()));
    qz_journal_report(qz_journal_layer_at(j, 0), later);
    qz_journal_close(j);
    check_ok(qz_report_status(later));
    cr_assert(qz_report_count(later) == 2 && qz_report_notes(later) == 1);
    cr_assert(qz_report_find(later, "linear", "l1", "error")->value == 0.5);
    cr_assert_str_eq(qz_report_find(later, "linear", "l1", "method")->text, "rtn");
    qz_severity severity;
    cr_assert_str_eq(qz_report_note_at(later, 0, &severity), "100% of it");
    cr_assert(severity == QZ_WARN);
    qz_report_free(report);
    qz_report_free(later);
    qz_arena_free(arena);
}

static qz_status open_and_add(const char *folder)
{
    qz_journal *j;
    QZ_TRY(qz_journal_open(&j, folder));
    qz_status status = qz_journal_compare(j, identity, PROPERTIES);
    if (status == QZ_OK) status = qz_journal_add(j, qz_journal_layer_at(j, 0));
    qz_journal_close(j);
    return status;
}

Test(journal, every_allocation_may_fail)
{
    write_journal(test_folder(), 1);
    qz_status status = QZ_MEMORY;
    long n = 1;
    for (; status != QZ_OK && n < 1000; n++) {
        qz_alloc_fail_at(n);
        status = open_and_add(test_folder());
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 5 && n < 1000);
    cr_assert(qz_journal_peek(test_folder()) == 2);
}
