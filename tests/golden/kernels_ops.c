/* Forward values of golden/ops on every backend of the host; attention and rope are in a file of their own. */
#include "testing/op_fixture.h"

static void run_rmsnorm(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x")),
              w = fixture_input(f, "w");
    const float offset = strncmp(f->name, "rmsnorm_gemma", 13) == 0 ? 1 : 0;
    check_ok(qz_op_rmsnorm(f->backend, &y, &x, &w, (float)fixture_parameter(f, "eps", 1e-6), offset));
    fixture_check(f, "y", &all);
}

static void run_swiglu(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), gate = fixture_flat(fixture_input(f, "gate")),
              up = fixture_flat(fixture_input(f, "up"));
    check_ok(qz_op_swiglu(f->backend, &y, &gate, &up));
    fixture_check(f, "y", &all);
}

static void run_geglu(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), gate = fixture_flat(fixture_input(f, "gate")),
              up = fixture_flat(fixture_input(f, "up"));
    check_ok(qz_op_geglu(f->backend, &y, &gate, &up));
    fixture_check(f, "y", &all);
}

static void run_softcap(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x"));
    const double cap = fixture_parameter(f, "cap", 0);
    cr_assert(cap > 0, "%s has no cap", f->name);
    check_ok(qz_op_softcap(f->backend, &y, &x, (float)cap));
    fixture_check(f, "y", &all);
}

static void run_linear(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), x = fixture_flat(fixture_input(f, "x")),
              w = fixture_input(f, "w"), b = {0};
    const bool bias = qz_safetensors_find(f->file, "b") != NULL;
    if (bias) b = fixture_input(f, "b");
    check_ok(qz_op_linear(f->backend, &y, &x, &w, bias ? &b : NULL, false));
    fixture_check(f, "y", &all);
}

static void run_embedding(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "y"), y = fixture_flat(all), w = fixture_input(f, "w");
    check_ok(qz_op_embedding(f->backend, &y, &w, fixture_indices(f, "ids")));
    fixture_check(f, "y", &all);
}

static const fixture_op operations[] = {{"rmsnorm", run_rmsnorm}, {"swiglu", run_swiglu},
                                        {"linear", run_linear},   {"geglu_tanh", run_geglu},
                                        {"softcap", run_softcap}, {"embedding", run_embedding}};

Test(kernels_golden, forward_values)
{
    fixture_run_all(operations, sizeof operations / sizeof *operations);
}
