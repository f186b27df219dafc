/* What the cases of rule_cases.h are written with: random inputs of an operation of autograd/, as fp32 for the tape and
 * as doubles for a plain restatement of what the operation computes.
 *
 * Rounding has no derivative worth having. Its restatements keep what rounding adds at the base point as a constant
 * (x + stop_gradient(round(x) - x)), so that central differences give what a straight-through rule must give. */
#ifndef QZ_TESTING_RULE_PROBLEM_H
#define QZ_TESTING_RULE_PROBLEM_H

#include <math.h>
#include <string.h>

#include "autograd/autograd.h"
#include "base/arena.h"
#include "base/rng.h"
#include "testing/testing.h"

enum { RULE_INPUTS = 4, RULE_DIMS = 8, RULE_SHAPES = 6 };

typedef struct rule_input {
    int64_t rows, cols; /* rows 0: a vector */
    bool outside;       /* no variable: what the rule adds to in the caller's memory */
    double gain;        /* the rule's gradient is the derivative times this */
    double *base;
    qz_tensor value, grad;
} rule_input;

typedef struct problem {
    const qz_backend *backend;
    const int *dims;
    qz_arena *arena;
    qz_rng rng;
    int inputs;
    rule_input in[RULE_INPUTS];
    int64_t rows, cols; /* of the result */
    /* what some rules take beside them */
    int32_t *ids;
    double *mask;
    qz_packed packed;
    double *packed_values;
    qz_qtensor q;
    qz_ag_grid grid;
    qz_rotation rotation;
    qz_attention attention;
    qz_ag_attention_shape shape;
    qz_act_scheme scheme;
    qz_act_values values;
    double scale_grad;
    qz_tensor head_scale;
} problem;

typedef struct rule_case {
    const char *name;
    void (*plan)(problem *p); /* inputs and result from dims */
    qz_status (*build)(qz_var **y, qz_tape *t, qz_var *const *x, problem *p);
    void (*forward)(double *y, double *const *x, const problem *p);
    int dims[RULE_SHAPES][RULE_DIMS];
} rule_case;

static inline int64_t input_count(const rule_input *in)
{
    return (in->rows ? in->rows : 1) * in->cols;
}

/* Numbers that fp32 and double have alike. */
static inline float random_value(problem *p)
{
    return (float)qz_rng_normal(&p->rng);
}

static inline void *rule_alloc(problem *p, size_t bytes)
{
    void *data = qz_arena_calloc(p->arena, bytes);
    cr_assert(data != NULL);
    return data;
}

/* An input (rows, cols), rows 0: a vector. */
static inline rule_input *add_input(problem *p, int64_t rows, int64_t cols)
{
    rule_input *in = &p->in[p->inputs++];
    cr_assert(p->inputs <= RULE_INPUTS);
    *in = (rule_input){.rows = rows, .cols = cols, .gain = 1};
    in->base = rule_alloc(p, (size_t)input_count(in) * sizeof(double));
    for (int64_t i = 0; i < input_count(in); i++) in->base[i] = random_value(p);
    return in;
}

static inline void set_result(problem *p, int64_t rows, int64_t cols)
{
    p->rows = rows;
    p->cols = cols;
}

#endif
