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
    .convert = qz_ref_convert,
    .embedding = qz_ref_embedding,
    .rmsnorm = qz_ref_rmsnorm,
    .linear = qz_cpu_linear,
    .rope = qz_ref_rope,
    .attention = qz_ref_attention,
    .swiglu = qz_ref_swiglu,
    .add = qz_ref_add,
    .gram = qz_cpu_gram,
    .channel_stats = qz_ref_channel_stats,
    .quadratic_form = qz_cpu_quadratic_form,
    .log_prob = qz_ref_log_prob,
    .first_nonfinite = qz_ref_first_nonfinite,
};
