/* Every rule of autograd/rules.def: gradients of all inputs through a tape against central differences of a plain
 * restatement in double (testing/rule_cases.h). What is under test is the tape: each input as the caller's leaf, to
 * whose gradient is added; as a variable of the tape that has other uses; beside inputs that want no gradient; values
 * kept and made again; and that nothing stays behind. */
#include "autograd/tape.h"
#include "testing/rule_cases.h"
#include "testing/tolerances.h"

enum { GUARD = 16 };
static const float untouched = 12345;

/* ---- inputs on a tape ---- */

/* All the same numbers, with numbers around them that must stay. */
static qz_tensor guarded(problem *p, const rule_input *in)
{
    const int64_t count = input_count(in);
    float *data = rule_alloc(p, (size_t)(count + 2 * GUARD) * sizeof(float));
    for (int64_t i = 0; i < count + 2 * GUARD; i++) data[i] = untouched;
    return in->rows ? qz_tensor_2d(data + GUARD, QZ_F32, in->rows, in->cols)
                    : qz_tensor_1d(data + GUARD, QZ_F32, in->cols);
}

static void check_guards(const qz_tensor *x)
{
    const int64_t count = qz_tensor_count(x);
    for (int64_t i = 0; i < GUARD; i++) cr_assert(qz_f32(x)[-1 - i] == untouched && qz_f32(x)[count + i] == untouched);
}

typedef struct setting {
    bool chain; /* inputs are made on the tape, of leaves of half their size, and have another use */
    bool keep_cheap, dry;
    unsigned wanted; /* inputs that want a gradient */
} setting;

typedef struct outcome {
    size_t peak;
    bool recorded;
    float *value;
} outcome;

/* Weights of the loss: of the result, and of each input's other use. */
static float loss_weight(int64_t which, int64_t i)
{
    return (float)sin(1.3 * (double)which + 0.7 * (double)i);
}

static qz_tensor loss_weights(problem *p, int64_t which, const qz_tensor *like)
{
    qz_tensor w = *like;
    w.data = rule_alloc(p, (size_t)qz_tensor_count(like) * sizeof(float));
    for (int64_t i = 0; i < qz_tensor_count(like); i++) qz_f32(&w)[i] = loss_weight(which, i);
    return w;
}

static void fill(problem *p, const setting *s)
{
    for (int k = 0; k < p->inputs; k++) {
        rule_input *in = &p->in[k];
        const double factor = s->chain && !in->outside ? 0.5 : 1;
        in->value = guarded(p, in);
        in->grad = guarded(p, in);
        for (int64_t i = 0; i < input_count(in); i++) {
            qz_f32(&in->value)[i] = (float)(factor * in->base[i]);
            qz_f32(&in->grad)[i] = 1; /* there already: to be added to */
        }
    }
}

static void make_inputs(qz_var **x, qz_tape *t, problem *p, const setting *s)
{
    for (int k = 0; k < p->inputs; k++) {
        rule_input *in = &p->in[k];
        if (in->outside) continue;
        check_ok(qz_tape_leaf(&x[k], t, &in->value, s->wanted >> k & 1u ? &in->grad : NULL));
        qz_var *leaf = x[k];
        if (s->chain) check_ok(qz_ag_add(&x[k], t, leaf, leaf));
    }
}

static void seed(qz_tape *t, problem *p, qz_var *y, qz_var *const *x, const setting *s)
{
    const qz_tensor dy = loss_weights(p, -1, &y->value);
    check_ok(qz_tape_seed(t, y, &dy));
    for (int k = 0; s->chain && k < p->inputs; k++) {
        if (p->in[k].outside || !(s->wanted >> k & 1u)) continue;
        const qz_tensor dx = loss_weights(p, k, &p->in[k].value);
        check_ok(qz_tape_seed(t, x[k], &dx));
    }
}

static void take_scale_grad(problem *p)
{
    for (int k = 0; k < p->inputs; k++) {
        if (p->in[k].outside && input_count(&p->in[k]) == 1 && p->scale_grad != 0)
            qz_f32(&p->in[k].grad)[0] += (float)p->scale_grad;
    }
}

static void copy_value(problem *p, outcome *o, const qz_var *y)
{
    const size_t bytes = (size_t)qz_tensor_count(&y->value) * sizeof(float);
    o->value = rule_alloc(p, bytes);
    memcpy(o->value, y->value.data, bytes);
}

