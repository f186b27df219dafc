/* One sink for warnings. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static struct {
    qz_log_fn fn;
    void *context;
} sink; /* set once by the program, before work starts */

void qz_log_to(qz_log_fn fn, void *context)
{
    sink.fn = fn;
    sink.context = context;
}

void qz_warn(const char *format, ...)
{
    char text[1024];
    va_list args;
    if (!sink.fn) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sink.fn(sink.context, text);
}
