/* Gradients and losses of golden/ops on every backend of the host; attention and rope are in files of their own. */
#include "testing/op_fixture.h"

static qz_tensor flat_input(const op_fixture *f, const char *name)
{
    return fixture_flat(fixture_input(f, name));
}

static void run_rmsnorm(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "dx"), dx = fixture_flat(all), dw = fixture_output(f, "dw");
    qz_tensor dy = flat_input(f, "dy"), x = flat_input(f, "x"), w = fixture_input(f, "w");
    const float offset = strncmp(f->name, "rmsnorm_gemma", 13) == 0 ? 1 : 0;
    const float eps = (float)fixture_parameter(f, "eps", 1e-6);
    check_ok(qz_op_rmsnorm_grad(f->backend, &dx, &dw, &dy, &x, &w, eps, offset, false));
    fixture_check(f, "dx", &all);
    fixture_check(f, "dw", &dw);
}

static void run_gated(const op_fixture *f)
{
    qz_tensor dgate = fixture_output(f, "dgate"), dup = fixture_output(f, "dup");
    qz_tensor dy = flat_input(f, "dy"), gate = flat_input(f, "gate"), up = flat_input(f, "up");
    qz_tensor to_gate = fixture_flat(dgate), to_up = fixture_flat(dup);
    const bool gelu = strncmp(f->name, "geglu", 5) == 0;
    check_ok((gelu ? qz_op_geglu_grad : qz_op_swiglu_grad)(f->backend, &to_gate, &to_up, &dy, &gate, &up));
    fixture_check(f, "dgate", &dgate);
    fixture_check(f, "dup", &dup);
}

static void run_softcap(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "dx"), dx = fixture_flat(all);
    qz_tensor dy = flat_input(f, "dy"), y = flat_input(f, "x");
    const float cap = (float)fixture_parameter(f, "cap", 0);
    check_ok(qz_op_softcap(f->backend, &y, &y, cap));
    check_ok(qz_op_softcap_grad(f->backend, &dx, &dy, &y, cap));
    fixture_check(f, "dx", &all);
}

static void run_linear(const op_fixture *f)
{
    qz_tensor all = fixture_output(f, "dx"), dx = fixture_flat(all), dw = fixture_output(f, "dw");
    qz_tensor db = fixture_output(f, "db");
    qz_tensor dy = flat_input(f, "dy"), x = flat_input(f, "x"), w = fixture_input(f, "w");
    check_ok(qz_op_linear_grad_x(f->backend, &dx, &dy, &w, false));
    check_ok(qz_op_linear_grad_w(f->backend, &dw, &dy, &x));
    check_ok(qz_op_column_sums(f->backend, &db, &dy));
    fixture_check(f, "dx", &all);
    fixture_check(f, "dw", &dw);
    fixture_check(f, "db", &db);
}

static void run_embedding(const op_fixture *f)
{
    qz_tensor dw = fixture_output(f, "dw"), dy = flat_input(f, "dy");
    check_ok(qz_op_embedding_grad(f->backend, &dw, &dy, fixture_indices(f, "ids"), 1));
    fixture_check(f, "dw", &dw);
}

/* The loss is `weight` times the sum over the rows, as the gradient is. */
static void check_loss(const op_fixture *f, const qz_tensor *loss, double weight)
{
    double sum = 0;
    for (int64_t t = 0; t < loss->shape[0]; t++) sum += ((double *)loss->data)[t];
    float value = (float)(sum * weight);
    const qz_tensor one = qz_tensor_1d(&value, QZ_F32, 1);
    fixture_check(f, "y", &one);
}

static qz_tensor losses(const op_fixture *f, int64_t count)
{
    return qz_tensor_1d(qz_arena_array(f->arena, double, (size_t)count), QZ_F64, count);
}

static void run_cross_entropy(const op_fixture *f)
{
    qz_tensor grad = fixture_output(f, "dlogits"), logits = fixture_input(f, "logits");
    const qz_tensor loss = losses(f, logits.shape[0]);
    const int32_t *labels = fixture_indices(f, "labels");
    int kept = 0;
    for (int64_t t = 0; t < logits.shape[0]; t++) kept += labels[t] >= 0;
    cr_assert(kept > 0);
    const double weight = strstr(f->name, "mean") ? 1.0 / kept : 1;
    check_ok(qz_op_cross_entropy(f->backend, &loss, &grad, &logits, labels, (float)weight, false));
    fixture_check(f, "dlogits", &grad);
    check_loss(f, &loss, weight);
}

static void run_divergence(const op_fixture *f)
{
    qz_tensor grad = fixture_output(f, "dstudent"), student = fixture_input(f, "student");
    qz_tensor teacher = fixture_input(f, "teacher");
    const qz_tensor loss = losses(f, student.shape[0]);
    const double weight = 1.0 / (double)student.shape[0], temperature = fixture_parameter(f, "temperature", 0);
    check_ok(
        qz_op_distill(f->backend, &loss, &grad, &student, &teacher, NULL, (float)temperature, (float)weight, false));
    fixture_check(f, "dstudent", &grad);
    check_loss(f, &loss, weight);
}

static const fixture_op operations[] = {{"rmsnorm", run_rmsnorm},
                                        {"swiglu", run_gated},
                                        {"geglu_tanh", run_gated},
                                        {"softcap", run_softcap},
                                        {"linear", run_linear},
                                        {"embedding", run_embedding},
                                        {"cross_entropy", run_cross_entropy},
                                        {"kl_t", run_divergence}};

Test(kernels_golden_gradients, losses_and_gradients)
{
    fixture_run_all(operations, sizeof operations / sizeof *operations);
}