static outcome run(const rule_case *c, problem *p, const setting *s)
{
    qz_tape *t;
    qz_var *x[RULE_INPUTS] = {NULL}, *y;
    outcome o = {0};
    check_ok(qz_tape_new(&t, p->backend, s->dry));
    qz_tape_keep_cheap(t, s->keep_cheap);
    fill(p, s);
    make_inputs(x, t, p, s);
    check_ok(c->build(&y, t, x, p));
    if (!s->dry) copy_value(p, &o, y);
    o.recorded = qz_wants(y);
    for (int k = 0; k < p->inputs; k++) qz_var_release(t, x[k]);
    if (o.recorded) seed(t, p, y, x, s);
    qz_var_release(t, y);
    check_ok(qz_tape_backward(t));
    cr_assert(qz_tape_used(t) == 0, "%s: %zu bytes stay behind", c->name, qz_tape_used(t));
    take_scale_grad(p);
    for (int k = 0; k < p->inputs; k++) {
        check_guards(&p->in[k].value);
        check_guards(&p->in[k].grad);
    }
    o.peak = qz_tape_peak(t);
    qz_tape_free(t);
    return o;
}

/* ---- differences ---- */

typedef struct expected {
    double *d[RULE_INPUTS]; /* of the loss without other uses */
    double most[RULE_INPUTS];
    double *y;
} expected;

static double loss(const rule_case *c, const problem *p, double *const *x, double *y)
{
    double sum = 0;
    c->forward(y, x, p);
    for (int64_t i = 0; i < p->rows * p->cols; i++) sum += (double)loss_weight(-1, i) * y[i];
    return sum;
}

static expected differentiate(const rule_case *c, problem *p)
{
    const double h = 1e-5;
    expected e = {.y = rule_alloc(p, (size_t)(p->rows * p->cols) * sizeof(double))};
    double *x[RULE_INPUTS], *y = rule_alloc(p, (size_t)(p->rows * p->cols) * sizeof(double));
    for (int k = 0; k < p->inputs; k++) {
        x[k] = rule_alloc(p, (size_t)input_count(&p->in[k]) * sizeof(double));
        memcpy(x[k], p->in[k].base, (size_t)input_count(&p->in[k]) * sizeof(double));
    }
    c->forward(e.y, x, p);
    for (int k = 0; k < p->inputs; k++) {
        e.d[k] = rule_alloc(p, (size_t)input_count(&p->in[k]) * sizeof(double));
        for (int64_t i = 0; i < input_count(&p->in[k]); i++) {
            const double middle = x[k][i];
            x[k][i] = middle + h;
            const double above = loss(c, p, x, y);
            x[k][i] = middle - h;
            e.d[k][i] = p->in[k].gain * (above - loss(c, p, x, y)) / (2 * h);
            x[k][i] = middle;
            e.most[k] = fmax(e.most[k], fabs(e.d[k][i]));
        }
    }
    return e;
}

/* ---- comparisons ---- */

static void same_value(const rule_case *c, const problem *p, const expected *e, const float *value)
{
    double most = 0, worst = 0;
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        most = fmax(most, fabs(e->y[i]));
        worst = fmax(worst, fabs((double)value[i] - e->y[i]));
    }
    cr_assert(worst <= TOL_RULE_GRADIENT * most, "%s: the value is off by %.3g of the largest", c->name, worst / most);
}

static double wanted_gradient(const expected *e, const problem *p, const setting *s, int k, int64_t i)
{
    if (p->in[k].outside) return 1 + e->d[k][i];
    if (!(s->wanted >> k & 1u)) return 1;
    return 1 + (s->chain ? 2 * (e->d[k][i] + (double)loss_weight(k, i)) : e->d[k][i]);
}

static void same_gradients(const rule_case *c, const problem *p, const expected *e, const setting *s)
{
    for (int k = 0; k < p->inputs; k++) {
        for (int64_t i = 0; i < input_count(&p->in[k]); i++) {
            const double g = qz_f32(&p->in[k].grad)[i], should = wanted_gradient(e, p, s, k, i);
            cr_assert(fabs(g - should) <= TOL_RULE_GRADIENT * (2 * e->most[k] + 3),
                      "%s: input %d, element %d: %.9g, should be %.9g (%s, wanted %x)", c->name, k, (int)i, g, should,
                      s->chain ? "chain" : "leaves", s->wanted);
        }
    }
}

