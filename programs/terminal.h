/* Progress on standard error: a bar with an estimate on a terminal, otherwise a line when a phase is first met, when
 * one took long, and every ten seconds; nothing when quiet. Also remembers how long each phase took, and samples memory
 * on the way. */
#ifndef QZ_PROGRAMS_TERMINAL_H
#define QZ_PROGRAMS_TERMINAL_H

#include <stdio.h>

#include "base/progress.h"
#include "programs/memory_use.h"

enum { QZ_TERMINAL_PHASES = 16 };

typedef struct qz_terminal_phase {
    char name[48];
    double seconds;
} qz_terminal_phase;

typedef struct qz_terminal {
    FILE *err;
    bool quiet, is_terminal;
    bool bar_shown;
    double last_line;                            /* when a line was last printed */
    qz_terminal_phase phase[QZ_TERMINAL_PHASES]; /* finished ones, in the order of their first end */
    int phases;
    qz_memory_use memory;
} qz_terminal;

qz_terminal qz_terminal_new(FILE *err, bool quiet);
/* A qz_progress_fn; context is the qz_terminal. Nonzero when the user asked to stop. */
int qz_terminal_progress(void *context, const qz_progress_state *state);
/* Adds to a phase that was timed otherwise. */
void qz_terminal_add_phase(qz_terminal *t, const char *name, double seconds);
/* Takes the bar away before something else is printed. */
void qz_terminal_clear(qz_terminal *t);

#endif
