/* Progress on standard error: a bar with an estimate on a terminal, otherwise a line when a phase begins, when one took
 * long, and every ten seconds; nothing when quiet. Also samples memory on the way. */
#ifndef QZ_PROGRAMS_TERMINAL_H
#define QZ_PROGRAMS_TERMINAL_H

#include <stdio.h>

#include "base/progress.h"
#include "programs/memory_use.h"

typedef struct qz_terminal {
    FILE *err;
    bool quiet, is_terminal;
    bool bar_shown;
    bool begun;       /* the phase that is under way has had its first line */
    double last_line; /* when a line was last printed */
    qz_memory_use memory;
} qz_terminal;

qz_terminal qz_terminal_new(FILE *err, bool quiet);
/* A qz_progress_fn; context is the qz_terminal. Nonzero when the user asked to stop. */
int qz_terminal_progress(void *context, const qz_progress_state *state);
/* Takes the bar away before something else is printed. */
void qz_terminal_clear(qz_terminal *t);

#endif
