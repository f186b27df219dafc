/* See look.h. */
#include "calib/look.h"

#include <stdio.h>

#include "calib/kv_scale.h"

static int inputs_of(const qz_look_args *a, const qz_layer *layer)
{
    return qz_model_inputs(a->run->model, layer->index);
}

static qz_status stats_new(qz_layer_stats *out, const qz_look_args *a, const qz_layer *layer)
{
    const int inputs = inputs_of(a, layer);
    const qz_model_config *c = qz_model_config_of(a->run->model);
    const uint64_t seed = a->recipe->calibration.seed;
    out->input = qz_arena_array(a->arena, qz_stats, (size_t)inputs);
    out->kv = a->kv ? qz_arena_array(a->arena, qz_stats, 2) : NULL;
    if (!out->input || (a->kv && !out->kv)) return qz_arena_failed(a->arena);
    if (a->run->read) return QZ_OK;
    for (int i = 0; i < inputs; i++)
        QZ_TRY(qz_stats_new(&out->input[i], qz_model_input_width(a->run->model, layer->index, i), a->wants, seed,
                            (uint64_t)(layer->index * inputs + i), a->arena));
    for (int i = 0; i < 2 && a->kv; i++)
        QZ_TRY(qz_stats_new(&out->kv[i], c->kv_heads * c->head_dim, qz_kv_wants(), seed,
                            (uint64_t)(layer->index * 2 + i), a->arena));
    return QZ_OK;
}

/* ---- experts ---- */

/* Marks the inputs of experts that got too few tokens; the number of such experts. */
static int mark_starved(bool *wanted, uint8_t *all_tokens, const qz_layer_stats *s, const qz_look_args *a,
                        const qz_layer *layer)
{
    int count = 0;
    for (int e = 0; e < layer->experts; e++) {
        const int gate_up = qz_input_of(QZ_STAGE_GATE_UP, e), down = qz_input_of(QZ_STAGE_DOWN, e);
        if (s->input[gate_up].tokens >= a->recipe->calibration.expert_tokens) continue;
        wanted[gate_up] = wanted[down] = true;
        all_tokens[e] = 1;
        count++;
    }
    return count;
}

static void report_experts(const qz_look_args *a, const qz_layer_stats *s, const qz_layer *layer)
{
    char where[64];
    for (int e = 0; e < layer->experts; e++) {
        const double tokens = (double)s->input[qz_input_of(QZ_STAGE_GATE_UP, e)].tokens;
        snprintf(where, sizeof where, "layer %d expert %d", layer->index, e);
        for (int i = 0; i < a->run->outputs; i++)
            qz_report_add(a->run->output[i].report, "expert", where, "tokens", tokens, "");
        if (a->run->report) qz_report_add(a->run->report, "expert", where, "tokens", tokens, "");
    }
}

/* The starved experts' statistics are made again from all tokens. */
static qz_status feed_starved(qz_layer_stats *s, float *peak, const qz_look_args *a, const qz_layer *layer)
{
    const size_t inputs = (size_t)inputs_of(a, layer);
    bool *wanted = qz_arena_calloc(a->arena, inputs * sizeof *wanted);
    uint8_t *all_tokens = qz_arena_calloc(a->arena, (size_t)layer->experts);
    if (!wanted || !all_tokens) return qz_arena_failed(a->arena);
    report_experts(a, s, layer);
    if (!mark_starved(wanted, all_tokens, s, a, layer)) return QZ_OK;
    for (size_t i = 0; i < inputs; i++)
        if (wanted[i])
            QZ_TRY(qz_stats_new(&s->input[i], s->input[i].k, a->wants, a->recipe->calibration.seed,
                                (uint64_t)layer->index * inputs + i, a->arena));
    qz_layer shown = *layer;
    shown.all_tokens = all_tokens;
    const qz_layer_stats again = {.input = s->input, .wanted = wanted};
    return qz_gather(&again, peak, a->stream, &shown, false, a->run->progress, a->scratch);
}

/* ---- from the text, or from a file ---- */

static qz_status run(qz_layer_stats *out, float *peak, const qz_look_args *a, const qz_layer *layer)
{
    const bool routed = layer->experts > 1;
    QZ_TRY(qz_gather(out, peak, a->stream, layer, a->move_on && !routed, a->run->progress, a->scratch));
    if (routed) {
        QZ_TRY(feed_starved(out, peak, a, layer));
        if (a->move_on) QZ_TRY(qz_advance(peak, a->stream, layer, a->run->progress, a->scratch));
    }
    return qz_gather_finish(out, peak, a->run->model, layer, a->scratch);
}

static qz_status read(qz_layer_stats *out, const qz_look_args *a, const qz_layer *layer)
{
    const qz_model_config *c = qz_model_config_of(a->run->model);
    for (int i = 0; i < inputs_of(a, layer); i++)
        QZ_TRY(qz_stats_file_read(&out->input[i], a->run->read, layer->index, i,
                                  qz_model_input_width(a->run->model, layer->index, i), a->wants, a->arena));
    for (int i = 0; i < 2 && a->kv; i++)
        QZ_TRY(qz_stats_file_read_kv(&out->kv[i], a->run->read, layer->index, i == 1, c->kv_heads * c->head_dim,
                                     qz_kv_wants(), a->arena));
    return QZ_OK;
}

/* The recipe may keep only some layers: "model.layers.3". */
static bool is_kept(const qz_look_args *a, const qz_layer *layer)
{
    const qz_patterns *kept = &a->recipe->statistics.layers;
    char name[256];
    snprintf(name, sizeof name, "%s.%d", qz_model_family(a->run->model)->names->layer, layer->index);
    return kept->count == 0 || qz_patterns_match(kept, name);
}

static qz_status write(const qz_layer_stats *s, const qz_look_args *a, const qz_layer *layer)
{
    for (int i = 0; i < inputs_of(a, layer); i++)
        QZ_TRY(qz_stats_file_write(a->run->write, layer->index, i, &s->input[i]));
    for (int i = 0; i < 2 && a->kv; i++) QZ_TRY(qz_stats_file_write_kv(a->run->write, layer->index, i == 1, &s->kv[i]));
    return QZ_OK;
}

qz_status qz_look(qz_layer_stats *out, float *peak, const qz_look_args *a, const qz_layer *layer)
{
    *out = (qz_layer_stats){0};
    QZ_TRY(stats_new(out, a, layer));
    if (a->run->read) return read(out, a, layer);
    QZ_TRY(run(out, peak, a, layer));
    return a->run->write && is_kept(a, layer) ? write(out, a, layer) : QZ_OK;
}

/* ---- the output head ---- */

bool qz_look_keeps_head(const qz_recipe *recipe, const qz_model *m)
{
    const char *module = qz_model_end_name(m, QZ_END_HEAD);
    return module && (recipe->statistics.layers.count == 0 || qz_patterns_match(&recipe->statistics.layers, module));
}

qz_status qz_look_head(qz_stats *out, const qz_look_args *a)
{
    const qz_model *m = a->run->model;
    const int64_t width = qz_model_config_of(m)->hidden;
    if (a->run->read) return qz_stats_file_read_head(out, a->run->read, width, a->wants, a->arena);
    QZ_TRY(qz_stats_new(out, width, a->wants, a->recipe->calibration.seed, UINT32_MAX, a->arena));
    QZ_TRY(qz_gather_head(out, a->stream, a->run->progress, a->scratch));
    if (!a->run->write || !qz_look_keeps_head(a->recipe, m)) return QZ_OK;
    return qz_stats_file_write_head(a->run->write, out);
}
