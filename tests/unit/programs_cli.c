/* The command line inside one process: options, suggestions, help, exit codes. */
#include "programs/cli.h"

#include <stdlib.h>

#include "testing/testing.h"

static char *out, *err;

static void forget(void)
{
    free(out);
    free(err);
    out = err = NULL;
}

TestSuite(cli, .fini = forget);

/* Runs with up to five arguments; keeps what was printed. */
static int program(const qz_program *p, const char *a, const char *b, const char *c, const char *d, const char *e)
{
    const char *argv[] = {p->name, a, b, c, d, e, NULL};
    size_t out_size, err_size;
    int argc = 1;
    while (argv[argc]) argc++;
    forget();
    FILE *o = open_memstream(&out, &out_size), *r = open_memstream(&err, &err_size);
    int code = qz_cli_main(p, argc, (char **)argv, o, r);
    fclose(o);
    fclose(r);
    return code;
}

static int qcal(const char *a, const char *b, const char *c, const char *d, const char *e)
{
    return program(&qz_qcal, a, b, c, d, e);
}

#define check_usage(part, a, b, c, d, e)                                                                               \
    do {                                                                                                               \
        cr_assert_eq(qcal(a, b, c, d, e), QZ_EXIT_USAGE);                                                              \
        cr_assert(strstr(err, "qcal: error: ") && strstr(err, part), "\"%s\" is not in: %s", part, err);               \
        cr_assert_str_eq(out, "");                                                                                     \
    } while (0)

Test(cli, unknown_commands_and_options)
{
    check_usage("a command is missing", NULL, NULL, NULL, NULL, NULL);
    check_usage("unknown command \"rum\"; did you mean \"run\"?", "rum", NULL, NULL, NULL, NULL);
    check_usage("unknown command \"quantize\"; `qcal help`", "quantize", NULL, NULL, NULL, NULL);
    check_usage("unknown option --overwite; did you mean --overwrite?", "run", "r.json", "--overwite", NULL, NULL);
    check_usage("option --markdown does not belong to this command", "run", "r.json", "--markdown", NULL, NULL);
    check_usage("option --zzzzzzzzzz is unknown", "run", "r.json", "--zzzzzzzzzz", NULL, NULL);
    check_usage("options have two dashes", "run", "r.json", "-x", NULL, NULL);
    check_usage("unknown command \"lits\"; did you mean \"list\"?", "help", "lits", NULL, NULL, NULL);
}

Test(cli, bad_values)
{
    check_usage("RECIPE is missing; usage: qcal run RECIPE", "run", NULL, NULL, NULL, NULL);
    check_usage("unexpected argument \"b\"", "run", "a", "b", NULL, NULL);
    check_usage("--threads: found \"many\", expected an integer from 1 to 1024", "run", "a", "--threads", "many", NULL);
    check_usage("--threads: found \"0\"", "run", "a", "--threads=0", NULL, NULL);
    check_usage("--threads: found \"99999999999999999999\"", "run", "a", "--threads=99999999999999999999", NULL, NULL);
    check_usage("--model: the DIR after it is missing", "run", "a", "--model", NULL, NULL);
    check_usage("--model: the DIR is empty", "run", "a", "--model=", NULL, NULL);
    check_usage("--quiet takes no value; found \"yes\"", "run", "a", "--quiet=yes", NULL, NULL);
    check_usage("--set: found \"weights.group\", expected PATH=VALUE", "run", "recipes/awq-llama.json", "--set",
                "weights.group", NULL);
    check_usage("--data FILE is missing", "eval", "demo/model", NULL, NULL, NULL);
    check_usage("unknown kind \"method\"; did you mean \"methods\"?", "list", "method", NULL, NULL, NULL);
}

Test(cli, recipe_errors_are_usage_errors)
{
    check_usage("no/such.json", "run", "no/such.json", NULL, NULL, NULL);
    check_usage("weights.groop: unknown key; did you mean \"group\"? (from --set weights.groop=64)", "plan",
                "recipes/awq-llama.json", "--set", "weights.groop=64", NULL);
    check_usage("recipes/int8-dynamic.json: train: this recipe trains: use `qat train recipes/int8-dynamic.json`",
                "run", "recipes/int8-dynamic.json", "--set", "train={\"data\": \"a.txt\", \"steps\": 1}", NULL);
    check_usage("backend: unknown backend \"gpu\"", "plan", "recipes/awq-llama.json", "--backend=gpu", NULL, NULL);
}

Test(cli, help)
{
    cr_assert_eq(qcal("help", NULL, NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "qcal inspect DIR|FILE") && strstr(out, "Exit codes"), "%s", out);
    cr_assert_eq(qcal("--help", NULL, NULL, NULL, NULL), 0);
    cr_assert_eq(qcal("--version", NULL, NULL, NULL, NULL), 0);
    cr_assert_str_eq(out, "qcal " QZ_VERSION "\n");
}

