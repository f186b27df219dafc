/* Long options: --name VALUE, --name=VALUE, switches, -h, and -- before arguments that begin with a dash. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "programs/cli.h"

#define PLACE(member) offsetof(qz_cli, member)

static const qz_cli_option options[] = {
    {"model", "DIR", PLACE(model), 0, 0, 0, "folder of the model instead of the recipe's"},
    {"output", "DIR", PLACE(output), 0, 0, 0, "folder to write instead of the recipe's"},
    {"data", "FILE", PLACE(data), 0, 0, 0,
     "text: .txt, .jsonl, or token ids as .h5 (of a recipe: the text to calibrate or to train on)"},
    {"for", "CONSUMER", PLACE(consumer), 0, 0, 0,
     "who is to load it: vllm, transformers or trt-llm (default: whom the container is for)"},
    {"statistics", "FILE", PLACE(statistics), 0, 0, 0, "the statistics file: calibrate writes it, run starts from it"},
    {"adapter", "DIR", PLACE(adapter), 0, 0, 0, "the adapter, as PEFT keeps one (default: the recipe's output)"},
    {"field", "NAME", PLACE(field), 0, 0, 0, "member of a .jsonl line that holds the text (default text)"},
    {"set", "PATH=VALUE", PLACE(set), PLACE(sets), 0, 0, "set any value of the recipe: weights.group=64; null removes"},
    {"backend", "NAME", PLACE(backend), 0, 0, 0, "where to compute: auto, or one that `list backends` names"},
    {"threads", "N", PLACE(threads), 0, 1, 1024, "threads to use (default: all cores); results do not depend on it"},
    {"windows", "N", PLACE(windows), 0, 1, 1000000, "at most so many windows (default: all of the text)"},
    {"sequence-length", "N", PLACE(sequence_length), 0, 2, 1000000, "tokens in a window (default 512)"},
    {"pass-through", "PATTERN", PLACE(pass_through), PLACE(pass_throughs), 0, 0,
     "tensors that the family does not know and that are fine"},
    {"overwrite", NULL, PLACE(overwrite), 0, 0, 0, "replace an output folder that qcal or qat wrote, at the very end"},
    {"resume", NULL, PLACE(resume), 0, 0, 0, "go on where the same run was interrupted, in OUTPUT.partial"},
    {"json", NULL, PLACE(json), 0, 0, 0, "print JSON instead of tables"},
    {"quiet", NULL, PLACE(quiet), 0, 0, 0, "no plan and no progress; errors, warnings and the result only"},
    {"markdown", NULL, PLACE(markdown), 0, 0, 0, "print the reference table of docs/recipes.md instead"},
    {"help", NULL, PLACE(help), 0, 0, 0, "this text"},
};

enum { OPTIONS = sizeof options / sizeof options[0] };

const qz_cli_option *qz_cli_option_find(const char *name)
{
    for (size_t i = 0; i < OPTIONS; i++)
        if (strcmp(options[i].name, name) == 0) return &options[i];
    return NULL;
}

static bool is_in(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}

static qz_status unknown_option(const qz_cli *cli, const qz_command *command, const char *name)
{
    const char *nearest = qz_nearest_name(name, command->options);
    if (nearest) return QZ_FAIL(QZ_ARG, "unknown option --%s; did you mean --%s?", name, nearest);
    const char *other = qz_cli_option_find(name) ? " does not belong to this command" : " is unknown";
    return QZ_FAIL(QZ_ARG, "option --%s%s; `%s help %s` lists the options", name, other, cli->program->name,
                   command->name);
}

static qz_status set_number(int64_t *out, const qz_cli_option *o, const char *text)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || end == text || *end || n < o->low || n > o->high)
        return QZ_FAIL(QZ_ARG, "--%s: found \"%s\", expected an integer from %lld to %lld", o->name, text,
                       (long long)o->low, (long long)o->high);
    *out = n;
    return QZ_OK;
}

static qz_status add_to_list(qz_cli *cli, const qz_cli_option *o, const char *text)
{
    const char **list = (const char **)((char *)cli + o->place);
    int *count = (int *)((char *)cli + o->count);
    if (*count == QZ_CLI_LIST) return QZ_FAIL(QZ_ARG, "--%s: given more than %d times", o->name, QZ_CLI_LIST);
    list[(*count)++] = text;
    return QZ_OK;
}

static qz_status set_option(qz_cli *cli, const qz_cli_option *o, const char *text)
{
    void *place = (char *)cli + o->place;
    if (!*text) return QZ_FAIL(QZ_ARG, "--%s: the %s is empty", o->name, o->value);
    if (o->count) return add_to_list(cli, o, text);
    if (o->high) return set_number(place, o, text);
    *(const char **)place = text;
    return QZ_OK;
}

/* Takes argv[*i] (and the value after it). */
static qz_status parse_option(qz_cli *cli, const qz_command *command, int argc, char **argv, int *i)
{
    char name[64];
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), text);
    const qz_cli_option *o = qz_cli_option_find(name);
    bool known = o && (is_in(name, command->options) || strcmp(name, "help") == 0);
    if (!known) return unknown_option(cli, command, name);
    if (!o->value) {
        if (equals) return QZ_FAIL(QZ_ARG, "--%s takes no value; found \"%s\"", name, equals + 1);
        *(bool *)((char *)cli + o->place) = true;
        return QZ_OK;
    }
    if (!equals && *i + 1 >= argc) return QZ_FAIL(QZ_ARG, "--%s: the %s after it is missing", name, o->value);
    return set_option(cli, o, equals ? equals + 1 : argv[++*i]);
}

static qz_status take_argument(qz_cli *cli, const qz_command *command, const char *text)
{
    if (cli->arguments >= command->most)
        return QZ_FAIL(QZ_ARG, "unexpected argument \"%s\"; usage: %s %s %s", text, cli->program->name, command->name,
                       command->arguments);
    cli->argument[cli->arguments++] = text;
    return QZ_OK;
}

qz_status qz_cli_parse(qz_cli *cli, const qz_command *command, int argc, char **argv)
{
    bool only_arguments = false;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        if (only_arguments || a[0] != '-' || !a[1]) {
            QZ_TRY(take_argument(cli, command, a));
        } else if (strcmp(a, "--") == 0) {
            only_arguments = true;
        } else if (strcmp(a, "-h") == 0) {
            cli->help = true;
        } else if (a[1] == '-') {
            QZ_TRY(parse_option(cli, command, argc, argv, &i));
        } else {
            return QZ_FAIL(QZ_ARG, "unknown option %s; options have two dashes, as in --help", a);
        }
    }
    if (cli->help || cli->arguments >= command->least) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s is missing; usage: %s %s %s [options]", command->arguments, cli->program->name,
                   command->name, command->arguments);
}
