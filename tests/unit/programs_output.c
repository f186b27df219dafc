/* The rules of the output folder. */
#include "programs/output_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "calib/journal.h"
#include "testing/testing.h"

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write_file(path, text, strlen(text));
}

static bool holds(const char *folder, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static void make_result(const char *folder, const char *extra)
{
    check_ok(qz_folder_make(folder));
    write_text(folder, "report.json", "{\"program\": \"qcal\"}");
    write_text(folder, extra, "x");
}

Test(output, appears_at_the_very_end)
{
    const char *path = test_path("a/b/out");
    qz_output *o;
    check_ok(qz_output_open(&o, path, false));
    cr_assert_str_eq(qz_output_work(o), test_path("a/b/out.partial"));
    cr_assert(holds(qz_output_work(o), QZ_OUTPUT_MARKER));
    cr_assert_not(qz_path_exists(path));
    write_text(qz_output_work(o), "w", "1");
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "w"));
    cr_assert_not(holds(path, QZ_OUTPUT_MARKER));
    cr_assert_not(qz_path_exists(test_path("a/b/out.partial")));
}

Test(output, abandoned_leaves_nothing)
{
    qz_output *o;
    check_ok(qz_output_open(&o, test_path("a/b/out/"), false));
    write_text(qz_output_work(o), "w", "1");
    qz_error_set(QZ_IO, "the reason");
    qz_output_abandon(o);
    cr_assert_str_eq(qz_error_message(), "the reason");
    cr_assert_not(qz_path_exists(test_path("a")));
    check_ok(qz_folder_make(test_path("c")));
    check_ok(qz_output_open(&o, test_path("c/d/out"), false));
    qz_output_abandon(o);
    cr_assert(qz_path_exists(test_path("c")) && !qz_path_exists(test_path("c/d")));
    qz_output_abandon(NULL);
}

Test(output, an_empty_folder_is_fine)
{
    qz_output *o;
    const char *path = test_path("out");
    check_ok(qz_folder_make(path));
    check_ok(qz_output_open(&o, path, false));
    write_text(qz_output_work(o), "w", "1");
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "w"));
}

Test(output, what_is_there_stays)
{
    qz_output *o;
    const char *path = test_path("out");
    make_result(path, "old");
    check_fails(QZ_IO, "exists and is not empty; choose another output, or replace it with --overwrite",
                qz_output_open(&o, path, false));
    cr_assert_null(o);
    write_text(test_folder(), "file", "x");
    check_fails(QZ_IO, "is no folder", qz_output_open(&o, test_path("file"), true));
    check_fails(QZ_IO, "is no folder", qz_output_open(&o, test_path("file/out"), true));
}

Test(output, overwrite_replaces_only_ours)
{
    qz_output *o;
    const char *path = test_path("out"), *other = test_path("other");
    make_result(path, "old");
    check_ok(qz_output_open(&o, path, true));
    cr_assert(holds(path, "old"));
    write_text(qz_output_work(o), "new", "1");
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "new") && !holds(path, "old"));

    check_ok(qz_folder_make(other));
    write_text(other, "novel.txt", "chapter one");
    check_fails(QZ_IO, "was not written by qcal", qz_output_open(&o, other, true));
    write_text(other, "report.json", "{\"program\": \"other\"}");
    check_fails(QZ_IO, "was not written by qcal", qz_output_open(&o, other, true));
    write_text(other, "report.json", "not json");
    check_fails(QZ_IO, "was not written by qcal", qz_output_open(&o, other, true));
    cr_assert(holds(other, "novel.txt"));
}

Test(output, overwrite_abandoned_keeps_the_old)
{
    qz_output *o;
    const char *path = test_path("out");
    make_result(path, "old");
    check_ok(qz_output_open(&o, path, true));
    qz_output_abandon(o);
    cr_assert(holds(path, "old") && !qz_path_exists(test_path("out.partial")));
}

Test(output, links_are_not_followed)
{
    qz_output *o;
    const char *target = test_path("target"), *path = test_path("out");
    make_result(target, "old");
    cr_assert_eq(symlink(target, path), 0);
    check_fails(QZ_IO, "symbolic link", qz_output_open(&o, path, true));
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(symlink(target, test_path("out.partial")), 0);
    check_fails(QZ_IO, "is in the way", qz_output_open(&o, path, true));
    cr_assert(holds(target, "old"));
}

Test(output, leftovers_of_a_crash)
{
    qz_output *o;
    const char *partial = test_path("out.partial");
    check_ok(qz_folder_make(partial));
    write_text(partial, "mine", "x");
    check_fails(QZ_IO, "is in the way and not from a run of ours", qz_output_open(&o, test_path("out"), true));
    cr_assert(holds(partial, "mine"));
    write_text(partial, QZ_OUTPUT_MARKER, "");
    check_ok(qz_output_open(&o, test_path("out"), false));
    cr_assert_not(holds(partial, "mine"));
    qz_output_abandon(o);
}

/* A run that was killed after `layers` layers. */
static void make_interrupted(const char *path, int layers)
{
    qz_output *o;
    qz_journal *j;
    check_ok(qz_output_open(&o, path, false));
    qz_output_keep(o);
    check_ok(qz_journal_create(&j, qz_output_work(o), &(qz_journal_text){"recipe", "abc"}, 1));
    for (int i = 0; i < layers; i++) check_ok(qz_journal_add(j, &(qz_journal_layer){.layer = i}));
    qz_journal_close(j);
    write_text(qz_output_work(o), "w", "1");
    qz_output_abandon(o);
}

