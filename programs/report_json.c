/* report.json: what was done, from what, where, and how well. The order of keys is fixed; "report_version" counts
 * changes of meaning (docs/versions.md). It is the last file that a run writes, so a folder that has it is whole. */
#include <math.h>
#include <string.h>

#include "base/json.h"
#include "base/parallel.h"
#include "programs/run_result.h"

enum { REPORT_VERSION = 1 };

static void put_inputs(qz_json_writer *w, const qz_run_result *r)
{
    char hash[33] = "";
    const qz_recipe *recipe = r->recipe;
    qz_json_begin_object(w, "inputs");
    qz_json_put_string(w, "model", recipe->model);
    qz_json_put_string(w, "model_hash", qz_ckpt_hash(r->job->session.ckpt, hash) == QZ_OK ? hash : NULL);
    qz_json_put_string(w, "calibration", recipe->calibration.data);
    qz_json_put_string(w, "calibration_hash", *r->calibration_hash ? r->calibration_hash : NULL);
    if (r->trained) {
        qz_json_put_string(w, "training", recipe->train.data);
        qz_json_put_string(w, "training_hash", r->training_hash);
        qz_json_put_int(w, "training_seed", (int64_t)recipe->train.seed);
        qz_json_put_string(w, "validation", recipe->train.validation.data);
        qz_json_put_string(w, "validation_hash", *r->validation_hash ? r->validation_hash : NULL);
    }
    qz_json_put_string(w, "evaluation", recipe->evaluate.data);
    qz_json_put_string(w, "evaluation_hash", *r->evaluation_hash ? r->evaluation_hash : NULL);
    qz_json_put_int(w, "seed", (int64_t)recipe->calibration.seed);
    qz_json_end(w);
}

static void put_environment(qz_json_writer *w, const qz_run_result *r)
{
    char cpu[128];
    const qz_backend *backend = r->job->session.backend;
    qz_json_begin_object(w, "environment");
    qz_json_put_string(w, "backend", backend->plugin.name);
    qz_json_put_string(w, "arithmetic", backend->describe());
    qz_json_put_string(w, "cpu", qz_host_cpu(cpu, sizeof cpu));
    qz_json_put_int(w, "threads", qz_threads());
    qz_json_put_double(w, "gflops_measured", r->job->gflops);
    qz_json_end(w);
}

static void put_perplexity(qz_json_writer *w, const char *key, const qz_perplexity *p)
{
    qz_json_begin_object(w, key);
    qz_json_put_double(w, "perplexity", p->perplexity);
    qz_json_put_double(w, "mean_log_prob", p->mean_log_prob);
    qz_json_put_int(w, "tokens", p->tokens);
    qz_json_put_int(w, "windows", p->windows);
    qz_json_end(w);
}

static void put_result(qz_json_writer *w, const qz_run_result *r)
{
    const qz_weight_count *b = &r->made.weights;
    qz_json_begin_object(w, "result");
    if (r->made.evaluated) {
        put_perplexity(w, "original", &r->original);
        put_perplexity(w, "quantized", &r->made.perplexity);
        qz_json_put_double(w, "perplexity_ratio", qz_run_ratio(r));
    }
    if (r->made.diverged) {
        qz_json_put_double(w, "kl_mean", r->made.divergence.kl_mean);
        qz_json_put_double(w, "kl_99", r->made.divergence.kl_99);
        qz_json_put_double(w, "top1_agreement", r->made.divergence.top1);
    }
    qz_json_put_double(w, "bits_per_quantized_weight", qz_bits(b->linear_bytes, b->linear_numbers));
    qz_json_put_double(w, "bits_per_weight", qz_bits(b->bytes, r->before.numbers));
    qz_json_put_int(w, "weights", (int64_t)r->before.numbers);
    qz_json_put_int(w, "quantized_weights", (int64_t)b->linear_numbers);
    qz_json_put_int(w, "original_bytes", (int64_t)r->before.bytes);
    qz_json_put_int(w, "quantized_bytes", (int64_t)b->bytes);
    qz_json_end(w);
}

/* "start": what training began with, on evaluate.data; "validation": the model as it computes in training, on the text
 * of train.validation. */
static void put_training(qz_json_writer *w, const qz_run_result *r)
{
    const qz_train_result *t = &r->training;
    if (!r->trained) return;
    qz_json_begin_object(w, "training");
    qz_json_put_int(w, "steps", t->steps);
    qz_json_put_int(w, "resumed_from", t->resumed_from);
    qz_json_put_bool(w, "stopped_early", t->stopped_early);
    qz_json_put_int(w, "tokens", t->tokens);
    qz_json_put_double(w, "seconds", t->seconds);
    qz_json_put_double(w, "tokens_per_second", t->tokens_per_second);
    qz_json_put_double(w, "loss", t->loss);
    qz_json_put_int(w, "memory_bytes", (int64_t)t->memory_bytes);
    if (isfinite(t->first_perplexity)) {
        qz_json_begin_object(w, "validation");
        qz_json_put_double(w, "first_perplexity", t->first_perplexity);
        qz_json_put_double(w, "last_perplexity", t->last_perplexity);
        qz_json_put_double(w, "best_perplexity", t->best_perplexity);
        qz_json_put_int(w, "best_step", t->best_step);
        qz_json_end(w);
    }
    if (r->start.evaluated) put_perplexity(w, "start", &r->start.perplexity);
    if (r->start.diverged) {
        qz_json_put_double(w, "start_kl_mean", r->start.divergence.kl_mean);
        qz_json_put_double(w, "start_top1_agreement", r->start.divergence.top1);
    }
    qz_json_end(w);
}

