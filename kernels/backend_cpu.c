/* The backend `cpu`: `ref` with the slots replaced that a measurement says pay. */
#include "kernels/cpu_blas.h"
#include "kernels/tables.h"

static bool available(void)
{
    return true;
}

const qz_backend qz_backend_cpu = {
    .plugin = {"cpu", "all cores of this machine: OpenBLAS and OpenMP", "", NULL},
    .available = available,
    .device = QZ_HOST,
    .memory_new = qz_host_memory_new,
    .memory_free = qz_host_memory_free,
    .to_device = qz_host_copy,
    .to_host = qz_host_copy,
    .synchronize = qz_host_synchronize,
    .describe = qz_blas_describe,
    .warning = qz_blas_warning,
#define QZ_OP(name, args) .name = qz_cpu_##name,
#include "kernels/ops.def"
#undef QZ_OP
};
