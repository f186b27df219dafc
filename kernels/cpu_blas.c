/* The door to OpenBLAS. Every call comes from inside a parallel loop of ours and works on one tile, where the OpenMP
 * flavour stays on the calling thread. Its thread count is never set: openblas_set_num_threads would also change
 * OpenMP's. Which kernels (which "core") run is settled before main. */
#include "kernels/cpu_blas.h"

#include <cblas.h>
#include <stddef.h>
#include <stdlib.h>
#include <strings.h>

void qz_blas_nt(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, float beta, qz_tile c)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1, a.data, (int)a.stride, b.data,
                (int)b.stride, beta, c.data, (int)c.stride);
}

void qz_blas_nn(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, float beta, qz_tile c)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1, a.data, (int)a.stride, b.data,
                (int)b.stride, beta, c.data, (int)c.stride);
}

void qz_blas_tn(int64_t m, int64_t n, int64_t k, qz_tile a, qz_tile b, qz_tile c)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, 1, a.data, (int)a.stride, b.data,
                (int)b.stride, 1, c.data, (int)c.stride);
}

void qz_blas_syrk(int64_t n, int64_t k, qz_tile a, qz_tile c)
{
    cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, (int)n, (int)k, 1, a.data, (int)a.stride, 1, c.data,
                (int)c.stride);
}

void qz_blas_unit_solve(int64_t m, int64_t n, qz_tile l, qz_tile x)
{
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasUnit, (int)m, (int)n, 1, l.data, (int)l.stride,
                x.data, (int)x.stride);
}

void qz_blas64_nt(int64_t m, int64_t n, int64_t k, qz_tile64 a, qz_tile64 b, qz_tile64 c)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, -1, a.data, (int)a.stride, b.data,
                (int)b.stride, 1, c.data, (int)c.stride);
}

void qz_blas64_syrk(int64_t n, int64_t k, qz_tile64 a, qz_tile64 c)
{
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, (int)n, (int)k, -1, a.data, (int)a.stride, 1, c.data,
                (int)c.stride);
}

void qz_blas64_solve(int64_t m, int64_t n, qz_tile64 l, qz_tile64 x)
{
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (int)m, (int)n, 1, l.data,
                (int)l.stride, x.data, (int)x.stride);
}

/* LAPACK's, which OpenBLAS brings along; its headers come with another package. */
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);

int64_t qz_lapack_cholesky(int64_t n, qz_tile64 a)
{
    /* the lower triangle by rows is the upper one by columns */
    const int size = (int)n, stride = (int)a.stride;
    int info = 0;
    dpotrf_("U", &size, a.data, &stride, &info);
    return info > 0 ? info - 1 : -1;
}

const char *qz_blas_describe(void)
{
    return openblas_get_config();
}

/* For each core the instruction set that its kernels use, and what to say on a processor that offers more. */
#define SENTENCE(core, offer, offer_core)                                                                              \
    "OpenBLAS runs its " core " kernels, but this processor offers " offer                                             \
    ": matrix products take about twice as long or more; unset OPENBLAS_CORETYPE in the environment, or set it "       \
    "to " offer_core
#define CORE(name, level) {name, level, SENTENCE(name, "AVX2", "Haswell"), SENTENCE(name, "AVX-512", "SkylakeX")},

static const struct {
    const char *name;
    int level;
    const char *for_avx2, *for_avx512;
} cores[] = {CORE("Prescott", 0) CORE("Core2", 0) CORE("Penryn", 0) CORE("Dunnington", 0) CORE("Nehalem", 0)
                 CORE("Atom", 0) CORE("Athlon", 0) CORE("Opteron", 0) CORE("Opteron_SSE3", 0) CORE("Barcelona", 0)
                     CORE("Bobcat", 0) CORE("Nano", 0) CORE("Sandybridge", 1) CORE("Bulldozer", 1) CORE("Piledriver", 1)
                         CORE("Steamroller", 1) CORE("Haswell", 2) CORE("Excavator", 2) CORE("Zen", 2)};

const char *qz_blas_core_warning(const char *core, int level)
{
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        if (strcasecmp(core, cores[i].name) != 0 || cores[i].level >= level) continue;
        return level >= 3 ? cores[i].for_avx512 : cores[i].for_avx2;
    }
    return NULL;
}

/* As in qz_blas_core_warning; AVX alone brings no new kernels worth a sentence. */
static int processor_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 3;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 2;
#endif
    return 0;
}

const char *qz_blas_warning(void)
{
    return qz_blas_core_warning(openblas_get_corename(), processor_level());
}

/* Exported by builds with several cores, though in no header. */
extern void gotoblas_dynamic_init(void) __attribute__((weak));
extern void gotoblas_dynamic_quit(void) __attribute__((weak));

/* OpenBLAS before 0.3.25 takes an Intel processor newer than itself for a Prescott, with products at half the speed or
 * less (OpenMathLib/OpenBLAS issue 4267). Unless the environment insists, choose again, before main and any thread. */
__attribute__((constructor)) static void choose_core(void)
{
    if (getenv("OPENBLAS_CORETYPE") || !qz_blas_warning() || !gotoblas_dynamic_init || !gotoblas_dynamic_quit) return;
    if (setenv("OPENBLAS_CORETYPE", processor_level() >= 3 ? "SkylakeX" : "Haswell", 1) != 0) return;
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    unsetenv("OPENBLAS_CORETYPE");
}
