/* /proc/self/status and /proc/cpuinfo, as Linux describes them in proc(5). */
#include "programs/memory_use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t kilobytes(const char *line, const char *key)
{
    size_t length = strlen(key);
    if (strncmp(line, key, length) != 0) return 0;
    return strtoull(line + length, NULL, 10) * 1024;
}

static void raise_to(uint64_t *peak, uint64_t value)
{
    if (value > *peak) *peak = value;
}

void qz_memory_use_sample(qz_memory_use *m)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        raise_to(&m->anonymous_peak, kilobytes(line, "RssAnon:"));
        raise_to(&m->resident_peak, kilobytes(line, "VmHWM:"));
    }
    fclose(f);
}

const char *qz_host_cpu(char *out, int size)
{
    char line[256];
    snprintf(out, (size_t)size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return out;
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(out, (size_t)size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    fclose(f);
    return out;
}
