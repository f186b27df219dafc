/* The tape from the inside: what builders and rules share. Nothing outside autograd/ includes it.
 *
 * A builder makes a variable for the result, runs the operation, and adds a node. A rule finds the gradient of the
 * result in node->out and adds to those of the inputs, through one of
 *     qz_grad_place   for kernels that can accumulate
 *     qz_grad_begin, qz_grad_end   for kernels that overwrite
 *     qz_grad_pass    for a gradient that is handed on as it is */
#ifndef QZ_AUTOGRAD_TAPE_H
#define QZ_AUTOGRAD_TAPE_H

#include "autograd/autograd.h"
#include "autograd/pool.h"
#include "base/arena.h"

enum { QZ_NODE_INPUTS = 4 };

typedef struct qz_node qz_node;

typedef struct qz_rule {
    const char *name;
    qz_status (*redo)(qz_tape *t, qz_node *n); /* the result's value again; NULL: not cheap, so it is kept */
    qz_status (*vjp)(qz_tape *t, qz_node *n);
} qz_rule;

#define QZ_RULE(name, inputs) extern const qz_rule qz_rule_##name;
#include "autograd/rules.def"
#undef QZ_RULE

struct qz_var {
    qz_tensor value, grad;
    qz_buffer *buffer, *grad_buffer; /* NULL: the caller's memory, or none */
    bool leaf, wants;                /* wants: a gradient is asked for */
    bool present;                    /* the value is there */
    bool has_grad;
    bool held;      /* by the forward pass */
    int readers;    /* rules that will read the value */
    qz_node *maker; /* NULL: leaves, and what was not recorded */
};

/* Which values a rule reads, in `vjp` or in `redo`: bit i for input i. */
enum { QZ_READS_NONE = 0, QZ_READS_0 = 1, QZ_READS_1 = 2, QZ_READS_2 = 4, QZ_READS_3 = 8, QZ_READS_OUT = 256 };

struct qz_node {
    const qz_rule *rule;
    qz_var *in[QZ_NODE_INPUTS]; /* NULL: left out */
    qz_var *out;
    unsigned reads;
    void *with;       /* parameters, in the tape's arena */
    qz_buffer *extra; /* what else the forward pass left for the rule */
};

struct qz_tape {
    const qz_backend *backend;
    qz_pool *pool;
    qz_arena *arena;
    bool dry, record, keep_cheap, bf16;
    qz_node **node; /* [nodes] */
    size_t nodes, room;
};

/* Arithmetic that a dry tape leaves out. */
#define QZ_RUN(t, call)                                                                                                \
    do {                                                                                                               \
        if (!(t)->dry) QZ_TRY(call);                                                                                   \
    } while (0)

/* A result (rows, cols), or of the shape of another. */
QZ_NODISCARD qz_status qz_var_2d(qz_var **out, qz_tape *t, int64_t rows, int64_t cols);
QZ_NODISCARD qz_status qz_var_like(qz_var **out, qz_tape *t, const qz_var *like);
/* A variable over memory that somebody else keeps, whose gradient is the tape's. */
QZ_NODISCARD qz_status qz_var_borrow(qz_var **out, qz_tape *t, const qz_tensor *value, bool wants);
/* y's value becomes x's, when nobody else needs it; else a copy. x is released. */
QZ_NODISCARD qz_status qz_var_take(qz_var **y, qz_tape *t, qz_var *x);

typedef struct qz_node_spec {
    const qz_rule *rule;
    qz_var *out;
    qz_var *in[QZ_NODE_INPUTS];
    unsigned reads;
    const void *with; /* copied */
    size_t size;
} qz_node_spec;

/* Records it, when the tape does and one of the inputs wants a gradient (then `out` does too); *node (may be NULL as an
 * argument) is NULL when not. */
QZ_NODISCARD qz_status qz_node_add(qz_tape *t, const qz_node_spec *spec, qz_node **node);
/* Recorded, when the tape does, even if no input wants a gradient: parameters inside do. */
QZ_NODISCARD qz_status qz_node_force(qz_tape *t, const qz_node_spec *spec, qz_node **node);
/* Would it be recorded? */
bool qz_node_wanted(const qz_tape *t, const qz_node_spec *spec);
/* Makes a value that was not kept. */
QZ_NODISCARD qz_status qz_var_need(qz_tape *t, qz_var *v);

/* Where to add: *accumulate says whether something is there already. */
QZ_NODISCARD qz_status qz_grad_place(qz_tape *t, qz_var *v, qz_tensor *grad, bool *accumulate);
/* The same, with zeros where nothing was. */
QZ_NODISCARD qz_status qz_grad_zeroed(qz_tape *t, qz_var *v, qz_tensor *grad);

/* For a variable that wants none the kernel's result goes to a buffer that is thrown away. */
typedef struct qz_grad_slot {
    qz_tensor grad;
    qz_buffer *temporary;
} qz_grad_slot;
QZ_NODISCARD qz_status qz_grad_begin(qz_tape *t, qz_grad_slot *slot, qz_var *v);
QZ_NODISCARD qz_status qz_grad_end(qz_tape *t, qz_grad_slot *slot, qz_var *v);
/* The gradient of `from` is added to that of `to`; last, since the buffer may change hands. */
QZ_NODISCARD qz_status qz_grad_pass(qz_tape *t, qz_var *to, qz_var *from);
/* It has been handed on, and is needed no more. */
void qz_grad_drop(qz_tape *t, qz_var *v);

/* Runs the rules of the nodes from `first` on, the last first, and forgets them. */
QZ_NODISCARD qz_status qz_tape_unwind(qz_tape *t, size_t first);

/* The products of linear layers and of the head at the tape's precision: as the operations of the same arguments. */
QZ_NODISCARD qz_status qz_product(const qz_tape *t, const qz_tensor *y, const qz_tensor *x, const qz_tensor *w,
                                  const qz_tensor *bias, bool accumulate);
QZ_NODISCARD qz_status qz_product_grad_x(const qz_tape *t, const qz_tensor *dx, const qz_tensor *dy, const qz_tensor *w,
                                         bool accumulate);
QZ_NODISCARD qz_status qz_product_grad_w(const qz_tape *t, const qz_tensor *dw, const qz_tensor *dy,
                                         const qz_tensor *x);

static inline bool qz_wants(const qz_var *v)
{
    return v && v->wants;
}

#endif
