/* A stand-in for Criterion's runner in the preset `tsan`: its sandbox maps memory where ThreadSanitizer keeps its own
 * and cannot start there. The tests stay as they are: this file defines the functions that Criterion's macros call, and
 * a main that runs every registered test in a process of its own: the program itself, started anew with --run, because
 * an OpenMP run-time that watches its threads does not survive a fork. --filter SUITE/TEST is understood as well. */
#include <criterion/criterion.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* formats come through functions that Criterion declares */

struct criterion_options criterion_options;

extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak)), *__stop_cr_sts[] __attribute__((weak));

enum { SKIPPED = 77 };

static struct criterion_test *current;

int cr_asprintf(char **out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vasprintf(out, format, args);
    va_end(args);
    return n;
}

void cr_asprintf_free(char *text)
{
    free(text);
}

char *cr_translate_assert_msg(int index, ...)
{
    char *text;
    return cr_asprintf(&text, "assertion failed (message %d of Criterion)", index) < 0 ? NULL : text;
}

void cri_asserts_passed_incr(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *s)
{
    if (!s->passed) printf("%s:%u: %s\n", s->file, s->line, s->message);
}

void criterion_abort_test(void)
{
    exit(1);
}

void criterion_continue_test(void)
{
    criterion_abort_test();
}

void criterion_skip_test(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    exit(SKIPPED);
}

void cr_log(enum criterion_severity severity, const char *format, ...)
{
    (void)severity;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

/* The fixtures that TestSuite(name, ...) gives to all tests of a suite; NULL when there are none. */
static const struct criterion_test_extra_data *suite_of(const struct criterion_test *t)
{
    for (struct criterion_suite **s = __start_cr_sts; s < __stop_cr_sts; s++)
        if (*s && strcmp((*s)->name, t->category) == 0 && (*s)->data) return (*s)->data;
    return NULL;
}

void criterion_internal_test_setup(void)
{
    const struct criterion_test_extra_data *suite = suite_of(current);
    if (suite && suite->init) suite->init();
    if (current->data->init) current->data->init();
}

void criterion_internal_test_main(void (*test)(void))
{
    test();
}

void criterion_internal_test_teardown(void)
{
    const struct criterion_test_extra_data *suite = suite_of(current);
    if (current->data->fini) current->data->fini();
    if (suite && suite->fini) suite->fini();
}

static void name_of(char name[512], const struct criterion_test *t)
{
    snprintf(name, 512, "%s/%s", t->category, t->name);
}

/* 0: passed, 1: failed, SKIPPED. */
static int start(char *program, const struct criterion_test *t)
{
    char name[512], run[] = "--run";
    name_of(name, t);
    char *const arguments[] = {program, run, name, NULL};
    pid_t child;
    int status;
    fflush(NULL);
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) != 0) return 1;
    if (waitpid(child, &status, 0) != child) return 1;
    if (WIFSIGNALED(status)) return WTERMSIG(status) == t->data->signal ? 0 : 1;
    int code = WEXITSTATUS(status);
    return code == SKIPPED ? SKIPPED : code == t->data->exit_code && t->data->signal == 0 ? 0 : 1;
}

static int run_here(const char *name)
{
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
        char other[512];
        name_of(other, *t);
        if (strcmp(name, other) != 0) continue;
        current = *t;
        current->test();
        return 0;
    }
    return 1;
}

static int run_all(char *program, const char *filter)
{
    int ran = 0, failed = 0, skipped = 0;
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
        char name[512];
        name_of(name, *t);
        if (filter && strcmp(filter, name) != 0) continue;
        int result = (*t)->data->disabled ? SKIPPED : start(program, *t);
        ran++;
        skipped += result == SKIPPED;
        failed += result == 1;
        if (result == 1) printf("[FAIL] %s\n", name);
    }
    printf("%d run, %d failed, %d skipped\n", ran, failed, skipped);
    return failed > 0 || ran == 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--run") == 0) return run_here(argv[2]);
    return run_all(argv[0], argc == 3 && strcmp(argv[1], "--filter") == 0 ? argv[2] : NULL);
}
