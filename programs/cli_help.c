/* Help, made from the tables of commands and options. */
#include <string.h>

#include "programs/cli.h"

void qz_help_print(FILE *out)
{
    fprintf(out, "qcal %s: calibrates and quantizes trained language models\n\nusage:\n", QZ_VERSION);
    const qz_command *c;
    for (size_t i = 0; (c = qz_command_at(i)) != NULL; i++) {
        char line[64];
        snprintf(line, sizeof line, "%s %s", c->name, c->arguments);
        fprintf(out, "  qcal %-20s %s\n", line, c->summary);
    }
    fprintf(out, "\n`qcal help COMMAND` shows the options of a command, `qcal --version` the version.\n"
                 "Exit codes: 0 done, 1 failed, 2 bad usage or recipe, 3 finished but not accepted.\n");
}

static void print_option(FILE *out, const char *name)
{
    const qz_cli_option *o = qz_cli_option_find(name);
    char line[64];
    snprintf(line, sizeof line, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    fprintf(out, "  %-24s %s%s\n", line, o->help, o->count ? " (may be repeated)" : "");
}

void qz_help_command(FILE *out, const qz_command *command)
{
    fprintf(out, "usage: qcal %s%s%s [options]\n\n%s\n", command->name, *command->arguments ? " " : "",
            command->arguments, command->summary);
    if (*command->details) fprintf(out, "\n%s\n", command->details);
    fprintf(out, "\noptions:\n");
    for (const char *const *name = command->options; *name; name++) print_option(out, *name);
    print_option(out, "help");
}
