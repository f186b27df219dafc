/* The tape's own work: what is added up, what is kept and for how long, what is made again, and what is left after an
 * error. That gradients are right is shown in tests/grad. */
#include "autograd/tape.h"

#include <math.h>

#include "testing/testing.h"

enum { T = 6, C = 8, COUNT = T * C, BYTES = COUNT * 4 };

static float *numbers(qz_arena *arena, int count, double phase)
{
    float *x = qz_arena_array(arena, float, (size_t)count);
    cr_assert(x != NULL);
    for (int i = 0; i < count; i++) x[i] = (float)sin(phase + 0.37 * i);
    return x;
}

/* A tape and some leaves; operations that are counted. */
typedef struct fixture {
    qz_arena *arena;
    qz_tape *t;
    qz_tensor x, dx, w, dw, norm, dnorm, dy;
} fixture;

static int norms, gates, drops;

static qz_status count_norm(const qz_tensor *y, const qz_tensor *x, const qz_tensor *w, float eps, float offset)
{
    norms++;
    return qz_backend_best()->rmsnorm(y, x, w, eps, offset);
}

static qz_status count_gate(const qz_tensor *y, const qz_tensor *gate, const qz_tensor *up)
{
    gates++;
    return qz_backend_best()->swiglu(y, gate, up);
}

static qz_status count_drop(const qz_tensor *y, const qz_tensor *x, float p, uint64_t seed, uint64_t first)
{
    drops++;
    return qz_backend_best()->dropout(y, x, p, seed, first);
}

static qz_backend counting(void)
{
    qz_backend be = *qz_backend_best();
    be.rmsnorm = count_norm;
    be.swiglu = count_gate;
    be.dropout = count_drop;
    norms = gates = drops = 0;
    return be;
}

static fixture fixture_new(const qz_backend *be, bool dry)
{
    fixture f;
    check_ok(qz_arena_new(&f.arena, "test"));
    check_ok(qz_tape_new(&f.t, be ? be : qz_backend_best(), dry));
    f.x = qz_tensor_2d(numbers(f.arena, COUNT, 1), QZ_F32, T, C);
    f.w = qz_tensor_2d(numbers(f.arena, C * C, 2), QZ_F32, C, C);
    f.norm = qz_tensor_1d(numbers(f.arena, C, 3), QZ_F32, C);
    f.dy = qz_tensor_2d(numbers(f.arena, COUNT, 4), QZ_F32, T, C);
    f.dx = f.x, f.dw = f.w, f.dnorm = f.norm;
    f.dx.data = qz_arena_calloc(f.arena, BYTES);
    f.dw.data = qz_arena_calloc(f.arena, C * C * 4);
    f.dnorm.data = qz_arena_calloc(f.arena, C * 4);
    return f;
}

static void fixture_free(fixture *f)
{
    qz_tape_free(f->t);
    qz_arena_free(f->arena);
}

static qz_var *leaf(const fixture *f, const qz_tensor *value, const qz_tensor *grad)
{
    qz_var *v;
    check_ok(qz_tape_leaf(&v, f->t, value, grad));
    return v;
}

static void go_back(const fixture *f, qz_var *y)
{
    check_ok(qz_tape_seed(f->t, y, &f->dy));
    qz_var_release(f->t, y);
    check_ok(qz_tape_backward(f->t));
}

static void is_times(const qz_tensor *g, const qz_tensor *dy, double factor)
{
    for (int64_t i = 0; i < qz_tensor_count(g); i++)
        cr_assert_float_eq(qz_f32(g)[i], factor * qz_f32(dy)[i], 1e-5, "element %d", (int)i);
}

/* ---- sums ---- */

/* Rules change gradients where they are: what add hands on to two variables must not be one buffer. */
Test(tape, what_is_used_twice_adds_up)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, &f.dx), *a, *b, *c, *y;
    check_ok(qz_ag_scale(&a, f.t, x, 2));
    check_ok(qz_ag_scale(&b, f.t, x, 3));
    check_ok(qz_ag_add(&c, f.t, a, b));
    check_ok(qz_ag_add(&y, f.t, c, a)); /* 2 + 3 + 2 */
    qz_var_release(f.t, a);
    qz_var_release(f.t, b);
    qz_var_release(f.t, c);
    go_back(&f, y);
    is_times(&f.dx, &f.dy, 7);
    cr_assert(qz_tape_used(f.t) == 0);
    fixture_free(&f);
}

