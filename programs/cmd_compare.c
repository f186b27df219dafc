/* qcal compare: a model and others made from it on the same windows: perplexity, divergence of their predictions, bits
 * and bytes, in one table. Any folder that qcal reads will do: plain, quantized after training, or in training.
 *
 * The base's last hidden states are kept; the others are opened one at a time, so memory is that of two such buffers
 * and one model. Whether all belong together is found out before anything is computed. */
#include <string.h>

#include "base/json.h"
#include "programs/cli.h"
#include "programs/session.h"
#include "programs/signals.h"
#include "programs/table.h"
#include "programs/terminal.h"

typedef struct compared {
    const char *folder, *container;
    qz_perplexity perplexity;
    qz_divergence divergence; /* from the base; of the base itself: zeros */
    qz_weight_count count;
    uint64_t folder_bytes;
    bool base;
} compared;

typedef struct comparison {
    qz_cli *cli;
    qz_session base;
    qz_windows windows;
    qz_hidden *hidden; /* of the base */
    qz_terminal terminal;
    qz_progress *progress;
    compared row[QZ_CLI_ARGUMENTS];
} comparison;

static qz_status load_windows(qz_windows *out, const comparison *c, const qz_session *s)
{
    const qz_cli *cli = c->cli;
    const qz_windows_rule rule = {.path = cli->data,
                                  .field = cli->field,
                                  .count = cli->windows,
                                  .length = cli->sequence_length ? cli->sequence_length : 512,
                                  .allow_fewer = true};
    return qz_session_windows(out, s, &rule);
}

/* ---- do they belong together? ---- */

static qz_status check_vocabulary(const comparison *c, const qz_session *other, const char *folder)
{
    const int64_t a = qz_model_config_of(c->base.model)->vocabulary, b = qz_model_config_of(other->model)->vocabulary;
    if (a == b) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s has a vocabulary of %lld, %s one of %lld; only models of one vocabulary can be compared",
                   c->cli->argument[0], (long long)a, folder, (long long)b);
}

/* A tokenizer of its own must cut the text into the same ids. */
static qz_status check_ids(const comparison *c, const qz_session *other, const char *folder)
{
    qz_windows windows;
    if (!other->tokenizer || !c->base.tokenizer) return QZ_OK;
    QZ_TRY_CTX(load_windows(&windows, c, other), "%s", folder);
    const size_t bytes = (size_t)(windows.count * windows.length) * sizeof *windows.ids;
    if (windows.count == c->windows.count && memcmp(windows.ids, c->windows.ids, bytes) == 0) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s and %s turn %s into different ids; only models with the same tokenizer can be compared",
                   c->cli->argument[0], folder, c->cli->data);
}

static qz_status check_other(const comparison *c, const char *folder)
{
    qz_session other;
    QZ_TRY(qz_session_open(&other, folder, c->cli->backend, c->cli->pass_through, c->cli->arena));
    qz_status status = check_vocabulary(c, &other, folder);
    if (status == QZ_OK) status = check_ids(c, &other, folder);
    qz_session_close(&other);
    return status;
}

/* ---- figures ---- */

static qz_status measure(compared *row, comparison *c, const qz_session *s, const char *folder)
{
    row->folder = folder;
    row->container = qz_ckpt_container(s->ckpt)->plugin.name;
    QZ_TRY(qz_session_count(&row->count, s));
    QZ_TRY(qz_folder_bytes(&row->folder_bytes, folder));
    if (row->base) return qz_eval_hidden(&c->hidden, &row->perplexity, s->model, &c->windows, c->progress);
    return qz_eval_against(c->hidden, &row->perplexity, &row->divergence, s->model, &c->windows, c->progress);
}

static qz_status measure_other(comparison *c, int i)
{
    qz_session other;
    const char *folder = c->cli->argument[i];
    QZ_TRY(qz_session_open_weights(&other, folder, c->cli->backend, c->cli->pass_through, c->cli->arena));
    qz_status status = measure(&c->row[i], c, &other, folder);
    qz_session_close(&other);
    return status;
}

static qz_status measure_all(comparison *c)
{
    c->row[0].base = true;
    QZ_TRY(load_windows(&c->windows, c, &c->base));
    for (int i = 1; i < c->cli->arguments; i++) QZ_TRY(check_other(c, c->cli->argument[i]));
    QZ_TRY(measure(&c->row[0], c, &c->base, c->cli->argument[0]));
    for (int i = 1; i < c->cli->arguments; i++) QZ_TRY(measure_other(c, i));
    return QZ_OK;
}

/* ---- what is printed ---- */

