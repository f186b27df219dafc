/* Every backend against `ref`, and against itself with other numbers of threads. */
#include "base/parallel.h"
#include "testing/kernel_cases.h"

static double largest(const double *x, size_t count)
{
    double max = 0;
    for (size_t i = 0; i < count; i++) max = fmax(max, fabs(x[i]));
    return max;
}

static void check_equals_ref(const kernel_case *c, int shape, const qz_backend *backend)
{
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    kernel_run want = kernel_case_run(c, shape, qz_backend_at(0), arena);
    kernel_run got = kernel_case_run(c, shape, backend, arena);
    cr_assert(want.count == got.count && want.count > 0);
    const double scale = largest(want.out, want.count);
    double worst = 0;
    for (size_t i = 0; i < want.count; i++) {
        const double error = want.out[i] == got.out[i] ? 0 : fabs(want.out[i] - got.out[i]) / scale;
        cr_assert(error <= c->tolerance, "%s %s, shape %d, element %zu: %.9g, ref %.9g (error %.3g of %.3g)",
                  backend->plugin.name, c->name, shape, i, got.out[i], want.out[i], error, scale);
        worst = fmax(worst, error);
    }
    cr_log_info("%s %s, shape %d: error %.3g of the largest value", backend->plugin.name, c->name, shape, worst);
    qz_arena_free(arena);
}

/* The bytes of one thread come out of 2 and 8 as well. */
static void check_threads(const kernel_case *c, int shape, const qz_backend *backend)
{
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    qz_threads_set(1);
    kernel_run one = kernel_case_run(c, shape, backend, arena);
    for (int threads = 2; threads <= 8; threads *= 4) {
        qz_threads_set(threads);
        kernel_run many = kernel_case_run(c, shape, backend, arena);
        cr_assert(one.count == many.count);
        cr_assert(memcmp(one.out, many.out, one.count * sizeof *one.out) == 0, "%s %s, shape %d: %d threads differ",
                  backend->plugin.name, c->name, shape, threads);
    }
    qz_arena_free(arena);
}

static void for_all(void (*check)(const kernel_case *c, int shape, const qz_backend *backend), size_t first)
{
    for (size_t b = first; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available() || backend->device != QZ_HOST) continue;
        for (int i = 0; i < KERNEL_CASES; i++) {
            for (int shape = 0; shape < 8 && kernel_cases[i].dims[shape][0]; shape++)
                check(&kernel_cases[i], shape, backend);
        }
    }
}

Test(kernels_backends, every_operation_has_a_case){
#define QZ_OP(op, args)                                                                                                \
    {                                                                                                                  \
        int found = 0;                                                                                                 \
        for (int i = 0; i < KERNEL_CASES; i++) found += strcmp(kernel_cases[i].name, #op) == 0;                        \
        cr_expect(found == 1, "no case for %s", #op);                                                                  \
    }
#include "kernels/ops.def"
#undef QZ_OP
}

Test(kernels_backends, equal_ref)
{
    for_all(check_equals_ref, 1);
}

Test(kernels_backends, do_not_depend_on_threads)
{
    for_all(check_threads, 0);
}

Test(kernels_backends, memory_round_trip)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        const qz_backend *backend = qz_backend_at(b);
        if (!backend->available()) continue;
        char in[1000], out[1000] = {0};
        void *there;
        for (int i = 0; i < 1000; i++) in[i] = (char)i;
        check_ok(backend->memory_new(&there, sizeof in));
        cr_assert((uintptr_t)there % 64 == 0);
        check_ok(backend->to_device(there, in, sizeof in));
        check_ok(backend->synchronize());
        check_ok(backend->to_host(out, there, sizeof in));
        cr_assert(memcmp(in, out, sizeof in) == 0);
        backend->memory_free(there);
        backend->memory_free(NULL);
    }
}

Test(kernels_backends, memory_that_is_not_there)
{
    void *p;
    check_fails(QZ_MEMORY, "host memory", qz_backend_at(0)->memory_new(&p, SIZE_MAX));
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "host memory", qz_backend_at(0)->memory_new(&p, 1));
}