Test(tape, twice_in_one_operation)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, &f.dx), *a, *b, *y;
    check_ok(qz_ag_scale(&a, f.t, x, 2));
    check_ok(qz_ag_add(&b, f.t, a, a));
    qz_var_release(f.t, a);
    check_ok(qz_ag_multiply(&y, f.t, b, b)); /* 16 x^2 */
    qz_var_release(f.t, b);
    go_back(&f, y);
    for (int i = 0; i < COUNT; i++) cr_assert_float_eq(qz_f32(&f.dx)[i], 32 * qz_f32(&f.x)[i] * qz_f32(&f.dy)[i], 1e-4);
    cr_assert(qz_tape_used(f.t) == 0);
    fixture_free(&f);
}

Test(tape, leaves_add_up_over_passes)
{
    fixture f = fixture_new(NULL, false);
    float once[C * C];
    for (int pass = 0; pass < 2; pass++) {
        qz_var *x = leaf(&f, &f.x, NULL), *w = leaf(&f, &f.w, &f.dw), *y;
        check_ok(qz_ag_linear(&y, f.t, x, w, NULL, NULL));
        go_back(&f, y);
        qz_tape_reset(f.t);
        if (pass == 0) memcpy(once, f.dw.data, sizeof once);
    }
    for (int i = 0; i < C * C; i++) cr_assert_float_eq(qz_f32(&f.dw)[i], 2 * once[i], 1e-5);
    cr_assert(once[0] != 0);
    fixture_free(&f);
}

Test(tape, seeds_add_up)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, &f.dx), *y;
    qz_tensor g;
    check_ok(qz_ag_scale(&y, f.t, x, 2));
    check_ok(qz_tape_seed(f.t, y, &f.dy));
    check_ok(qz_var_gradient(f.t, y, &g));
    cr_assert(memcmp(g.data, f.dy.data, BYTES) == 0);
    check_ok(qz_op_add(qz_backend_best(), &g, &f.dy));
    go_back(&f, y);
    is_times(&f.dx, &f.dy, 6);
    fixture_free(&f);
}

/* ---- constants ---- */

Test(tape, of_constants_nothing_is_recorded)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, NULL), *w = leaf(&f, &f.w, NULL), *norm = leaf(&f, &f.norm, NULL), *y, *z;
    check_ok(qz_ag_linear(&y, f.t, x, w, NULL, NULL));
    check_ok(qz_ag_rmsnorm(&z, f.t, y, norm, 1e-5f, 0));
    cr_assert(!qz_wants(y) && !qz_wants(z) && f.t->nodes == 0);
    qz_var_release(f.t, y);
    qz_var_release(f.t, z);
    cr_assert(qz_tape_used(f.t) == 0);
    check_ok(qz_tape_backward(f.t));
    fixture_free(&f);
}

/* Kernels that make the gradients of all inputs at once make them of constants too: of leaves, of variables, of the
 * same one twice. */
Test(tape, constants_beside_what_is_trained)
{
    fixture f = fixture_new(NULL, false);
    const qz_attention how = {.scale = 0.5f};
    const qz_ag_attention_shape shape = {1, T, 2, 2, C / 2};
    qz_var *x = leaf(&f, &f.x, &f.dx), *constant = leaf(&f, &f.dy, NULL), *made, *a, *b, *y;
    check_ok(qz_ag_scale(&made, f.t, constant, 2));
    check_ok(qz_ag_swiglu(&a, f.t, constant, x));
    check_ok(qz_ag_attention(&b, f.t, a, constant, constant, shape, &how));
    qz_var_release(f.t, a);
    check_ok(qz_ag_attention(&y, f.t, b, made, made, shape, &how));
    qz_var_release(f.t, b);
    qz_var_release(f.t, made);
    go_back(&f, y);
    cr_assert(qz_tape_used(f.t) == 0);
    cr_assert(qz_f32(&f.dx)[C * T - 1] != 0);
    fixture_free(&f);
}

