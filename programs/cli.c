/* The way from argv to an exit code, for each program. */
#include "programs/cli.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/parallel.h"

qz_status qz_command_find(const qz_command **out, const qz_program *program, const char *name)
{
    const char *names[32] = {"help"};
    for (size_t i = 0; i < program->count; i++) {
        *out = &program->commands[i];
        if (strcmp((*out)->name, name) == 0) return QZ_OK;
        names[1 + i] = (*out)->name;
    }
    *out = NULL;
    const char *nearest = qz_nearest_name(name, names);
    if (nearest) return QZ_FAIL(QZ_ARG, "unknown command \"%s\"; did you mean \"%s\"?", name, nearest);
    return QZ_FAIL(QZ_ARG, "unknown command \"%s\"; `%s help` lists the commands", name, program->name);
}

static void print_warning(void *context, const char *message)
{
    const qz_cli *cli = context;
    fprintf(cli->err, "%s: warning: %s\n", cli->program->name, message);
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
        qz_help_command(cli->out, cli->program, command);
        return QZ_OK;
    }
    if (cli->threads > 0) qz_threads_set((int)cli->threads);
    return command->run(cli, exit_code);
}

static qz_status help(const qz_cli *cli, int argc, char **argv)
{
    const qz_command *command;
    if (argc == 0) {
        qz_help_print(cli->out, cli->program);
        return QZ_OK;
    }
    QZ_TRY(qz_command_find(&command, cli->program, argv[0]));
    qz_help_command(cli->out, cli->program, command);
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
        qz_help_print(cli->err, cli->program);
        return QZ_FAIL(QZ_ARG, "a command is missing");
    }
    if (is_any(argv[1], "help", "--help", "-h")) return help(cli, argc - 2, argv + 2);
    if (is_any(argv[1], "version", "--version", "-V")) {
        fprintf(cli->out, "%s %s\n", cli->program->name, QZ_VERSION);
        return QZ_OK;
    }
    QZ_TRY(qz_command_find(&command, cli->program, argv[1]));
    return run_command(cli, command, argc - 2, argv + 2, exit_code);
}

int qz_cli_main(const qz_program *program, int argc, char **argv, FILE *out, FILE *err)
{
    qz_cli cli = {.program = program, .out = out, .err = err};
    int exit_code = QZ_EXIT_DONE;
    qz_log_to(print_warning, &cli);
    qz_status status = qz_arena_new(&cli.arena, "run");
    if (status == QZ_OK) status = dispatch(&cli, argc, argv, &exit_code);
    if (status == QZ_OK) status = flush(out);
    if (status != QZ_OK) {
        fprintf(err, "%s: error: %s\n", program->name, qz_error_message());
        exit_code = exit_code_of(status);
    }
    qz_log_to(NULL, NULL);
    qz_arena_free(cli.arena);
    return exit_code;
}
