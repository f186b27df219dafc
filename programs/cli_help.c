/* Help, made from the tables of commands and options. */
#include <string.h>

#include "programs/cli.h"

void qz_help_print(FILE *out, const qz_program *program)
{
    const char *name = program->name;
    fprintf(out, "%s %s: %s\n\nusage:\n", name, QZ_VERSION, program->summary);
    for (size_t i = 0; i < program->count; i++) {
        char line[64];
        const qz_command *c = &program->commands[i];
        snprintf(line, sizeof line, "%s %s", c->name, c->arguments);
        fprintf(out, "  %s %-20s %s\n", name, line, c->summary);
    }
    fprintf(out,
            "\n`%s help COMMAND` shows the options of a command, `%s --version` the version.\n"
            "Exit codes: 0 done, 1 failed, 2 bad usage or recipe, 3 finished but not accepted.\n",
            name, name);
}

static void print_option(FILE *out, const char *name)
{
    const qz_cli_option *o = qz_cli_option_find(name);
    char line[64];
    snprintf(line, sizeof line, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    fprintf(out, "  %-24s %s%s\n", line, o->help, o->count ? " (may be repeated)" : "");
}

void qz_help_command(FILE *out, const qz_program *program, const qz_command *command)
{
    fprintf(out, "usage: %s %s%s%s [options]\n\n%s\n", program->name, command->name, *command->arguments ? " " : "",
            command->arguments, command->summary);
    if (*command->details) fprintf(out, "\n%s\n", command->details);
    fprintf(out, "\noptions:\n");
    for (const char *const *name = command->options; *name; name++) print_option(out, *name);
    print_option(out, "help");
}
