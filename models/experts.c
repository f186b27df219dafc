/* A mixture of experts: each token goes to the few experts whose router logits are largest, and what they make of it is
 * added up with the router's weights (Shazeer et al. 2017, eq. 2; Jiang et al. 2024, section 2.1).
 *
 *     logits (T, E) = x router^T,   y += sum over the active experts e of weight_e down_e(act(gate_e(x)) up_e(x))
 *
 * Expert after expert, in order: the tokens of one are gathered into a matrix of their own, so the order of additions
 * is fixed, an expert without tokens costs nothing, and a tap sees what the expert gets. An expert of layer->all_tokens
 * is shown all tokens instead, for statistics; what it adds to y is the same. The router reads x as it is: taps change
 * copies. The indices of experts are read on the host. */
#include <string.h>

#include "models/parts.h"

typedef struct routing {
    int32_t *expert;  /* (T, A) */
    qz_tensor weight; /* (T, A) */
    int32_t *row;     /* (T) tokens of the expert at hand, */
    float *factor;    /* (T) and the weight of each */
    int64_t rows;
} routing;

/* Room for all tokens. */
typedef struct rooms {
    qz_tensor x, gate, up; /* (T, C), (T, F), (T, F) */
} rooms;

static qz_status new_routing(routing *r, const qz_model *m, const qz_layer *layer, const qz_tensor *x,
                             qz_arena *scratch)
{
    const qz_model_config *c = &m->config;
    const int64_t tokens = x->shape[0];
    qz_tensor logits;
    QZ_TRY(qz_matrix_new(&logits, tokens, c->experts, scratch));
    QZ_TRY(qz_matrix_new(&r->weight, tokens, c->active_experts, scratch));
    r->expert = qz_arena_array(scratch, int32_t, (size_t)(tokens * c->active_experts));
    r->row = qz_arena_array(scratch, int32_t, (size_t)tokens);
    r->factor = qz_arena_array(scratch, float, (size_t)tokens);
    if (!r->expert || !r->row || !r->factor) return qz_arena_failed(scratch);
    QZ_TRY(qz_op_linear(m->backend, &logits, x, &layer->router, NULL, false));
    return qz_op_route(m->backend, r->expert, &r->weight, &logits, c->normalize_routing);
}

static void find_rows(routing *r, int64_t tokens, int64_t active, int expert)
{
    r->rows = 0;
    for (int64_t i = 0; i < tokens * active; i++) {
        if (r->expert[i] != expert) continue;
        r->row[r->rows] = (int32_t)(i / active);
        r->factor[r->rows++] = qz_f32(&r->weight)[i];
    }
}

/* `rows` rows of a matrix's memory. */
static qz_tensor first_rows(const qz_tensor *x, int64_t rows)
{
    return qz_tensor_2d(x->data, QZ_F32, rows, x->shape[1]);
}

static qz_status run_expert(const qz_model *m, const qz_layer *layer, int expert, const routing *r, const rooms *room,
                            const qz_tensor *x, const qz_tensor *y, bool observe)
{
    const bool all = layer->all_tokens && layer->all_tokens[expert];
    const int64_t tokens = all ? x->shape[0] : r->rows;
    if (tokens == 0) return QZ_OK;
    const qz_tensor in = first_rows(&room->x, tokens), gate = first_rows(&room->gate, tokens),
                    up = first_rows(&room->up, tokens);
    if (all)
        memcpy(in.data, x->data, (size_t)qz_tensor_count(x) * sizeof(float));
    else
        QZ_TRY(qz_op_embedding(m->backend, &in, x, r->row));
    QZ_TRY(qz_tap_call(m, layer, qz_input_of(QZ_STAGE_GATE_UP, expert), QZ_POINT_INPUT, &in));
    QZ_TRY(qz_gate_up_apply(m, layer, expert, &gate, &up, &in));
    QZ_TRY(qz_tap_call(m, layer, qz_input_of(QZ_STAGE_DOWN, expert), QZ_POINT_INPUT, &gate));
    if (observe || r->rows == 0) return QZ_OK;
    const qz_tensor own = first_rows(all ? &room->up : &room->gate, r->rows), out = first_rows(&room->x, r->rows);
    const qz_tensor factor = qz_tensor_1d(r->factor, QZ_F32, r->rows);
    if (all) QZ_TRY(qz_op_embedding(m->backend, &own, &gate, r->row));
    QZ_TRY(qz_role_apply(m, layer, QZ_ROLE_DOWN, expert, &out, &own, false));
    return qz_op_add_rows(m->backend, y, &out, r->row, &factor);
}

qz_status qz_experts_apply(const qz_model *m, const qz_layer *layer, const qz_tensor *x, const qz_tensor *y,
                           bool observe, qz_arena *scratch)
{
    const qz_model_config *c = &m->config;
    const int64_t tokens = x->shape[0];
    routing r;
    rooms room;
    QZ_TRY(new_routing(&r, m, layer, x, scratch));
    QZ_TRY(qz_matrix_new(&room.x, tokens, c->hidden, scratch));
    QZ_TRY(qz_matrix_new(&room.gate, tokens, c->expert_ffn, scratch));
    QZ_TRY(qz_matrix_new(&room.up, tokens, c->expert_ffn, scratch));
    for (int e = 0; e < layer->experts; e++) {
        find_rows(&r, tokens, c->active_experts, e);
        QZ_TRY(run_expert(m, layer, e, &r, &room, x, y, observe));
    }
    return QZ_OK;
}

uint64_t qz_experts_numbers(const qz_model *m, int64_t tokens)
{
    const qz_model_config *c = &m->config;
    return (uint64_t)(tokens * (c->experts + 2 * c->active_experts + 2 + c->hidden + 2 * c->expert_ffn));
}
