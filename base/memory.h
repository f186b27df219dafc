/* What this machine can give. */
#ifndef QZ_BASE_MEMORY_H
#define QZ_BASE_MEMORY_H

#include <stdint.h>

/* MemAvailable of /proc/meminfo in bytes; 0 when it cannot be read. */
uint64_t qz_memory_available(void);

#endif
