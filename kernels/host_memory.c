/* Memory functions of the backends that compute on the host: 64-byte aligned pieces through the allocation hook. */
#include <string.h>

#include "base/arena.h"
#include "kernels/tables.h"

enum { ALIGNMENT = 64 };

qz_status qz_host_memory_new(void **out, size_t bytes)
{
    void *raw = bytes <= SIZE_MAX - 2 * ALIGNMENT ? qz_malloc(bytes + 2 * ALIGNMENT) : NULL;
    if (!raw) return QZ_FAIL(QZ_MEMORY, "host memory: %zu bytes are not there", bytes);
    char *aligned = (char *)(((uintptr_t)raw + 2 * ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
    memcpy(aligned - sizeof raw, &raw, sizeof raw); /* where the piece began, for free; ALIGNMENT leaves room */
    *out = aligned;
    return QZ_OK;
}

void qz_host_memory_free(void *p)
{
    void *raw;
    if (!p) return;
    memcpy(&raw, (char *)p - sizeof raw, sizeof raw);
    qz_free(raw);
}

qz_status qz_host_copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return QZ_OK;
}

qz_status qz_host_synchronize(void)
{
    return QZ_OK;
}
