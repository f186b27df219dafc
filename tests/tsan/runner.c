/* A stand-in for Criterion's runner in the preset `tsan`: its sandbox maps memory where ThreadSanitizer keeps its own
 * and cannot start there. The tests stay as they are: this file defines the functions that Criterion's macros call, and
 * a main that runs every registered test in a child process. Only --filter SUITE/TEST is understood. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* formats come through functions that Criterion declares */

struct criterion_options criterion_options;

extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];

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

void criterion_internal_test_setup(void)
{
    if (current->data->init) current->data->init();
}

void criterion_internal_test_main(void (*test)(void))
{
    test();
}

void criterion_internal_test_teardown(void)
{
    if (current->data->fini) current->data->fini();
}

/* 0: passed, 1: failed, SKIPPED. */
static int run(struct criterion_test *t)
{
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return 1;
    if (child == 0) {
        current = t;
        t->test();
        exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child) return 1;
    if (WIFSIGNALED(status)) return WTERMSIG(status) == t->data->signal ? 0 : 1;
    int code = WEXITSTATUS(status);
    return code == SKIPPED ? SKIPPED : code == t->data->exit_code && t->data->signal == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *filter = argc == 3 && strcmp(argv[1], "--filter") == 0 ? argv[2] : NULL;
    int ran = 0, failed = 0, skipped = 0;
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", (*t)->category, (*t)->name);
        if (filter && strcmp(filter, name) != 0) continue;
        int result = (*t)->data->disabled ? SKIPPED : run(*t);
        ran++;
        skipped += result == SKIPPED;
        failed += result == 1;
        if (result == 1) printf("[FAIL] %s\n", name);
    }
    printf("%d run, %d failed, %d skipped\n", ran, failed, skipped);
    return failed > 0 || ran == 0;
}
