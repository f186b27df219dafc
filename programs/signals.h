/* Ctrl-C, SIGTERM and SIGHUP ask the work to stop; it stops between two steps and cleans up. */
#ifndef QZ_PROGRAMS_SIGNALS_H
#define QZ_PROGRAMS_SIGNALS_H

#include <stdbool.h>

#include "base/status.h"

/* From now on. A closed pipe and a limit on file sizes are errors of a write, no longer signals. */
void qz_signals_catch(void);
bool qz_signals_asked_to_stop(void);
/* QZ_INTERRUPTED when asked to stop. */
QZ_NODISCARD qz_status qz_signals_check(void);

#endif
