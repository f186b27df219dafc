/* The commands, and the way from argv to an exit code. */
#include "programs/cli.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/parallel.h"

static const char *const run_options[] = {"model",     "output", "data",       "set",  "backend", "threads",
                                          "overwrite", "resume", "statistics", "json", "quiet",   NULL};
static const char *const plan_options[] = {"model", "output", "data", "set", "backend", "threads", "json", NULL};
static const char *const calibrate_options[] = {"statistics", "model",     "data", "set",   "backend",
                                                "threads",    "overwrite", "json", "quiet", NULL};
static const char *const eval_options[] = {"data",    "field",   "windows", "sequence-length", "pass-through",
                                           "backend", "threads", "json",    "quiet",           NULL};
static const char *const decode_options[] = {"output", "pass-through", "backend", "threads", NULL};
static const char *const json_option[] = {"json", NULL};
static const char *const check_options[] = {"for", "json", NULL};
static const char *const schema_options[] = {"markdown", NULL};

static const qz_command commands[] = {
    {"run", "RECIPE", "quantize a model as a recipe says",
     "Reads the recipe, prints the plan, calibrates, quantizes, writes the checkpoint, reads it back and evaluates "
     "it.\n"
     "The work happens in OUTPUT.partial, which becomes OUTPUT at the very end. Exit code 3: finished, but a\n"
     "limit of evaluate.accept is not met (the checkpoint is kept and marked by a file NOT_ACCEPTED).",
     1, 1, run_options, qz_cmd_run},
    {"plan", "RECIPE", "say what `run` would need: memory, disk, time",
     "The same plan that `run` prints first. Exit code 1 when this machine cannot hold it.", 1, 1, plan_options,
     qz_cmd_plan},
    {"calibrate", "RECIPE", "run the calibration text through the model once and keep the statistics in a file",
     "Writes --statistics FILE (HDF5; docs/statistics-file.md), from which `run` starts, as often as wanted and with\n"
     "any recipe for the same model and text. The recipe's `calibration` and `statistics` count here.",
     1, 1, calibrate_options, qz_cmd_calibrate},
    {"eval", "DIR", "perplexity of a model folder, plain or quantized",
     "Scores ids 1 to L-1 of windows of L ids (BOS first where the model has one).", 1, 1, eval_options, qz_cmd_eval},
    {"compare", "BASE DIR...", "a model and others made from it, side by side",
     "Perplexity as in `eval`, and from BASE to each other folder: mean and 99th percentile of the KL divergence a "
     "token\n"
     "(nats), and how often the most likely token is the same. Any folders that qcal reads, with one vocabulary.",
     2, QZ_CLI_ARGUMENTS, eval_options, qz_cmd_compare},
    {"check", "DIR", "what a serving program will refuse of a folder, or silently do wrong",
     "Looks at config.json and the tensors by the rules of docs/serving.md. Exit code 3 when something is refused or\n"
     "silently wrong.",
     1, 1, check_options, qz_cmd_check},
    {"decode", "DIR", "write a folder's weights as plain fp32 into one safetensors file",
     "Quantized weights are dequantized. For tools that know no container, and to compare readers.", 1, 1,
     decode_options, qz_cmd_decode},
    {"inspect", "DIR|FILE", "tensors, types, shapes, schemes and totals of a folder or a safetensors file", "", 1, 1,
     json_option, qz_cmd_inspect},
    {"list", "KIND", "what there is: methods, transforms, ranges, solvers, formats, containers, families, backends",
     "KIND is one of methods (transforms, ranges and solvers), transforms, ranges, solvers, formats, containers,\n"
     "families, backends.",
     1, 1, json_option, qz_cmd_list},
    {"schema", "", "print the JSON schema of recipes", "", 0, 0, schema_options, qz_cmd_schema},
};

const qz_command *qz_command_at(size_t i)
{
    return i < sizeof commands / sizeof commands[0] ? &commands[i] : NULL;
}

qz_status qz_command_find(const qz_command **out, const char *name)
{
    const char *names[32] = {"help"};
    size_t count = 1;
    for (size_t i = 0; (*out = qz_command_at(i)) != NULL; i++) {
        if (strcmp((*out)->name, name) == 0) return QZ_OK;
        names[count++] = (*out)->name;
    }
    const char *nearest = qz_nearest_name(name, names);
    if (nearest) return QZ_FAIL(QZ_ARG, "unknown command \"%s\"; did you mean \"%s\"?", name, nearest);
    return QZ_FAIL(QZ_ARG, "unknown command \"%s\"; `qcal help` lists the commands", name);
}

static void print_warning(void *context, const char *message)
{
    const qz_cli *cli = context;
    fprintf(cli->err, "qcal: warning: %s\n", message);
}

static int exit_code_of(qz_status status)
{
    if (status == QZ_OK) return QZ_EXIT_DONE;
    if (status == QZ_ARG) return QZ_EXIT_USAGE;
    return status == QZ_INTERRUPTED ? QZ_EXIT_INTERRUPTED : QZ_EXIT_FAILED;
}

/* Output that could not be written (a full disk, a closed pipe) must not look like success. */
static qz_status flush(FILE *out)
{
    if (fflush(out) != 0 || ferror(out)) return QZ_FAIL(QZ_IO, "standard output: %s", strerror(errno));
    return QZ_OK;
}

static qz_status run_command(qz_cli *cli, const qz_command *command, int argc, char **argv, int *exit_code)
{
    QZ_TRY(qz_cli_parse(cli, command, argc, argv));
    if (cli->help) {
        qz_help_command(cli->out, command);
        return QZ_OK;
    }
    if (cli->threads > 0) qz_threads_set((int)cli->threads);
    return command->run(cli, exit_code);
}

static qz_status help(FILE *out, int argc, char **argv)
{
    const qz_command *command;
    if (argc == 0) {
        qz_help_print(out);
        return QZ_OK;
    }
    QZ_TRY(qz_command_find(&command, argv[0]));
    qz_help_command(out, command);
    return QZ_OK;
}

static bool is_any(const char *text, const char *a, const char *b, const char *c)
{
    return strcmp(text, a) == 0 || strcmp(text, b) == 0 || strcmp(text, c) == 0;
}

static qz_status dispatch(qz_cli *cli, int argc, char **argv, int *exit_code)
{
    const qz_command *command;
    if (argc < 2) {
        qz_help_print(cli->err);
        return QZ_FAIL(QZ_ARG, "a command is missing");
    }
    if (is_any(argv[1], "help", "--help", "-h")) return help(cli->out, argc - 2, argv + 2);
    if (is_any(argv[1], "version", "--version", "-V")) {
        fprintf(cli->out, "qcal %s\n", QZ_VERSION);
        return QZ_OK;
    }
    QZ_TRY(qz_command_find(&command, argv[1]));
    return run_command(cli, command, argc - 2, argv + 2, exit_code);
}

int qz_cli_main(int argc, char **argv, FILE *out, FILE *err)
{
    qz_cli cli = {.out = out, .err = err};
    int exit_code = QZ_EXIT_DONE;
    qz_log_to(print_warning, &cli);
    qz_status status = qz_arena_new(&cli.arena, "run");
    if (status == QZ_OK) status = dispatch(&cli, argc, argv, &exit_code);
    if (status == QZ_OK) status = flush(out);
    if (status != QZ_OK) {
        fprintf(err, "qcal: error: %s\n", qz_error_message());
        exit_code = exit_code_of(status);
    }
    qz_log_to(NULL, NULL);
    qz_arena_free(cli.arena);
    return exit_code;
}
