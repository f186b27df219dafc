/* qcal check: what a serving program will refuse of a folder, or silently do wrong. */
#include "programs/cli.h"
#include "programs/serving.h"
#include "programs/session.h"

/* What the folder's container is made for, when --for is not given. */
static qz_status usual_consumer(qz_consumer *out, const char *folder)
{
    qz_ckpt *ckpt;
    QZ_TRY(qz_ckpt_open(&ckpt, folder));
    const char *name = qz_ckpt_container(ckpt)->consumer;
    qz_status status =
        name ? qz_consumer_find(out, name) : QZ_FAIL(QZ_ARG, "--for is missing; say vllm, transformers or trt-llm");
    qz_ckpt_close(ckpt);
    return status;
}

static qz_status print_json(const qz_findings *f, const qz_cli *cli)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "folder", cli->argument[0]);
    qz_json_put_string(w, "for", qz_consumer_name(f->consumer));
    qz_json_put_bool(w, "loads_as_written", !qz_serving_spoils(f));
    qz_serving_put(f, w, "findings");
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, cli->out);
    qz_json_writer_free(w);
    return status;
}

static void print_text(const qz_findings *f, const qz_cli *cli)
{
    qz_serving_print(f, cli->out, "");
    fprintf(cli->out, "%s for %s: %zu refused, %zu silently wrong, %zu limited\n", cli->argument[0],
            qz_consumer_name(f->consumer), f->count[QZ_HARM_REFUSED], f->count[QZ_HARM_WRONG],
            f->count[QZ_HARM_LIMITED]);
}

qz_status qz_cmd_check(qz_cli *cli, int *exit_code)
{
    qz_consumer consumer;
    qz_findings findings;
    *exit_code = QZ_EXIT_DONE;
    if (cli->consumer)
        QZ_TRY_CTX(qz_consumer_find(&consumer, cli->consumer), "--for");
    else
        QZ_TRY(usual_consumer(&consumer, cli->argument[0]));
    QZ_TRY(qz_serving_check(&findings, cli->argument[0], consumer, cli->arena));
    if (qz_serving_spoils(&findings)) *exit_code = QZ_EXIT_NOT_ACCEPTED;
    if (cli->json) return print_json(&findings, cli);
    print_text(&findings, cli);
    return QZ_OK;
}