static void put_merged(qz_json_writer *w, const qz_run_result *r)
{
    if (!r->merged.wanted) return;
    qz_json_begin_object(w, "merge");
    qz_json_put_string(w, "adapter", r->merged.adapter);
    if (r->merged.measured) {
        qz_json_put_double(w, "base_loss", r->merged.base);
        qz_json_put_double(w, "adapted_loss", r->merged.adapted);
        if (r->merged.rounds) qz_json_put_double(w, "rounded_loss", r->merged.rounded);
        qz_json_put_double(w, "merged_loss", -r->made.perplexity.mean_log_prob);
        qz_json_put_double(w, "gain", qz_run_gain(r));
        qz_json_put_double(w, "gain_kept", qz_run_kept(r)); /* null: there is none */
    }
    qz_json_end(w);
}

static void put_row(qz_json_writer *w, const qz_report_row *row)
{
    if (row->text)
        qz_json_put_string(w, row->what, row->text);
    else
        qz_json_put_double(w, row->what, row->value);
}

/* Rows about a place become one object for each run of rows with the same section and place. */
static void put_layers(qz_json_writer *w, const qz_report *report)
{
    const qz_report_row *last = NULL;
    qz_json_begin_array(w, "layers");
    for (size_t i = 0; i < qz_report_count(report); i++) {
        const qz_report_row *row = qz_report_row_at(report, i);
        if (!*row->where) continue;
        if (!last || strcmp(last->where, row->where) != 0 || strcmp(last->section, row->section) != 0) {
            if (last) qz_json_end(w);
            qz_json_begin_object(w, NULL);
            qz_json_put_string(w, "name", row->where);
            qz_json_put_string(w, "of", row->section);
        }
        put_row(w, row);
        last = row;
    }
    if (last) qz_json_end(w);
    qz_json_end(w);
}

/* Rows about the whole run: "section.what". */
static void put_measurements(qz_json_writer *w, const qz_report *report)
{
    qz_json_begin_object(w, "measurements");
    for (size_t i = 0; i < qz_report_count(report); i++) {
        char key[192];
        qz_report_row row = *qz_report_row_at(report, i);
        if (*row.where) continue;
        snprintf(key, sizeof key, "%s.%s", row.section, row.what);
        row.what = key;
        put_row(w, &row);
    }
    qz_json_end(w);
}

static void put_costs(qz_json_writer *w, const qz_run_result *r)
{
    const qz_terminal *t = r->terminal;
    qz_json_begin_object(w, "phases");
    double seconds;
    for (int i = 0; qz_progress_at(r->progress, i, &seconds); i++)
        qz_json_put_double(w, qz_progress_at(r->progress, i, &seconds), seconds);
    qz_json_put_double(w, "total", r->seconds);
    qz_json_end(w);
    qz_json_begin_object(w, "memory");
    qz_json_put_int(w, "anonymous_peak", (int64_t)t->memory.anonymous_peak);
    qz_json_put_int(w, "resident_peak", (int64_t)t->memory.resident_peak);
    qz_json_put_int(w, "planned", (int64_t)r->job->plan.memory_bytes);
    qz_json_put_int(w, "bound", (int64_t)r->job->plan.bound_bytes);
    qz_json_end(w);
}

static void put_warnings(qz_json_writer *w, const qz_report *report)
{
    qz_json_begin_array(w, "warnings");
    for (size_t i = 0; i < qz_report_notes(report); i++) {
        qz_severity severity;
        const char *note = qz_report_note_at(report, i, &severity);
        if (severity == QZ_WARN) qz_json_put_string(w, NULL, note);
    }
    qz_json_end(w);
}

static void put_report(qz_json_writer *w, const qz_run_result *r)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "program", r->program);
    qz_json_put_string(w, "version", QZ_VERSION);
    qz_json_put_int(w, "report_version", REPORT_VERSION);
    qz_json_put_raw(w, "recipe", r->recipe->text);
    qz_json_put_string(w, "recipe_hash", r->recipe->hash);
    put_inputs(w, r);
    put_environment(w, r);
    put_result(w, r);
    put_training(w, r);
    put_merged(w, r);
    put_layers(w, r->report);
    put_measurements(w, r->report);
    put_costs(w, r);
    put_warnings(w, r->report);
    if (r->served) qz_serving_put(&r->serving, w, "serving");
    qz_accept_put(w, &r->acceptance);
    qz_json_end(w);
}

qz_status qz_run_report(char **out, const qz_run_result *r, qz_arena *arena)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    *out = NULL;
    QZ_TRY(qz_report_status(r->report));
    QZ_TRY(qz_json_writer_new(&w, true));
    put_report(w, r);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK && !(*out = qz_arena_strdup(arena, text))) status = qz_arena_failed(arena);
    qz_json_writer_free(w);
    return status;
}