Test(tape, without_recording_nothing_is_kept)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, &f.dx), *y, *z;
    qz_tape_record(f.t, false);
    check_ok(qz_ag_scale(&y, f.t, x, 2));
    check_ok(qz_ag_multiply(&z, f.t, y, y));
    cr_assert(!qz_wants(z) && f.t->nodes == 0);
    cr_assert_float_eq(qz_f32(qz_var_value(z))[3], 4 * qz_f32(&f.x)[3] * qz_f32(&f.x)[3], 1e-5);
    qz_var_release(f.t, y);
    cr_assert(qz_tape_used(f.t) == BYTES);
    qz_tape_record(f.t, true);
    check_ok(qz_ag_scale(&y, f.t, x, 2));
    cr_assert(qz_wants(y) && f.t->nodes == 1);
    fixture_free(&f);
}

/* ---- what is kept ---- */

Test(tape, released_values_go_unless_a_rule_reads_them)
{
    fixture f = fixture_new(NULL, false);
    qz_var *x = leaf(&f, &f.x, &f.dx), *a, *b, *c, *d;
    check_ok(qz_ag_scale(&a, f.t, x, 2)); /* nobody reads it */
    check_ok(qz_ag_scale(&b, f.t, a, 2));
    qz_var_release(f.t, a);
    cr_assert(qz_tape_used(f.t) == BYTES && qz_var_value(a)->data == NULL);
    check_ok(qz_ag_softcap(&c, f.t, b, 3)); /* its rule reads the result */
    qz_var_release(f.t, b);
    check_ok(qz_ag_scale(&d, f.t, c, 2));
    qz_var_release(f.t, c);
    cr_assert(qz_tape_used(f.t) == 2 * BYTES && qz_var_value(c)->data != NULL);
    go_back(&f, d);
    cr_assert(qz_tape_used(f.t) == 0);
    qz_var_release(f.t, x); /* leaves stay */
    cr_assert(qz_var_value(x)->data == f.x.data);
    qz_var_release(f.t, NULL);
    fixture_free(&f);
}

/* norm -> drop -> (gate, up) -> gated -> product: all but the linears' results are made again. */
static void cheap_chain(fixture *f, bool keep, qz_var **y)
{
    qz_var *x = leaf(f, &f->x, &f->dx), *w = leaf(f, &f->w, &f->dw), *norm = leaf(f, &f->norm, &f->dnorm);
    qz_var *normed, *dropped, *gate, *up, *gated;
    qz_tape_keep_cheap(f->t, keep);
    check_ok(qz_ag_rmsnorm(&normed, f->t, x, norm, 1e-5f, 0));
    check_ok(qz_ag_dropout(&dropped, f->t, normed, 0.25f, 1, 2));
    qz_var_release(f->t, normed);
    check_ok(qz_ag_linear(&gate, f->t, dropped, w, NULL, NULL));
    check_ok(qz_ag_linear(&up, f->t, dropped, w, NULL, NULL));
    qz_var_release(f->t, dropped);
    check_ok(qz_ag_swiglu(&gated, f->t, gate, up));
    qz_var_release(f->t, gate);
    qz_var_release(f->t, up);
    check_ok(qz_ag_linear(y, f->t, gated, w, NULL, NULL));
    qz_var_release(f->t, gated);
}