Test(output, kept_work_is_resumed)
{
    qz_output *o;
    const char *path = test_path("a/out"), *partial = test_path("a/out.partial");
    make_interrupted(path, 2);
    cr_assert(holds(partial, "w") && holds(partial, QZ_JOURNAL_NAME));
    check_ok(qz_output_check_resume(path, false));
    check_ok(qz_output_resume(&o, path, false));
    cr_assert_str_eq(qz_output_work(o), partial);
    cr_assert(qz_output_is_kept(o));
    qz_output_abandon(o); /* stays once more */
    check_ok(qz_output_resume(&o, path, false));
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "w") && !holds(path, QZ_JOURNAL_NAME) && !holds(path, QZ_OUTPUT_MARKER));
    cr_assert_not(qz_path_exists(partial));
}

Test(output, finished_layers_are_not_lost_unasked)
{
    qz_output *o;
    const char *path = test_path("out"), *partial = test_path("out.partial");
    make_interrupted(path, 1);
    check_fails(QZ_IO, "holds 1 finished layer of an interrupted run; go on with --resume, or start again with --over",
                qz_output_open(&o, path, false));
    cr_assert(holds(partial, "w"));
    check_ok(qz_output_open(&o, path, true));
    cr_assert_not(holds(partial, "w"));
    qz_output_abandon(o);
    make_interrupted(path, 0);
    check_ok(qz_output_open(&o, path, false)); /* nothing was finished */
    qz_output_abandon(o);
    cr_assert_not(qz_path_exists(partial));
}

Test(output, nothing_to_resume)
{
    qz_output *o;
    const char *path = test_path("out"), *partial = test_path("out.partial");
    check_fails(QZ_IO, "nothing to resume; run without --resume", qz_output_resume(&o, path, false));
    make_result(path, "old");
    check_fails(QZ_IO, "nothing to resume: the run has finished", qz_output_resume(&o, path, true));
    check_ok(qz_folder_make(partial));
    write_text(partial, "mine", "x");
    check_fails(QZ_IO, "is in the way and not from a run of ours", qz_output_resume(&o, path, true));
    write_text(partial, QZ_OUTPUT_MARKER, "");
    check_fails(QZ_IO, "exists and is not empty", qz_output_resume(&o, path, false));
    check_ok(qz_output_resume(&o, path, true));
    qz_output *second;
    check_fails(QZ_IO, "another run is working there", qz_output_resume(&second, path, true));
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "mine") && !holds(path, "old"));
}

/* qcal does not take over what qat left, nor the other way round. */
Test(output, work_of_the_other_program)
{
    const char *path = test_path("out");
    make_interrupted(path, 2);
    check_ok(qz_output_check_program(path, false));
    check_fails(QZ_ARG, "is from an interrupted run of qcal; go on with that", qz_output_check_program(path, true));
    check_ok(qz_folder_make(test_path("two.partial/training")));
    check_ok(qz_output_check_program(test_path("two"), true));
    check_fails(QZ_ARG, "is from an interrupted run of qat train", qz_output_check_program(test_path("two/"), false));
}

/* Killed after the marker was taken away and before the folder got its name. */
Test(output, killed_at_the_very_end)
{
    qz_output *o;
    const char *path = test_path("out");
    make_result(test_path("out.partial"), "w");
    check_ok(qz_output_resume(&o, path, false));
    check_ok(qz_output_commit(o));
    cr_assert(holds(path, "w") && !holds(path, QZ_OUTPUT_MARKER));
}

Test(output, two_runs_do_not_meet)
{
    qz_output *first, *second;
    check_ok(qz_output_open(&first, test_path("out"), false));
    check_fails(QZ_IO, "another run is working there", qz_output_open(&second, test_path("out"), false));
    check_ok(qz_output_commit(first));
}

Test(output, names_that_are_none)
{
    check_fails(QZ_ARG, "no folder's name", qz_output_check("", false));
    check_fails(QZ_ARG, "cannot be replaced", qz_output_check("/", true));
    check_fails(QZ_ARG, "cannot be replaced", qz_output_check(".", true));
    check_fails(QZ_ARG, "cannot be replaced", qz_output_check("a/..", true));
}

Test(output, places_where_nothing_can_be_made)
{
    qz_output *o;
    check_fails(QZ_IO, "/proc", qz_output_open(&o, "/proc/out", false));
    check_fails(QZ_IO, "/proc", qz_output_open(&o, "/proc/a/out", false));
}

Test(output, inputs_are_kept)
{
    const char *path = test_path("out");
    make_result(path, "text.txt");
    check_fails(QZ_ARG, "which is read, lies there", qz_output_keeps(path, test_path("out/text.txt")));
    check_fails(QZ_ARG, "which is read", qz_output_keeps(path, path));
    check_ok(qz_folder_make(test_path("out2")));
    check_ok(qz_output_keeps(path, test_path("out2")));
    check_ok(qz_output_keeps(path, NULL));
    check_ok(qz_output_keeps(test_path("new"), path));
}