/* Of the quantized linears with their scales; of all weights where nothing is quantized. */
static double bits_of(const compared *row)
{
    const qz_weight_count *n = &row->count;
    return n->linear_numbers ? qz_bits(n->linear_bytes, n->linear_numbers) : qz_bits(n->bytes, n->numbers);
}

static void add_row(qz_table *t, const comparison *c, const compared *row)
{
    char size[32];
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s", row->folder);
    qz_table_set(t, 1, "%.4f", row->perplexity.perplexity);
    qz_table_set(t, 6, "%.3f", bits_of(row));
    qz_table_set(t, 7, "%s", qz_text_bytes(size, row->folder_bytes));
    if (row->base) return;
    qz_table_set(t, 2, "%.4f", row->perplexity.perplexity / c->row[0].perplexity.perplexity);
    qz_table_set(t, 3, "%.6f", row->divergence.kl_mean);
    qz_table_set(t, 4, "%.6f", row->divergence.kl_99);
    qz_table_set(t, 5, "%.2f %%", 100 * row->divergence.top1);
}

static qz_status print_text(const comparison *c)
{
    static const char *const heads[] = {"", "perplexity", "ratio", "KL mean", "KL 99 %", "top-1", "bits", "folder"};
    const qz_cli *cli = c->cli;
    qz_table t = qz_table_new(cli->arena, 8);
    qz_table_row_add(&t);
    for (int i = 0; i < 8; i++) qz_table_set(&t, i, "%s", heads[i]);
    for (int i = 0; i < cli->arguments; i++) add_row(&t, c, &c->row[i]);
    QZ_TRY(qz_table_print(&t, cli->out, ""));
    fprintf(cli->out, "\n%lld tokens in %lld windows of %s; KL to %s in nats a token; bits of a quantized weight\n",
            (long long)c->row[0].perplexity.tokens, (long long)c->row[0].perplexity.windows, cli->data,
            cli->argument[0]);
    return QZ_OK;
}

static void put_row(qz_json_writer *w, const comparison *c, const compared *row)
{
    const qz_weight_count *n = &row->count;
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "folder", row->folder);
    qz_json_put_string(w, "container", row->container);
    qz_json_put_double(w, "perplexity", row->perplexity.perplexity);
    qz_json_put_double(w, "mean_log_prob", row->perplexity.mean_log_prob);
    if (!row->base) {
        qz_json_put_double(w, "perplexity_ratio", row->perplexity.perplexity / c->row[0].perplexity.perplexity);
        qz_json_put_double(w, "kl_mean", row->divergence.kl_mean);
        qz_json_put_double(w, "kl_99", row->divergence.kl_99);
        qz_json_put_double(w, "top1_agreement", row->divergence.top1);
    }
    qz_json_put_double(w, "bits_per_weight", qz_bits(n->bytes, n->numbers));
    qz_json_put_double(w, "bits_per_quantized_weight", qz_bits(n->linear_bytes, n->linear_numbers));
    qz_json_put_int(w, "folder_bytes", (int64_t)row->folder_bytes);
    qz_json_put_double(w, "seconds", row->perplexity.seconds);
    qz_json_end(w);
}

static qz_status print_json(const comparison *c)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "data", c->cli->data);
    qz_json_put_string(w, "data_hash", c->windows.hash);
    qz_json_put_int(w, "tokens", c->row[0].perplexity.tokens);
    qz_json_put_int(w, "windows", c->row[0].perplexity.windows);
    qz_json_begin_array(w, "models"); /* the base first */
    for (int i = 0; i < c->cli->arguments; i++) put_row(w, c, &c->row[i]);
    qz_json_end(w);
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, c->cli->out);
    qz_json_writer_free(w);
    return status;
}

static qz_status compare(comparison *c)
{
    QZ_TRY(qz_progress_new(&c->progress, qz_terminal_progress, &c->terminal));
    qz_status status = measure_all(c);
    qz_terminal_clear(&c->terminal);
    QZ_TRY(status);
    return c->cli->json ? print_json(c) : print_text(c);
}

qz_status qz_cmd_compare(qz_cli *cli, int *exit_code)
{
    comparison c = {.cli = cli, .terminal = qz_terminal_new(cli->err, cli->quiet)};
    *exit_code = QZ_EXIT_DONE;
    if (!cli->data) return QZ_FAIL(QZ_ARG, "--data FILE is missing; usage: qcal compare BASE A [B...] --data FILE");
    qz_signals_catch();
    QZ_TRY(qz_session_open(&c.base, cli->argument[0], cli->backend, cli->pass_through, cli->arena));
    qz_status status = compare(&c);
    qz_progress_free(c.progress);
    qz_hidden_free(c.hidden);
    qz_session_close(&c.base);
    return status;
}