Test(tape, cheap_values_are_made_again)
{
    const qz_backend be = counting();
    fixture a = fixture_new(&be, false), b = fixture_new(&be, false);
    qz_var *y;
    cheap_chain(&a, false, &y);
    cr_assert(qz_tape_used(a.t) == 3 * BYTES); /* gate, up and the result */
    cr_assert(norms == 1 && gates == 1 && drops == 1);
    go_back(&a, y);
    cr_assert(norms == 2 && gates == 2 &&
              drops == 3); /* once for all that read it; a mask once more for its gradient */
    cheap_chain(&b, true, &y);
    cr_assert(qz_tape_used(b.t) == 6 * BYTES);
    go_back(&b, y);
    cr_assert(norms == 3 && gates == 3 && drops == 5);
    cr_assert(qz_tape_used(a.t) == 0 && qz_tape_used(b.t) == 0 && qz_tape_peak(a.t) < qz_tape_peak(b.t));
    cr_assert(memcmp(a.dx.data, b.dx.data, BYTES) == 0);
    cr_assert(memcmp(a.dw.data, b.dw.data, C * C * 4) == 0);
    cr_assert(memcmp(a.dnorm.data, b.dnorm.data, C * 4) == 0);
    fixture_free(&a);
    fixture_free(&b);
}

/* ---- rotations, which take their input over ---- */

static qz_rotation rotation(qz_arena *arena)
{
    static const int32_t positions[T] = {0, 1, 2, 3, 4, 5};
    return (qz_rotation){qz_tensor_2d(numbers(arena, T * 2, 5), QZ_F32, T, 2),
                         qz_tensor_2d(numbers(arena, T * 2, 6), QZ_F32, T, 2), positions};
}

Test(tape, a_value_is_taken_over_when_nobody_else_needs_it)
{
    fixture f = fixture_new(NULL, false);
    const qz_rotation r = rotation(f.arena);
    qz_var *x = leaf(&f, &f.x, &f.dx), *a, *b, *c, *d, *product;
    const float before = qz_f32(&f.x)[C + 1];
    check_ok(qz_ag_rope(&a, f.t, x, 2, &r)); /* of a leaf: a copy */
    cr_assert(qz_f32(&f.x)[C + 1] == before);
    void *data = qz_var_value(a)->data;
    check_ok(qz_ag_rope(&b, f.t, a, 2, &r));
    cr_assert(qz_var_value(b)->data == data && qz_var_value(a)->data == NULL);
    check_ok(qz_ag_multiply(&product, f.t, b, b)); /* reads b later */
    check_ok(qz_ag_rope(&c, f.t, b, 2, &r));
    cr_assert(qz_var_value(c)->data != data && qz_var_value(b)->data == data);
    check_ok(qz_ag_add(&d, f.t, c, product));
    qz_var_release(f.t, c);
    qz_var_release(f.t, product);
    go_back(&f, d);
    cr_assert(qz_tape_used(f.t) == 0);
    fixture_free(&f);
}

/* ---- segments ---- */

typedef struct stretch {
    const fixture *f;
    int depth; /* segments in segments */
} stretch;

static qz_status run_stretch(const void *context, qz_tape *t, qz_var *x, qz_var **y)
{
    const stretch *s = context;
    const fixture *f = s->f;
    qz_var *w, *norm, *normed, *a, *b, *from = x;
    if (s->depth > 0) {
        const stretch inner = {f, s->depth - 1};
        QZ_TRY(qz_ag_segment(&from, t, x, &(qz_segment){run_stretch, &inner, sizeof inner}));
    }
    QZ_TRY(qz_tape_leaf(&w, t, &f->w, f->dw.data ? &f->dw : NULL));
    QZ_TRY(qz_tape_leaf(&norm, t, &f->norm, NULL));
    QZ_TRY(qz_ag_rmsnorm(&normed, t, from, norm, 1e-5f, 0));
    QZ_TRY(qz_ag_linear(&a, t, normed, w, NULL, NULL));
    qz_var_release(t, normed);
    QZ_TRY(qz_ag_softcap(&b, t, a, 2));
    qz_var_release(t, a);
    QZ_TRY(qz_ag_linear(y, t, b, w, NULL, from));
    qz_var_release(t, b);
    if (from != x) qz_var_release(t, from);
    return QZ_OK;
}

enum { STRETCHES = 4 };

