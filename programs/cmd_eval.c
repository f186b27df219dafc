/* qcal eval: perplexity of a folder by the rule of eval.h. */
#include "base/json.h"
#include "programs/cli.h"
#include "programs/session.h"
#include "programs/signals.h"
#include "programs/table.h"
#include "programs/terminal.h"

static qz_status evaluate(qz_perplexity *result, const qz_session *s, const qz_cli *cli)
{
    qz_windows windows;
    qz_windows_rule rule = {.path = cli->data,
                            .field = cli->field,
                            .count = cli->windows,
                            .length = cli->sequence_length ? cli->sequence_length : 512,
                            .allow_fewer = true};
    QZ_TRY(qz_session_windows(&windows, s, &rule));
    qz_progress *progress;
    qz_terminal terminal = qz_terminal_new(cli->err, cli->quiet);
    QZ_TRY(qz_progress_new(&progress, qz_terminal_progress, &terminal));
    qz_status status = qz_eval_perplexity(result, s->model, &windows, progress);
    qz_terminal_clear(&terminal);
    qz_progress_free(progress);
    return status;
}

static qz_status print_json(const qz_cli *cli, const qz_session *s, const qz_perplexity *p,
                            const qz_weight_count *count)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "folder", cli->argument[0]);
    qz_json_put_string(w, "data", cli->data);
    qz_json_put_string(w, "container", qz_ckpt_container(s->ckpt)->plugin.name);
    qz_json_put_double(w, "perplexity", p->perplexity);
    qz_json_put_double(w, "mean_log_prob", p->mean_log_prob);
    qz_json_put_int(w, "tokens", p->tokens);
    qz_json_put_int(w, "windows", p->windows);
    qz_json_put_double(w, "bits_per_weight", qz_bits(count->bytes, count->numbers));
    qz_json_put_double(w, "bits_per_quantized_weight", qz_bits(count->linear_bytes, count->linear_numbers));
    qz_json_put_double(w, "seconds", p->seconds);
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, cli->out);
    qz_json_writer_free(w);
    return status;
}

static void print_text(const qz_cli *cli, const qz_perplexity *p, const qz_weight_count *count)
{
    char seconds[32];
    fprintf(cli->out, "perplexity       %.4f\n", p->perplexity);
    fprintf(cli->out, "tokens           %lld in %lld windows\n", (long long)p->tokens, (long long)p->windows);
    fprintf(cli->out, "bits per weight  %.3f", qz_bits(count->bytes, count->numbers));
    if (count->linear_numbers)
        fprintf(cli->out, " (quantized linears %.3f)", qz_bits(count->linear_bytes, count->linear_numbers));
    fprintf(cli->out, "\ntime             %s\n", qz_text_seconds(seconds, p->seconds));
}

static qz_status evaluate_and_print(const qz_cli *cli, const qz_session *s)
{
    qz_perplexity result;
    qz_weight_count count;
    QZ_TRY(evaluate(&result, s, cli));
    QZ_TRY(qz_session_count(&count, s));
    if (cli->json) return print_json(cli, s, &result, &count);
    print_text(cli, &result, &count);
    return QZ_OK;
}

qz_status qz_cmd_eval(qz_cli *cli, int *exit_code)
{
    qz_session session;
    *exit_code = QZ_EXIT_DONE;
    if (!cli->data) return QZ_FAIL(QZ_ARG, "--data FILE is missing; usage: qcal eval DIR --data FILE");
    qz_signals_catch();
    QZ_TRY(qz_session_open(&session, cli->argument[0], cli->backend, cli->pass_through, cli->arena));
    qz_status status = evaluate_and_print(cli, &session);
    qz_session_close(&session);
    return status;
}
