/* What a run will take, before it takes it: memory by tier, disk, time. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "calib/choices.h"
#include "calib/gather.h"
#include "calib/run.h"
#include "calib/stagewise.h"
#include "calib/target.h"
#include "eval/eval.h"

/* Beside the named tiers: code, libraries, thread stacks, and of each thread what BLAS packs its tiles into. */
#define FIXED_BYTES ((uint64_t)100 << 20)
#define BLAS_BYTES ((uint64_t)8 << 20)
/* What the bound of the project allows beyond layer, statistics and activations. */
#define SLACK_BYTES ((uint64_t)200 * 1000 * 1000)

static void tier(qz_plan *p, const char *name, uint64_t bytes)
{
    p->memory[p->rows++] = (qz_plan_row){name, bytes};
    p->memory_bytes += bytes;
}

static uint64_t stats_bytes(const qz_model *m, qz_stats_wants wants)
{
    uint64_t most = 0;
    for (int layer = 0; layer < (int)qz_model_config_of(m)->layers; layer++) {
        uint64_t sum = 0;
        for (int i = 0; i < qz_model_inputs(m, layer); i++)
            sum += qz_stats_bytes(qz_model_input_width(m, layer, i), wants);
        if (sum > most) most = sum;
    }
    return most;
}

static qz_stats_wants wants_of(const qz_calib_args *a)
{
    qz_stats_wants all = {0};
    for (int i = 0; i < a->outputs; i++) {
        const qz_stats_wants wants = qz_target_wants(&a->output[i]);
        if (wants.reservoir > all.reservoir) all.reservoir = wants.reservoir;
        all.histogram |= wants.histogram;
    }
    return all;
}

/* Does an output before the last re-express statistics that others need as they are? */
static bool copies_statistics(const qz_calib_args *a)
{
    for (int i = 0; i + 1 < a->outputs; i++)
        if (a->output[i].recipe->transforms) return true;
    return false;
}

static uint64_t widest_stage(const qz_model *m)
{
    int64_t most = 0;
    for (int layer = 0; layer < (int)qz_model_config_of(m)->layers; layer++)
        for (int i = 0; i < qz_model_inputs(m, layer); i++)
            if (qz_model_input_width(m, layer, i) > most) most = qz_model_input_width(m, layer, i);
    return (uint64_t)most;
}

/* An output that quantizes the model's end holds it as one more layer, of one linear. */
static uint64_t end_weights(const qz_calib_args *a)
{
    const qz_model_config *c = qz_model_config_of(a->model);
    for (int i = 0; i < a->outputs; i++)
        if (a->output[i].plan->first[a->output[i].plan->layers] < a->output[i].plan->linears)
            return (uint64_t)(c->vocabulary * c->hidden);
    return 0;
}

/* A quantized head or embedding is evaluated from its codes, a byte each, and its scales. */
static uint64_t code_bytes(const qz_calib_args *a)
{
    uint64_t most = 0;
    for (int i = 0; i < a->outputs; i++) {
        const qz_export_plan *e = a->output[i].plan;
        uint64_t sum = 0;
        for (size_t j = e->first[e->layers]; j < e->linears; j++) {
            const qz_export_linear *l = &e->linear[j];
            sum += (uint64_t)(l->n * l->k) + (uint64_t)qz_scheme_pieces(&l->scheme, l->n, l->k) * (sizeof(float) + 2);
        }
        if (sum > most) most = sum;
    }
    return most;
}

static uint64_t layer_bytes(const qz_calib_args *a)
{
    const uint64_t layer = qz_model_layer_bytes(a->model), end = end_weights(a) * sizeof(float);
    return layer > end ? layer : end;
}

/* Transforms pool what is known of the experts' inputs. */
static uint64_t pool_bytes(const qz_calib_args *a)
{
    const qz_model_config *c = qz_model_config_of(a->model);
    bool transformed = false;
    for (int i = 0; i < a->outputs; i++) transformed |= a->output[i].recipe->transforms > 0;
    return c->experts > 0 && transformed ? qz_stats_bytes(c->hidden, wants_of(a)) : 0;
}