static void run_stretches(fixture *f, bool segments, int depth, bool want_x)
{
    qz_var *x = leaf(f, &f->x, want_x ? &f->dx : NULL), *y;
    const stretch s = {f, depth};
    for (int i = 0; i < STRETCHES; i++) {
        check_ok(segments ? qz_ag_segment(&y, f->t, x, &(qz_segment){run_stretch, &s, sizeof s})
                          : run_stretch(&s, f->t, x, &y));
        qz_var_release(f->t, x);
        x = y;
    }
    go_back(f, x);
    cr_assert(qz_tape_used(f->t) == 0);
}

Test(tape, segments_give_the_same_bits_and_hold_less)
{
    for (int depth = 0; depth < 3; depth++) {
        for (int want_x = 0; want_x < 2; want_x++) {
            fixture a = fixture_new(NULL, false), b = fixture_new(NULL, false), dry = fixture_new(NULL, true);
            run_stretches(&a, false, depth, want_x);
            run_stretches(&b, true, depth, want_x);
            run_stretches(&dry, true, depth, want_x);
            cr_assert(memcmp(a.dx.data, b.dx.data, BYTES) == 0);
            cr_assert(memcmp(a.dw.data, b.dw.data, C * C * 4) == 0);
            cr_assert(qz_f32(&a.dw)[0] != 0 && (qz_f32(&a.dx)[0] != 0) == want_x);
            cr_assert(qz_tape_peak(b.t) < qz_tape_peak(a.t), "%zu, %zu", qz_tape_peak(b.t), qz_tape_peak(a.t));
            cr_assert(qz_tape_peak(b.t) == qz_tape_peak(dry.t));
            fixture_free(&a);
            fixture_free(&b);
            fixture_free(&dry);
        }
    }
}

/* Nothing inside is trained, and x is not either; but the tape cannot know before it looks. */
Test(tape, segments_without_anything_to_train)
{
    fixture f = fixture_new(NULL, false);
    f.dw.data = NULL;
    run_stretches(&f, true, 1, false);
    run_stretches(&f, true, 1, true);
    cr_assert(qz_f32(&f.dx)[0] != 0);
    fixture_free(&f);
}

/* ---- errors ---- */

/* Everything that takes buffers beside values: attention, masks, temporaries, low rank, segments, the head. */
static qz_status whole_program(fixture *f)
{
    static const int32_t labels[T] = {1, 2, 3, 4, 5, -1};
    const qz_ag_attention_shape shape = {1, T, 2, 2, C / 2};
    const qz_act_scheme scheme = {QZ_ACT_TENSOR, QZ_FORMAT_INT8, 0, true, 127};
    const qz_act_values values = {.scale = 0.01f};
    const stretch s = {f, 1};
    const qz_rotation r = rotation(f->arena);
    const qz_head_rule rule = {
        .labels = labels, .softcap = 3, .cross_entropy = 1, .cross_entropy_per = T - 1, .divergence_per = 1};
    qz_head_sums sums;
    qz_var *x, *w, *a, *v[9];
    QZ_TRY(qz_tape_leaf(&x, f->t, &f->x, &f->dx));
    QZ_TRY(qz_tape_leaf(&w, f->t, &f->w, &f->dw));
    const qz_tensor low = qz_tensor_rows(&f->w, 0, 2), high = qz_tensor_2d(f->x.data, QZ_F32, C, 2);
    const qz_tensor dlow = qz_tensor_rows(&f->dw, 0, 2);
    qz_var *low_var, *high_var;
    QZ_TRY(qz_tape_leaf(&low_var, f->t, &low, &dlow));
    QZ_TRY(qz_tape_leaf(&high_var, f->t, &high, NULL));
    QZ_TRY(qz_ag_round_inputs(&v[0], f->t, x, &scheme, &values, QZ_STE_CLIP, NULL));
    QZ_TRY(qz_ag_low_rank(&a, f->t, w, NULL, high_var, low_var, 2));
    QZ_TRY(qz_ag_linear(&v[1], f->t, v[0], a, NULL, NULL));
    qz_var_release(f->t, a);
    qz_var_release(f->t, v[0]);
    QZ_TRY(qz_ag_rope(&v[2], f->t, v[1], 2, &r));
    QZ_TRY(qz_ag_attention(&v[3], f->t, v[2], v[2], v[2], shape, &(qz_attention){.scale = 0.5f}));
    qz_var_release(f->t, v[2]);
    QZ_TRY(qz_ag_segment(&v[4], f->t, v[3], &(qz_segment){run_stretch, &s, sizeof s}));
    QZ_TRY(qz_ag_geglu(&v[5], f->t, v[4], v[3]));
    qz_var_release(f->t, v[4]);
    QZ_TRY(qz_ag_multiply(&v[6], f->t, v[5], v[3]));
    qz_var_release(f->t, v[5]);
    qz_var_release(f->t, v[3]);
    QZ_TRY(qz_ag_head(&sums, f->t, v[6], w, &rule));
    qz_var_release(f->t, v[6]);
    return qz_tape_backward(f->t);
}

