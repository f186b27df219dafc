/* How much memory the process has used: anonymous pages (ours) and resident pages (mapped files included). */
#ifndef QZ_PROGRAMS_MEMORY_USE_H
#define QZ_PROGRAMS_MEMORY_USE_H

#include <stdint.h>

typedef struct qz_memory_use {
    uint64_t anonymous_peak; /* largest value that was sampled */
    uint64_t resident_peak;  /* VmHWM, kept by the system */
} qz_memory_use;

/* Reads /proc/self/status and raises the peaks; where there is none, they stay. */
void qz_memory_use_sample(qz_memory_use *m);
/* "model name" of /proc/cpuinfo, or "unknown". */
const char *qz_host_cpu(char *out, int size);

#endif
