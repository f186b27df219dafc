/* The list of backends and the measurement. */
#include "kernels/kernels.h"
#include "base/arena.h"
#include "testing/testing.h"

Test(kernels, finds_by_name)
{
    const qz_backend *found = NULL;
    for (size_t i = 0; i < qz_backends()->count; i++) {
        const qz_backend *backend = qz_backend_at(i);
        cr_assert(&backend->plugin == qz_backends()->rows[i]);
        if (!backend->available()) continue;
        check_ok(qz_backend_find(&found, backend->plugin.name));
        cr_assert(found == backend);
    }
    cr_assert(qz_backend_at(qz_backends()->count) == NULL);
    cr_assert_str_eq(qz_backend_at(0)->plugin.name, "ref");
    cr_assert_str_eq(qz_backends()->kind, "backend");
}

Test(kernels, unknown_name_lists_those_that_exist)
{
    const qz_backend *found;
    check_fails(QZ_ARG, "backend gpu is not known; there are: ref, cpu", qz_backend_find(&found, "gpu"));
}

Test(kernels, best_is_not_ref)
{
    cr_assert(qz_backend_best()->available());
    cr_assert(qz_backend_best() != qz_backend_at(0));
}

Test(kernels, measures)
{
    double rate = 0;
    qz_backend again = *qz_backend_best();
    check_ok(qz_backend_measure(&again, 0.01, &rate));
    cr_assert(rate > 0.1 && rate < 1e6, "%g GFLOP/s", rate);
}

Test(kernels, measuring_needs_memory_functions)
{
    double rate;
    qz_backend without = *qz_backend_at(0);
    without.to_device = NULL;
    check_fails(QZ_UNSUPPORTED, "backend ref lacks memory functions", qz_backend_measure(&without, 0.01, &rate));
}

Test(kernels, measuring_without_memory)
{
    double rate;
    for (int n = 1; n <= 4; n++) {
        qz_alloc_fail_at(n);
        const qz_status status = qz_backend_measure(qz_backend_best(), 0.01, &rate);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_MEMORY, "allocation %d: %s", n, qz_status_name(status));
    }
}
