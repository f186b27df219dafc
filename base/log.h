/* Warnings on their way to the user: the library never prints, the program installs where they go. */
#ifndef QZ_BASE_LOG_H
#define QZ_BASE_LOG_H

#include "base/status.h"

typedef void (*qz_log_fn)(void *context, const char *message);
/* One sink for the process, set by the program before work starts; NULL drops messages. */
void qz_log_to(qz_log_fn fn, void *context);
void qz_warn(const char *format, ...) QZ_PRINTF(1, 2);

#endif
