/* The thread-local message behind qz_status. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[sizeof((qz_error *)0)->message];

const char *qz_error_message(void)
{
    return message;
}

const char *qz_status_name(qz_status status)
{
    static const char *const names[] = {"ok",    "argument",    "memory",  "io",     "format",
                                        "shape", "unsupported", "numeric", "device", "interrupted"};
    unsigned i = (unsigned)status;
    return i < sizeof names / sizeof *names ? names[i] : "unknown";
}

qz_status qz_error_set(qz_status code, const char *format, ...)
{
    /* The arguments may point into the old message, so print beside it first. */
    char fresh[sizeof message];
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    memcpy(message, fresh, sizeof message);
    return code;
}

qz_status qz_error_context(qz_status code, const char *format, ...)
{
    char fresh[sizeof message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof fresh) snprintf(fresh + n, sizeof fresh - (size_t)n, ": %s", message);
    memcpy(message, fresh, sizeof message);
    return code;
}

void qz_error_clear(void)
{
    message[0] = '\0';
}

void qz_error_save(qz_error *out, qz_status code)
{
    out->code = code;
    memcpy(out->message, message, sizeof message);
}

qz_status qz_error_restore(const qz_error *saved)
{
    memcpy(message, saved->message, sizeof message);
    return saved->code;
}
