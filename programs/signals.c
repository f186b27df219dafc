/* The handler only counts. The third signal ends the process at once, for the case that a step takes too long; a
 * folder OUTPUT.partial that it leaves is recognised and removed by the next run. */
#include "programs/signals.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t asked;

static void on_signal(int number)
{
    asked = asked + 1;
    if (asked < 3) return;
    signal(number, SIG_DFL);
    raise(number);
}

void qz_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

bool qz_signals_asked_to_stop(void)
{
    return asked != 0;
}

qz_status qz_signals_check(void)
{
    return asked ? QZ_FAIL(QZ_INTERRUPTED, "stopped on request") : QZ_OK;
}
