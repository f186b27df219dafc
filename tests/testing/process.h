/* Running a finished program as a user does: arguments in, exit code and both outputs back. No shell. */
#ifndef QZ_TESTING_PROCESS_H
#define QZ_TESTING_PROCESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct test_process {
    int exit_code; /* 128 + n when signal n ended it */
    char out[1 << 16], err[1 << 16];
} test_process;

typedef struct test_limits {
    unsigned long file_size; /* largest file that it may write; 0: no limit */
    const char *stop_on;     /* send SIGINT as soon as this path exists; NULL: never */
    double kill_after;       /* send SIGKILL after so many seconds, if it still runs; 0: never */
} test_limits;

/* argv ends with NULL; argv[0] is the program. */
void test_process_run(test_process *p, const char *const *argv, test_limits limits);

#endif
