/* The plan as a table and as JSON. */
#include "base/json.h"
#include "base/parallel.h"
#include "programs/job.h"
#include "programs/table.h"

static void add_bytes(qz_table *t, const char *what, uint64_t bytes, const char *note)
{
    char text[32];
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s", what);
    qz_table_set(t, 1, "%s", qz_text_bytes(text, bytes));
    qz_table_set(t, 2, "%s", note);
}

static void add_memory(qz_table *t, const qz_plan *plan)
{
    char bytes[32], note[64];
    for (int i = 0; i < plan->rows; i++) {
        char what[128];
        snprintf(what, sizeof what, "  %s", plan->memory[i].tier);
        add_bytes(t, what, plan->memory[i].bytes, "");
    }
    snprintf(note, sizeof note, "of %s available", qz_text_bytes(bytes, plan->memory_available));
    add_bytes(t, "memory", plan->memory_bytes, plan->memory_available ? note : "");
}

static void add_training(qz_table *t, const qz_job *job)
{
    const qz_recipe_train *how = &job->recipe->train;
    qz_table_row_add(t);
    qz_table_set(t, 0, "trained");
    qz_table_set(t, 1, "%lld", (long long)job->parameters);
    qz_table_set(t, 2, "numbers, in %lld steps of %lld tokens", (long long)how->steps,
                 (long long)(how->batch * how->sequence_length));
}

static void add_rest(qz_table *t, const qz_job *job)
{
    const qz_plan *plan = &job->plan;
    char text[32], note[128];
    int used = snprintf(note, sizeof note, "of %s free", qz_text_bytes(text, plan->disk_free));
    if (plan->disk_scratch)
        snprintf(note + used, sizeof note - (size_t)used, "; %s more until it is evaluated",
                 qz_text_bytes(text, plan->disk_scratch));
    add_bytes(t, "disk", plan->disk_bytes, note);
    qz_table_row_add(t);
    qz_table_set(t, 0, "bits per quantized weight");
    qz_table_set(t, 1, "%.3f", plan->bits_per_weight);
    qz_table_row_add(t);
    qz_table_set(t, 0, "time");
    qz_table_set(t, 1, "%s", qz_text_seconds(text, plan->seconds));
    qz_table_set(t, 2, "estimate, from %.0f GFLOP/s measured", job->gflops);
    if (job->adapter) return;
    if (job->recipe->train.wanted) {
        add_training(t, job);
        return;
    }
    qz_table_row_add(t);
    qz_table_set(t, 0, "after an interruption");
    qz_table_set(t, 1, "%s", qz_text_seconds(text, plan->replay_seconds));
    qz_table_set(t, 2, "at most: --resume passes finished layers again; nothing is stored for it");
}

/* The scheme of the first linear that is quantized; others differ only by overrides. */
static void print_output(const qz_job_output *o, FILE *out)
{
    char scheme[96] = "nothing quantized";
    for (size_t i = 0; i < o->plan.linears; i++) {
        if (!o->plan.linear[i].quantized) continue;
        qz_scheme_describe(&o->plan.linear[i].scheme, scheme, sizeof scheme);
        break;
    }
    fprintf(out, "output  %s: %s, %s\n", o->recipe->output, o->recipe->output_as.container.name, scheme);
}

static void print_head(const qz_job *job, FILE *out)
{
    const qz_model_config *c = qz_model_config_of(job->session.model);
    char bytes[32];
    fprintf(out, "model   %s: %s, %lld layers of %lld, vocabulary %lld, %s\n", job->recipe->model, c->family,
            (long long)c->layers, (long long)c->hidden, (long long)c->vocabulary,
            qz_text_bytes(bytes, qz_ckpt_bytes(job->session.ckpt)));
    for (int i = 0; i < job->outputs; i++) print_output(&job->output[i], out);
    fprintf(out, "backend %s: %s, %d threads\n\n", job->session.backend->plugin.name, job->session.backend->describe(),
            qz_threads());
}

qz_status qz_job_print_plan(const qz_job *job, const qz_cli *cli)
{
    qz_table t = qz_table_new(cli->arena, 3);
    t.left[2] = true;
    print_head(job, cli->out);
    add_memory(&t, &job->plan);
    add_rest(&t, job);
    QZ_TRY(qz_table_print(&t, cli->out, ""));
    fputc('\n', cli->out);
    fflush(cli->out);
    return QZ_OK;
}

static void put_plan(qz_json_writer *w, const qz_job *job)
{
    const qz_plan *plan = &job->plan;
    qz_json_begin_object(w, NULL);
    qz_json_put_bool(w, "fits", job->plan_fits == QZ_OK);
    qz_json_begin_array(w, "memory");
    for (int i = 0; i < plan->rows; i++) {
        qz_json_begin_object(w, NULL);
        qz_json_put_string(w, "tier", plan->memory[i].tier);
        qz_json_put_int(w, "bytes", (int64_t)plan->memory[i].bytes);
        qz_json_end(w);
    }
    qz_json_end(w);
    qz_json_put_int(w, "memory_bytes", (int64_t)plan->memory_bytes);
    qz_json_put_int(w, "memory_available", (int64_t)plan->memory_available);
    qz_json_put_int(w, "bound_bytes", (int64_t)plan->bound_bytes);
    qz_json_put_int(w, "disk_bytes", (int64_t)plan->disk_bytes);
    qz_json_put_int(w, "disk_free", (int64_t)plan->disk_free);
    qz_json_put_int(w, "source_bytes", (int64_t)plan->source_bytes);
    qz_json_put_double(w, "seconds", plan->seconds);
    qz_json_put_double(w, "replay_seconds", plan->replay_seconds);
    qz_json_put_double(w, "flops", plan->flops);
    qz_json_put_double(w, "gflops_measured", job->gflops);
    qz_json_put_double(w, "bits_per_weight", plan->bits_per_weight);
    if (job->recipe->train.wanted) qz_json_put_int(w, "trained_numbers", job->parameters);
    qz_json_put_string(w, "recipe_hash", job->recipe->hash);
    qz_json_end(w);
}

qz_status qz_job_print_plan_json(const qz_job *job, const qz_cli *cli)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    put_plan(w, job);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, cli->out);
    qz_json_writer_free(w);
    return status;
}
