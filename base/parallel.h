/* Threads. The door to OpenMP: loops over fixed pieces of work whose results do not depend on who did them.
 *
 *     QZ_PARALLEL_FOR for (int64_t i = 0; i < tiles; i++) tile(i);
 *
 * The body must not depend on the thread: reductions go through per-piece slots that are added up in order. */
#ifndef QZ_BASE_PARALLEL_H
#define QZ_BASE_PARALLEL_H

#include <omp.h>

#define QZ_PARALLEL_FOR _Pragma("omp parallel for schedule(dynamic, 1)")
/* For many small equal pieces. */
#define QZ_PARALLEL_FOR_STATIC _Pragma("omp parallel for schedule(static)")

static inline void qz_threads_set(int n)
{
    omp_set_num_threads(n);
}
static inline int qz_threads(void)
{
    return omp_get_max_threads();
}
static inline int qz_thread_index(void)
{
    return omp_get_thread_num();
}
static inline double qz_seconds(void)
{
    return omp_get_wtime();
}

#endif
