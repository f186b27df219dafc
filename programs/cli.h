/* The command line: argv -> a command and its options -> an exit code.
 *
 * A program is a table of commands (commands_qcal.c, commands_qat.c), a row each: name, arguments, summary, options,
 * function. Options are rows of one table for all (cli_parse.c); help, checking and suggestions are made from the rows.
 */
#ifndef QZ_PROGRAMS_CLI_H
#define QZ_PROGRAMS_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "recipes/recipes.h"

enum {
    QZ_EXIT_DONE = 0,
    QZ_EXIT_FAILED = 1,
    QZ_EXIT_USAGE = 2,        /* usage or recipe */
    QZ_EXIT_NOT_ACCEPTED = 3, /* finished, but below the recipe's acceptance */
    QZ_EXIT_INTERRUPTED = 130
};

enum { QZ_CLI_LIST = 64, QZ_CLI_ARGUMENTS = 16 };

typedef struct qz_program qz_program;

/* What the user typed, checked. Unset texts are NULL. */
typedef struct qz_cli {
    const qz_program *program;
    const char *argument[QZ_CLI_ARGUMENTS];
    int arguments;
    const char *model, *output, *data, *field, *backend, *statistics, *consumer, *adapter;
    const char *merged; /* where the command merges to; NULL: beside the adapter */
    int64_t threads, windows, sequence_length;
    const char *set[QZ_CLI_LIST]; /* "path=value" */
    int sets;
    const char *pass_through[QZ_CLI_LIST + 1]; /* NULL-terminated */
    int pass_throughs;
    bool overwrite, resume, json, quiet, markdown, help;
    bool merges; /* the command puts an adapter into its base */
    FILE *out, *err;
    qz_arena *arena; /* of the run */
} qz_cli;

typedef struct qz_cli_option {
    const char *name;  /* without the dashes */
    const char *value; /* "DIR"; NULL: a switch */
    size_t place;      /* offset in qz_cli of bool, const char *, int64_t, or an array with its count */
    size_t count;      /* of a list: offset of the count; otherwise 0 */
    int64_t low, high; /* of a number; both 0: a text */
    const char *help;
} qz_cli_option;

typedef struct qz_command {
    const char *name, *arguments, *summary, *details;
    int least, most;            /* arguments */
    const char *const *options; /* names, NULL-terminated; --help belongs to all */
    qz_status (*run)(qz_cli *cli, int *exit_code);
} qz_command;

struct qz_program {
    const char *name, *summary;
    const qz_command *commands; /* [count], in the order of the help */
    size_t count;
    bool trains; /* its recipes have "train" */
};

extern const qz_program qz_qcal, qz_qat;

/* Runs the program. Messages go to `err`, results to `out`. */
int qz_cli_main(const qz_program *program, int argc, char **argv, FILE *out, FILE *err);

/* cli.c: QZ_ARG with a suggestion when there is none. */
QZ_NODISCARD qz_status qz_command_find(const qz_command **out, const qz_program *program, const char *name);

/* cli_parse.c: what follows the command's name. */
QZ_NODISCARD qz_status qz_cli_parse(qz_cli *cli, const qz_command *command, int argc, char **argv);
const qz_cli_option *qz_cli_option_find(const char *name);

/* cli_help.c */
void qz_help_print(FILE *out, const qz_program *program);
void qz_help_command(FILE *out, const qz_program *program, const qz_command *command);

/* cmd_<name>.c */
qz_status qz_cmd_run(qz_cli *cli, int *exit_code);
qz_status qz_cmd_plan(qz_cli *cli, int *exit_code);
qz_status qz_cmd_calibrate(qz_cli *cli, int *exit_code);
qz_status qz_cmd_eval(qz_cli *cli, int *exit_code);
qz_status qz_cmd_check(qz_cli *cli, int *exit_code);
qz_status qz_cmd_compare(qz_cli *cli, int *exit_code);
qz_status qz_cmd_decode(qz_cli *cli, int *exit_code);
qz_status qz_cmd_inspect(qz_cli *cli, int *exit_code);
qz_status qz_cmd_list(qz_cli *cli, int *exit_code);
qz_status qz_cmd_train(qz_cli *cli, int *exit_code);
qz_status qz_cmd_merge(qz_cli *cli, int *exit_code);
qz_status qz_cmd_schema(qz_cli *cli, int *exit_code);

#endif