/* Each command explains itself in three ways, and names its options. */
static void check_help(const qz_program *p, const qz_command *c)
{
    cr_assert_eq(program(p, "help", c->name, NULL, NULL, NULL), 0);
    char *first = strdup(out);
    cr_assert_eq(program(p, c->name, "--help", NULL, NULL, NULL), 0);
    cr_assert_str_eq(out, first);
    free(first);
    cr_assert_eq(program(p, c->name, "-h", NULL, NULL, NULL), 0);
    cr_assert(strstr(out, p->name) != NULL);
    for (const char *const *o = c->options; *o; o++) {
        cr_assert(qz_cli_option_find(*o) != NULL, "%s: --%s", c->name, *o);
        cr_assert(strstr(out, *o) != NULL, "%s: --%s", c->name, *o);
    }
}

Test(cli, help_of_every_command)
{
    static const qz_program *const programs[] = {&qz_qcal, &qz_qat};
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < programs[i]->count; j++) check_help(programs[i], &programs[i]->commands[j]);
}

Test(cli, each_program_has_its_name)
{
    cr_assert_eq(program(&qz_qat, "--version", NULL, NULL, NULL, NULL), 0);
    cr_assert_str_eq(out, "qat " QZ_VERSION "\n");
    cr_assert_eq(program(&qz_qat, "help", NULL, NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "qat list KIND") && !strstr(out, "qcal"), "%s", out);
    cr_assert_eq(program(&qz_qat, "lits", "solvers", NULL, NULL, NULL), QZ_EXIT_USAGE);
    cr_assert_str_eq(err, "qat: error: unknown command \"lits\"; did you mean \"list\"?\n");
    cr_assert_eq(program(&qz_qat, "run", "a.json", NULL, NULL, NULL), QZ_EXIT_USAGE);
    cr_assert_eq(program(&qz_qat, "list", "solvers", NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "gptq") != NULL, "%s", out);
}

static const qz_command *command(const char *name)
{
    const qz_command *c;
    check_ok(qz_command_find(&c, &qz_qcal, name));
    return c;
}

Test(cli, values_arrive)
{
    qz_cli cli = {.program = &qz_qcal};
    const char *argv[] = {"r.json",    "--model=m", "--output",    "o",      "--set",   "a.b=1",  "--set=c=d=e",
                          "--threads", "3",         "--overwrite", "--json", "--quiet", "--data", "-"};
    check_ok(qz_cli_parse(&cli, command("run"), 14, (char **)argv));
    cr_assert_str_eq(cli.argument[0], "r.json");
    cr_assert_str_eq(cli.model, "m");
    cr_assert_str_eq(cli.output, "o");
    cr_assert_eq(cli.sets, 2);
    cr_assert_str_eq(cli.set[1], "c=d=e");
    cr_assert_eq(cli.threads, 3);
    cr_assert(cli.overwrite && cli.json && cli.quiet);
    cr_assert_str_eq(cli.data, "-");
}

Test(cli, two_dashes_end_the_options)
{
    qz_cli cli = {.program = &qz_qcal};
    const char *argv[] = {"--", "--model"};
    check_ok(qz_cli_parse(&cli, command("run"), 2, (char **)argv));
    cr_assert_str_eq(cli.argument[0], "--model");
}

Test(cli, too_many_of_one)
{
    qz_cli cli = {.program = &qz_qcal};
    const char *argv[2 * QZ_CLI_LIST + 3] = {"r.json"};
    for (int i = 0; i <= QZ_CLI_LIST; i++) {
        argv[2 * i + 1] = "--set";
        argv[2 * i + 2] = "a=1";
    }
    check_fails(QZ_ARG, "more than 64 times", qz_cli_parse(&cli, command("run"), 2 * QZ_CLI_LIST + 3, (char **)argv));
}

Test(cli, list_and_schema)
{
    static const char *const kinds[] = {"methods", "transforms", "ranges",   "solvers",
                                        "formats", "containers", "families", "backends"};
    for (size_t i = 0; i < 8; i++) {
        cr_assert_eq(qcal("list", kinds[i], NULL, NULL, NULL), 0);
        cr_assert(strlen(out) > 20, "%s: %s", kinds[i], out);
        cr_assert_eq(qcal("list", kinds[i], "--json", NULL, NULL), 0);
        cr_assert(out[0] == '[', "%s: %s", kinds[i], out);
    }
    cr_assert_eq(qcal("list", "methods", NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "awq") && strstr(out, "clip") && strstr(out, "rtn") && strstr(out, "grid"), "%s", out);
    cr_assert_eq(qcal("list", "containers", NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "loaded by: ") != NULL, "%s", out);
    cr_assert_eq(qcal("schema", "--markdown", NULL, NULL, NULL), 0);
    cr_assert(strstr(out, "| `weights.group` |") != NULL);
}

/* The file that editors use is the one that the program makes; `make schema` writes it. */
Test(cli, schema_file_is_current)
{
    static char file[1 << 18];
    FILE *f = fopen("recipes/recipe.schema.json", "rb");
    cr_assert(f != NULL);
    file[fread(file, 1, sizeof file - 1, f)] = '\0';
    fclose(f);
    cr_assert_eq(qcal("schema", NULL, NULL, NULL, NULL), 0);
    cr_assert_str_eq(out, file);
}

Test(cli, full_output_is_a_failure)
{
    const char *argv[] = {"qcal", "help", NULL};
    FILE *full = fopen("/dev/full", "w");
    cr_assert(full != NULL);
    cr_assert_eq(qz_cli_main(&qz_qcal, 2, (char **)argv, full, stderr), QZ_EXIT_FAILED);
    fclose(full);
}
