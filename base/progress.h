/* Progress of one phase: a bar with an estimate on a terminal, a plain line now and then otherwise, nothing when quiet.
 * The module that works calls step; where the text goes is the program's business (a callback). */
#ifndef QZ_BASE_PROGRESS_H
#define QZ_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qz_progress qz_progress;

/* What a phase's state looks like to whoever draws it. */
typedef struct qz_progress_state {
    const char *phase;
    const char *item; /* what is being done now, may be "" */
    uint64_t done, total;
    double seconds, remaining; /* remaining < 0: not known yet */
    bool finished;
} qz_progress_state;

/* Called at most about ten times a second, and at the start and end of a phase. Nonzero asks to stop. */
typedef int (*qz_progress_fn)(void *context, const qz_progress_state *state);

QZ_NODISCARD qz_status qz_progress_new(qz_progress **out, qz_progress_fn fn, void *context);
void qz_progress_free(qz_progress *p);
/* A NULL qz_progress is allowed everywhere and shows nothing. */
/* Ends the phase before it where that was not done. */
void qz_progress_begin(qz_progress *p, const char *phase, uint64_t total);
/* Inside a phase: from here on seconds are booked under `section`, until the next section or the end of the phase; the
 * phase keeps what lies outside sections. */
void qz_progress_section(qz_progress *p, const char *section);
/* QZ_INTERRUPTED when the user asked to stop: pass it on with QZ_TRY. */
QZ_NODISCARD qz_status qz_progress_step(qz_progress *p, uint64_t amount, const char *item);
void qz_progress_end(qz_progress *p);
/* Adds seconds that were measured otherwise. */
void qz_progress_book(qz_progress *p, const char *phase, double seconds);
/* The i-th phase or section in the order in which they were met, and its seconds; NULL behind the last. */
const char *qz_progress_at(const qz_progress *p, int i, double *seconds);
/* Seconds booked under that name, of a phase or a section (summed), 0 when unknown. */
double qz_progress_seconds(const qz_progress *p, const char *phase);

#endif