static void same_bits(const rule_case *c, problem *p, setting s)
{
    float *before[RULE_INPUTS];
    for (int k = 0; k < p->inputs; k++) before[k] = qz_f32(&p->in[k].grad);
    s.keep_cheap = true;
    run(c, p, &s);
    for (int k = 0; k < p->inputs; k++)
        cr_assert(memcmp(before[k], p->in[k].grad.data, (size_t)input_count(&p->in[k]) * sizeof(float)) == 0,
                  "%s: input %d differs when values are kept", c->name, k);
}

/* The rule reads no more and gives no less when some of its inputs are constants. */
static void check_setting(const rule_case *c, problem *p, expected *e, setting s)
{
    const outcome o = run(c, p, &s);
    if (!e->y) *e = differentiate(c, p);
    same_value(c, p, e, o.value);
    for (int k = 0; k < p->inputs; k++) cr_assert(o.recorded || !p->in[k].outside, "%s: not recorded", c->name);
    if (!o.recorded) return; /* of the inputs wanted this shape has none */
    same_gradients(c, p, e, &s);
    same_bits(c, p, s);
    s.dry = true;
    cr_assert(run(c, p, &s).peak == o.peak, "%s: a dry tape counts otherwise", c->name);
}

static void check_shape(const rule_case *c, const int *dims, const qz_backend *backend)
{
    problem p = {.backend = backend, .dims = dims};
    expected e = {.y = NULL};
    check_ok(qz_arena_new(&p.arena, "test"));
    qz_rng_seed(&p.rng, 5, (uint64_t)(dims - c->dims[0]));
    c->plan(&p);
    const unsigned all = (1u << p.inputs) - 1;
    for (unsigned wanted = all + 1; wanted-- > 0;) {
        check_setting(c, &p, &e, (setting){.wanted = wanted});
        check_setting(c, &p, &e, (setting){.wanted = wanted, .chain = true});
    }
    qz_arena_free(p.arena);
}

Test(rules, gradients_are_those_of_differences)
{
    for (size_t b = 0; b < qz_backends()->count; b++) {
        if (!qz_backend_at(b)->available()) continue;
        for (int i = 0; i < RULE_CASES; i++)
            for (int s = 0; s < RULE_SHAPES && rule_cases[i].dims[s][0]; s++)
                check_shape(&rule_cases[i], rule_cases[i].dims[s], qz_backend_at(b));
    }
}

/* ---- the table ---- */

static const struct {
    const char *name, *inputs;
} rules[] = {
#define QZ_RULE(name, inputs) {#name, inputs},
#include "autograd/rules.def"
#undef QZ_RULE
};
enum { RULES = sizeof rules / sizeof *rules };

static int words(const char *list)
{
    int n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}

/* The most inputs that a shape of the case has. */
static int inputs_of(const rule_case *c)
{
    int most = 0;
    for (int s = 0; s < RULE_SHAPES && c->dims[s][0]; s++) {
        problem p = {.backend = qz_backend_best(), .dims = c->dims[s]};
        int variables = 0;
        check_ok(qz_arena_new(&p.arena, "test"));
        qz_rng_seed(&p.rng, 5, 0);
        c->plan(&p);
        for (int k = 0; k < p.inputs; k++) variables += !p.in[k].outside;
        most = variables > most ? variables : most;
        qz_arena_free(p.arena);
    }
    return most;
}

Test(rules, each_has_a_case)
{
    for (int r = 0; r < RULES; r++) {
        const rule_case *found = NULL;
        for (int i = 0; i < RULE_CASES; i++) {
            if (strcmp(rule_cases[i].name, rules[r].name) == 0) found = &rule_cases[i];
        }
        cr_assert(found != NULL, "%s: no case in testing/rule_cases.h", rules[r].name);
        cr_assert(inputs_of(found) == words(rules[r].inputs), "%s: inputs %s, but the case has another number",
                  rules[r].name, rules[r].inputs);
    }
    cr_assert((int)RULES == (int)RULE_CASES);
}
