/* The table at the end of a run. */
#include "programs/run_result.h"
#include "programs/table.h"

double qz_run_ratio(const qz_run_result *r)
{
    return r->made.perplexity.perplexity / r->original.perplexity;
}

const char *qz_run_source_type(const qz_run_result *r)
{
    switch (qz_model_config_of(r->job->session.model)->stored) {
    case QZ_BF16:
        return "bf16";
    case QZ_F16:
        return "fp16";
    case QZ_F32:
        return "fp32";
    default:
        return "original";
    }
}

static void add_row(qz_table *t, const char *what, const char *before, const char *after, const char *note)
{
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s", what);
    qz_table_set(t, 1, "%s", before);
    qz_table_set(t, 2, "%s", after);
    qz_table_set(t, 3, "%s", note);
}

static void add_numbers(qz_table *t, const char *what, const char *note, double before, double after, int digits)
{
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s", what);
    qz_table_set(t, 1, "%.*f", digits, before);
    qz_table_set(t, 2, "%.*f", digits, after);
    qz_table_set(t, 3, "%s", note);
}

static void add_quality(qz_table *t, const qz_run_result *r)
{
    char note[128], value[32], limit[64];
    const qz_acceptance *a = &r->acceptance;
    snprintf(note, sizeof note, "ratio %.4f%s", qz_run_ratio(r), qz_accept_note(limit, a, QZ_ACCEPT_PERPLEXITY));
    add_numbers(t, "perplexity", note, r->original.perplexity, r->made.perplexity.perplexity, 3);
    snprintf(value, sizeof value, "%.6f", r->made.divergence.kl_mean);
    snprintf(note, sizeof note, "99th percentile %.6f%s", r->made.divergence.kl_99,
             qz_accept_note(limit, a, QZ_ACCEPT_KL));
    add_row(t, "KL to the original, nats", "", value, note);
    snprintf(value, sizeof value, "%.2f %%", 100 * r->made.divergence.top1);
    snprintf(note, sizeof note, "same most likely token%s", qz_accept_note(limit, a, QZ_ACCEPT_TOP1));
    add_row(t, "top-1 agreement", "", value, note);
}

static void add_sizes(qz_table *t, const qz_run_result *r)
{
    char before[32], after[32];
    const qz_weight_count *a = &r->before, *b = &r->made.weights;
    double source_bits = qz_dtype_bits(qz_model_config_of(r->job->session.model)->stored);
    if (b->linear_numbers) /* a container of plain weights has none */
        add_numbers(t, "bits per weight, quantized linears", "", source_bits,
                    qz_bits(b->linear_bytes, b->linear_numbers), 3);
    add_numbers(t, "bits per weight, everything", "", qz_bits(a->bytes, a->numbers), qz_bits(b->bytes, a->numbers), 3);
    add_row(t, "weights on disk", qz_text_bytes(before, a->bytes), qz_text_bytes(after, b->bytes), "");
    add_row(t, "folder on disk", qz_text_bytes(before, r->source_folder_bytes),
            qz_text_bytes(after, r->made.folder_bytes), "");
}

static qz_status print_time(const qz_run_result *r, const qz_cli *cli)
{
    char text[32];
    qz_table t = qz_table_new(cli->arena, 2);
    double seconds;
    for (int i = 0; qz_progress_at(r->progress, i, &seconds); i++) {
        if (seconds < 0.005) continue; /* what its sections took is told by them */
        qz_table_row_add(&t);
        qz_table_set(&t, 0, "  %s", qz_progress_at(r->progress, i, &seconds));
        qz_table_set(&t, 1, "%s", qz_text_seconds(text, seconds));
    }
    qz_table_row_add(&t);
    qz_table_set(&t, 0, "time");
    qz_table_set(&t, 1, "%s", qz_text_seconds(text, r->seconds));
    return qz_table_print(&t, cli->out, "");
}

static qz_status print_quality(const qz_run_result *r, const qz_cli *cli)
{
    qz_table t = qz_table_new(cli->arena, 4);
    t.left[3] = true;
    add_row(&t, "", qz_run_source_type(r), "quantized", "");
    if (r->made.evaluated) add_quality(&t, r);
    add_sizes(&t, r);
    return qz_table_print(&t, cli->out, "");
}

qz_status qz_run_print(const qz_run_result *r, const qz_cli *cli)
{
    char a[32], b[32];
    QZ_TRY(r->trained || r->merged.wanted ? qz_run_print_training(r, cli) : print_quality(r, cli));
    fputc('\n', cli->out);
    QZ_TRY(print_time(r, cli));
    fprintf(cli->out, "\npeak memory  %s anonymous, %s with mapped files\n",
            qz_text_bytes(a, r->terminal->memory.anonymous_peak), qz_text_bytes(b, r->terminal->memory.resident_peak));
    fprintf(cli->out, "written to   %s\n", r->recipe->output);
    return QZ_OK;
}
