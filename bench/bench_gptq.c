/* How long one matrix takes: bench_gptq N K [solver [range [bits [group [order]]]]], for example
 *
 *     bench_gptq 2048 8192 gptq minmax 4 128 1
 *
 * The weight is random, inputs are neighbouring channels that move together, of which every 17th is larger. Prints the
 * time of a first solve, of a second one that shares its input's factor, and what both lose. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/parallel.h"
#include "quant/quant.h"

enum { TOKENS = 1024, PIECE = 256 };

typedef struct problem {
    qz_arena *arena, *shared_arena;
    qz_tensor weight;
    qz_stats stats;
} problem;

static qz_status inputs(qz_stats *stats, const qz_backend *backend, qz_rng *rng, qz_arena *arena)
{
    const int64_t k = stats->k;
    float *x = qz_arena_array(arena, float, (size_t)(PIECE * k));
    if (!x) return qz_arena_failed(arena);
    const qz_tensor view = qz_tensor_2d(x, QZ_F32, PIECE, k);
    for (int done = 0; done < TOKENS; done += PIECE) {
        for (int64_t i = 0; i < PIECE * k; i++) {
            const float before = i % k ? x[i - 1] / (i % k % 17 == 1 ? 10 : 1) : 0;
            x[i] = ((float)qz_rng_normal(rng) + 0.8f * before) * (i % k % 17 == 0 ? 10 : 1);
        }
        QZ_TRY(qz_stats_add(stats, backend, &view));
    }
    return qz_stats_finish(stats);
}

static qz_status problem_new(problem *p, int64_t n, int64_t k, const qz_backend *backend)
{
    qz_rng rng;
    qz_rng_seed(&rng, 1, 2);
    QZ_TRY(qz_arena_new(&p->arena, "problem"));
    QZ_TRY(qz_arena_new(&p->shared_arena, "shared"));
    QZ_TRY(qz_stats_new(&p->stats, k, (qz_stats_wants){0}, 1, 2, p->arena));
    float *w = qz_arena_array(p->arena, float, (size_t)(n * k));
    if (!w) return qz_arena_failed(p->arena);
    for (int64_t i = 0; i < n * k; i++) w[i] = (float)(qz_rng_normal(&rng) * 0.02);
    p->weight = qz_tensor_2d(w, QZ_F32, n, k);
    return inputs(&p->stats, backend, &rng, p->arena);
}

static const char *argument(int argc, char **argv, int i, const char *fallback)
{
    return i < argc ? argv[i] : fallback;
}

static qz_status run(int argc, char **argv)
{
    problem p;
    const qz_backend *backend = qz_backend_best();
    const int solver = qz_plugins_find(qz_solvers(), argument(argc, argv, 3, "gptq"));
    const int range = qz_plugins_find(qz_ranges(), argument(argc, argv, 4, "minmax"));
    char format[16];
    snprintf(format, sizeof format, "int%s", argument(argc, argv, 5, "4"));
    if (solver < 0 || range < 0) return QZ_FAIL(QZ_ARG, "no such solver or range");
    const qz_solver *s = qz_solver_at((size_t)solver);
    const qz_range *r = qz_range_at((size_t)range);
    QZ_TRY(problem_new(&p, atoll(argv[1]), atoll(argv[2]), backend));
    qz_solve_shared shared = {.arena = p.shared_arena};
    qz_solve_args args = {.backend = backend, .weight = p.weight, .stats = &p.stats, .range = r, .shared = &shared};
    args.scheme =
        (qz_scheme){.format = qz_format_find(format), .piece_rows = 1, .symmetric = true, .scale_type = QZ_F16};
    args.scheme.piece_cols = atoll(argument(argc, argv, 6, "128"));
    args.range_options = qz_options_default(r->plugin.options);
    args.solver_options = qz_options_default(s->plugin.options);
    if (argc > 7) args.solver_options.value[0] = atoi(argv[7]);
    for (int i = 0; i < 2; i++) {
        qz_qtensor q;
        qz_solve_info info;
        double loss, energy;
        const double start = qz_seconds(), busy = (double)clock();
        QZ_TRY(s->solve(&q, &info, &args, p.arena));
        const double seconds = qz_seconds() - start, cpu = ((double)clock() - busy) / CLOCKS_PER_SEC;
        QZ_TRY(qz_output_loss(&loss, &energy, backend, &p.weight, &q, &p.stats, p.arena));
        printf("%s x %s %s %s, %s: %.3f s (%.3f s of processor), loss %.6g of the energy, %lld rows kept, damping %g, "
               "peak %.0f MB\n",
               argv[1], argv[2], s->plugin.name, r->plugin.name, i ? "factor shared" : "first", seconds, cpu,
               loss / energy, (long long)info.rows_kept, info.damping,
               (double)(qz_arena_peak(p.arena) + qz_arena_peak(p.shared_arena)) / 1e6);
    }
    qz_arena_free(p.arena);
    qz_arena_free(p.shared_arena);
    return QZ_OK;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "bench_gptq N K [solver [range [bits [group [order: 0 natural, 1 static, 2 gar, 3 desc]]]]]\n");
        return 2;
    }
    const qz_status status = run(argc, argv);
    if (status != QZ_OK) fprintf(stderr, "bench_gptq: %s\n", qz_error_message());
    return status != QZ_OK;
}
