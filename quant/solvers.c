/* The table of solvers, expanded from solvers.def. */
#include "quant/quant.h"

#define QZ_SOLVER(name) extern const qz_solver qz_solver_##name;
#include "quant/solvers.def"
#undef QZ_SOLVER

static const qz_solver *const table[] = {
#define QZ_SOLVER(name) &qz_solver_##name,
#include "quant/solvers.def"
#undef QZ_SOLVER
};

static const qz_plugin *const rows[] = {
#define QZ_SOLVER(name) &qz_solver_##name.plugin,
#include "quant/solvers.def"
#undef QZ_SOLVER
};

const qz_plugins *qz_solvers(void)
{
    static const qz_plugins list = {"solver", sizeof rows / sizeof *rows, rows};
    return &list;
}

const qz_solver *qz_solver_at(size_t i)
{
    return table[i];
}