static uint64_t factor_of(const qz_recipe_weights *w, uint64_t widest)
{
    const qz_solver *solver = qz_solver_at((size_t)w->solver.index);
    return solver->factor_bytes ? solver->factor_bytes((int64_t)widest) : 0;
}

/* Of the widest input, by whichever solver keeps most. */
static uint64_t factor_bytes(const qz_calib_args *a)
{
    const uint64_t widest = widest_stage(a->model);
    uint64_t most = 0;
    for (int i = 0; i < a->outputs; i++) {
        const qz_recipe *r = a->output[i].recipe;
        uint64_t bytes = factor_of(&r->weights, widest);
        if (bytes > most) most = bytes;
        for (int j = 0; j < r->overrides; j++) {
            bytes = factor_of(&r->override[j].weights, widest);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

/* Of all threads, for whichever linear takes most. */
static uint64_t work_bytes(const qz_calib_args *a)
{
    uint64_t most = 0;
    for (int i = 0; i < a->outputs; i++)
        for (size_t j = 0; j < a->output[i].plan->linears; j++) {
            const qz_export_linear *l = &a->output[i].plan->linear[j];
            if (!l->quantized) continue;
            const int index = qz_choice_weights(a->output[i].recipe, l->module)->solver.index;
            const qz_solver *solver = qz_solver_at((size_t)index);
            const uint64_t bytes = solver->work_bytes ? solver->work_bytes(&l->scheme, l->k) : 0;
            if (bytes > most) most = bytes;
        }
    return most * (uint64_t)qz_threads();
}

/* The widest linear's codes, words for the container, and tiles of the search or the solver's workspace. */
static uint64_t solve_bytes(const qz_calib_args *a)
{
    const qz_model *m = a->model;
    uint64_t most = end_weights(a);
    for (int layer = 0; layer < (int)qz_model_config_of(m)->layers; layer++)
        for (int i = 0; i < qz_model_linears(m, layer); i++) {
            const qz_linear_place *l = qz_model_linear(m, layer, i);
            if ((uint64_t)(l->n * l->k) > most) most = (uint64_t)(l->n * l->k);
        }
    const uint64_t work = work_bytes(a), tiles = (uint64_t)64 << 20;
    return 2 * most + (work > tiles ? work : tiles);
}

/* Without text nothing is run. */
static int64_t samples_of(const qz_recipe *r)
{
    return r->calibration.data ? r->calibration.samples : 0;
}

/* All of a text is not known before it is read: 64 windows stand for it. */
static int64_t evaluation_windows(const qz_recipe *r)
{
    return r->evaluate.windows ? r->evaluate.windows : 64;
}

static void plan_memory(qz_plan *p, const qz_calib_args *a)
{
    const qz_recipe *r = a->output[0].recipe;
    const qz_model *m = a->model;
    const uint64_t statistics = stats_bytes(m, wants_of(a));
    const qz_model_config *c = qz_model_config_of(m);
    int64_t samples = samples_of(r), tokens = samples * r->calibration.sequence_length;
    uint64_t stream = qz_stream_bytes(c, samples, r->calibration.sequence_length, r->calibration.activations);
    uint64_t element = (uint64_t)qz_dtype_bits(r->calibration.activations) / 8;
    tier(p,
         end_weights(a) * sizeof(float) > qz_model_layer_bytes(m) ? "the output head's weights, fp32"
                                                                  : "one layer's weights, fp32",
         layer_bytes(a));
    tier(p, "its statistics", statistics);
    if (qz_calib_is_stagewise(a))
        tier(p, "what one stage leaves for the next, of all samples",
             qz_stagewise_bytes(m, tokens, r->calibration.activations));
    if (copies_statistics(a)) tier(p, "a copy of them for outputs with transforms", statistics);
    if (pool_bytes(a)) tier(p, "statistics of all experts together", pool_bytes(a));
    if (factor_bytes(a)) tier(p, "one factor, fp64", factor_bytes(a));
    if (a->outputs > 1) tier(p, "the weights again for further outputs", qz_model_layer_bytes(m));
    tier(p, "residual stream of all samples", stream);
    tier(p, "one batch of activations", qz_gather_bytes(m, r->calibration.sequence_length));
    tier(p, "codes and search", solve_bytes(a));
    tier(p, "program and libraries", FIXED_BYTES + BLAS_BYTES * (uint64_t)qz_threads());
    p->memory_available = qz_memory_available();
    if (r->evaluate.wanted) { /* at another time, so only the larger of the two counts */
        uint64_t evaluation =
            qz_eval_compare_bytes(m, evaluation_windows(r), r->evaluate.sequence_length) + code_bytes(a) + FIXED_BYTES;
        if (evaluation > p->memory_bytes) {
            p->rows = 0;
            p->memory_bytes = 0;
            tier(p, "evaluation", evaluation);
        }
    }
    p->bound_bytes = layer_bytes(a) + statistics + factor_bytes(a) + stream +
                     (uint64_t)tokens * widest_stage(m) * element + SLACK_BYTES;
}

typedef struct weight_bits {
    double bits, weights; /* of quantized linears */
    double plain;         /* numbers of linears that stay plain */
} weight_bits;

static weight_bits bits_of(const qz_calib_output *o)
{
    const bool keeps_codes = qz_container_at((size_t)o->recipe->output_as.container.index)->holds != NULL;
    weight_bits b = {0};
    for (size_t i = 0; i < o->plan->linears; i++) {
        const qz_export_linear *l = &o->plan->linear[i];
        const double count = (double)l->n * (double)l->k;
        if (!l->quantized) {
            b.plain += count;
            continue;
        }
        b.weights += count;
        b.bits += count * (keeps_codes ? qz_scheme_bits_per_weight(&l->scheme, l->n, l->k)
                                       : qz_dtype_bits(o->plan->plain_type));
    }
    return b;
}

/* Numbers of the model that are not in linears: embeddings, norms, the head. */
static qz_status count_plain(double *out, const qz_model *m)
{
    const char **name;
    size_t count;
    qz_arena *arena;
    *out = 0;
    QZ_TRY(qz_arena_new(&arena, "plan"));
    qz_status status = qz_model_plain_names(m, &name, &count, arena);
    for (size_t i = 0; i < count && status == QZ_OK; i++) {
        const qz_stored *t = qz_ckpt_find(qz_model_ckpt(m), name[i]);
        if (t) *out += (double)qz_tensor_count(&t->view);
    }
    qz_arena_free(arena);
    return status;
}

/* Bytes that the checkpoints will have, and bits per quantized weight of the first. */
static qz_status plan_disk(qz_plan *p, const qz_calib_args *a)
{
    double plain;
    const qz_recipe *r = a->output[0].recipe;
    QZ_TRY(count_plain(&plain, a->model));
    if (r->evaluate.wanted)
        p->disk_scratch = qz_hidden_bytes(a->model, evaluation_windows(r), r->evaluate.sequence_length);
    p->source_bytes = qz_ckpt_bytes(qz_model_ckpt(a->model));
    for (int i = 0; i < a->outputs; i++) {
        const weight_bits b = bits_of(&a->output[i]);
        p->disk_bytes += (uint64_t)((b.bits + (plain + b.plain) * qz_dtype_bits(a->output[i].plan->plain_type)) / 8);
        if (i == 0) p->bits_per_weight = b.weights > 0 ? b.bits / b.weights : 0;
    }
    return QZ_OK;
}

typedef struct flops {
    double look, all, gram, search; /* search: in all; the others: a token */
} flops;

/* Of a layer's linears; an expert sees its share of the tokens. */
static flops layer_flops(const qz_model *m, int layer)
{
    const qz_model_config *c = qz_model_config_of(m);
    flops f = {0};
    const int experts = (qz_model_inputs(m, layer) - QZ_STAGE_GATE_UP) / 2;
    const double share = experts > 1 ? (double)c->active_experts / (double)c->experts : 1;
    for (int i = 0; i < qz_model_linears(m, layer); i++) {
        const qz_linear_place *l = qz_model_linear(m, layer, i);
        const qz_stage stage = qz_input_stage(l->input);
        const double weights = (double)l->n * (double)l->k, seen = stage < QZ_STAGE_GATE_UP ? 1 : share;
        f.all += 2 * weights * seen;
        if (stage != QZ_STAGE_DOWN) f.look += 2 * weights * seen;
        f.search += 2 * weights * (double)l->k;
    }
    for (int i = 0; i < qz_model_inputs(m, layer); i++) {
        const double k = (double)qz_model_input_width(m, layer, i);
        f.gram += k * k * (i < QZ_STAGE_GATE_UP ? 1 : share);
    }
    return f;
}

/* Floating-point operations of the run. What counts: the forwards (the last linear of a look and the last layer of a
 * second pass left out), the Gram matrices, the search of every output (two exact scores each), and the evaluations, in
 * which the original's head runs again beside every output's. */
static double count_flops(const qz_calib_args *args)
{
    const qz_recipe *r = args->output[0].recipe;
    const qz_model_config *c = qz_model_config_of(args->model);
    const double length = (double)r->calibration.sequence_length, tokens = (double)samples_of(r) * length;
    const double windows = r->evaluate.wanted ? (double)evaluation_windows(r) : 0;
    const double scored = (double)r->evaluate.sequence_length, models = 1 + args->outputs;
    const double attention = 2 * (double)(c->heads * c->head_dim); /* a token and position */
    const bool twice = qz_calib_propagates_quantized(args);
    double sum = (models + args->outputs) * windows * scored * 2 * (double)(c->vocabulary * c->hidden);
    for (int i = 0; i < (int)c->layers; i++) {
        const flops f = layer_flops(args->model, i);
        const double look = twice || i + 1 == (int)c->layers ? f.look : f.all;
        sum += tokens * (look + attention * length + f.gram) + (samples_of(r) ? args->outputs * f.search : 0);
        if (twice && i + 1 < (int)c->layers) sum += tokens * (f.all + attention * length);
        sum += models * windows * scored * (f.all + attention * scored);
    }
    return sum;
}

/* One forward over all layers but the last: what --resume does when all but that one are finished. */
static double count_replay(const qz_calib_args *args)
{
    const qz_recipe *r = args->output[0].recipe;
    const qz_model_config *c = qz_model_config_of(args->model);
    const double length = (double)r->calibration.sequence_length, tokens = (double)samples_of(r) * length;
    const double attention = 2 * (double)(c->heads * c->head_dim);
    double sum = 0;
    for (int i = 0; i + 1 < (int)c->layers; i++) sum += tokens * (layer_flops(args->model, i).all + attention * length);
    return sum;
}

static qz_status judge(const qz_plan *p, const qz_recipe *r)
{
    if (p->memory_available && p->memory_bytes > p->memory_available)
        return QZ_FAIL(
            QZ_MEMORY,
            "the plan needs %.1f GB of memory, %.1f GB are available: lower calibration.samples or sequence_length, or "
            "set calibration.activations to \"bf16\"",
            (double)p->memory_bytes / 1e9, (double)p->memory_available / 1e9);
    if (p->disk_free && p->disk_bytes + p->disk_scratch > p->disk_free)
        return QZ_FAIL(QZ_IO, "%s: the checkpoint needs %.2f GB of disk, %.2f GB are free: choose another output",
                       r->output, (double)(p->disk_bytes + p->disk_scratch) / 1e9, (double)p->disk_free / 1e9);
    return QZ_OK;
}

qz_status qz_calib_plan(qz_plan *out, const qz_calib_args *args, double gflops)
{
    const qz_recipe *recipe = args->output[0].recipe;
    memset(out, 0, sizeof *out);
    plan_memory(out, args);
    QZ_TRY(plan_disk(out, args));
    out->flops = count_flops(args);
    out->seconds = gflops > 0 ? out->flops / (gflops * 1e9) : 0;
    out->replay_seconds = gflops > 0 && !args->read ? count_replay(args) / (gflops * 1e9) : 0;
    QZ_TRY(qz_disk_free(recipe->output, &out->disk_free));
    return judge(out, recipe);
}