Test(tape, short_memory_at_any_time)
{
    long n = 0;
    qz_status status = QZ_MEMORY;
    while (status != QZ_OK) {
        fixture f = fixture_new(NULL, false);
        rotation(f.arena); /* the arena has its memory */
        qz_alloc_fail_at(++n);
        status = whole_program(&f);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "%s", qz_error_message());
        if (n % 3 == 0) { /* the tape can be used after a reset */
            qz_tape_reset(f.t);
            cr_assert(qz_tape_used(f.t) == 0);
            check_ok(whole_program(&f));
        }
        if (n % 3 == 0 || status == QZ_OK) cr_assert(qz_tape_used(f.t) == 0);
        fixture_free(&f);
    }
    cr_assert(n > 12, "%ld", n);
    for (long at = 1; at <= 3; at++) {
        qz_tape *t = NULL;
        qz_alloc_fail_at(at);
        status = qz_tape_new(&t, qz_backend_best(), false);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_MEMORY ? t == NULL : t != NULL);
        qz_tape_free(t);
    }
}

/* A backend that lacks an operation of the backward pass. */
Test(tape, operations_that_fail)
{
    fixture whole = fixture_new(NULL, false);
    check_ok(whole_program(&whole));
    for (int op = 0; op < 8; op++) {
        qz_backend be = *qz_backend_best();
        if (op == 0) be.attention_grad = NULL;
        if (op == 1) be.geglu_grad = NULL;
        if (op == 2) be.mask_grad = NULL;
        if (op == 3) be.linear_grad_w = NULL;
        if (op == 4) be.softcap_grad = NULL;
        if (op == 5) be.multiply = NULL;
        if (op == 6) be.cross_entropy = NULL;
        if (op == 7) be.add = NULL;
        fixture f = fixture_new(&be, false);
        check_fails(QZ_UNSUPPORTED, "", whole_program(&f));
        qz_tape_reset(f.t);
        cr_assert(qz_tape_used(f.t) == 0);
        be = *qz_backend_best();
        memset(f.dx.data, 0, BYTES);
        memset(f.dw.data, 0, C * C * 4);
        check_ok(whole_program(&f));
        cr_assert(memcmp(f.dx.data, whole.dx.data, BYTES) == 0 && memcmp(f.dw.data, whole.dw.data, C * C * 4) == 0);
        fixture_free(&f);
    }
    fixture_free(&whole);
}

Test(tape, a_dry_tape_counts_the_same)
{
    fixture real = fixture_new(NULL, false), dry = fixture_new(NULL, true);
    for (int pass = 0; pass < 3; pass++) {
        check_ok(whole_program(&real));
        check_ok(whole_program(&dry));
        cr_assert(qz_tape_peak(real.t) == qz_tape_peak(dry.t) && qz_tape_peak(dry.t) > 0);
        qz_tape_reset(real.t);
        qz_tape_reset(dry.t);
    }
    cr_assert(qz_tape_is_dry(dry.t) && !qz_tape_is_dry(real.t) && qz_tape_backend(dry.t) == qz_backend_best());
    cr_assert(qz_f32(&dry.dx)[0] == 0);
    fixture_free(&real);
    fixture_free(&dry);
}
