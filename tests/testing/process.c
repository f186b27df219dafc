/* fork and exec, outputs through files so that nothing can block. */
#include "testing/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "testing/testing.h"

static void become(const char *const *argv, const char *out, const char *err, test_limits limits)
{
    if (!freopen(out, "w", stdout) || !freopen(err, "w", stderr)) _exit(126);
    if (limits.file_size) {
        struct rlimit limit = {limits.file_size, limits.file_size};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(126);
    }
    signal(SIGINT, SIG_DFL);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static void wait_and_stop(pid_t pid, const char *path)
{
    struct timespec pause = {0, 2000000};
    struct stat s;
    for (int i = 0; i < 30000; i++) {
        if (stat(path, &s) == 0 || has_ended(pid)) break;
        nanosleep(&pause, NULL);
    }
    cr_assert(kill(pid, SIGINT) == 0);
}

static void wait_and_kill(pid_t pid, double seconds)
{
    const struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
    kill(pid, SIGKILL); /* it may have ended */
}

static void read_text(char *text, size_t size, const char *path)
{
    FILE *f = fopen(path, "rb");
    cr_assert(f != NULL, "%s", path);
    size_t used = fread(text, 1, size - 1, f);
    text[used] = '\0';
    fclose(f);
}

void test_process_run(test_process *p, const char *const *argv, test_limits limits)
{
    const char *out = test_path("process.out"), *err = test_path("process.err");
    int status;
    fflush(NULL);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) become(argv, out, err, limits);
    if (limits.stop_on) wait_and_stop(pid, limits.stop_on);
    if (limits.kill_after > 0) wait_and_kill(pid, limits.kill_after);
    cr_assert(waitpid(pid, &status, 0) == pid);
    p->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    read_text(p->out, sizeof p->out, out);
    read_text(p->err, sizeof p->err, err);
}
