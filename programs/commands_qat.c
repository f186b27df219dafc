/* qat's commands: one row each. */
#include "programs/cli.h"

static const char *const train_options[] = {"model",     "output", "data", "set",   "backend", "threads",
                                            "overwrite", "resume", "json", "quiet", NULL};
static const char *const merge_options[] = {"adapter", "model",     "output", "set",   "backend",
                                            "threads", "overwrite", "json",   "quiet", NULL};
static const char *const plan_options[] = {"model", "output", "data", "set", "backend", "threads", "json", NULL};
static const char *const json_option[] = {"json", NULL};
static const char *const schema_options[] = {"markdown", NULL};

static const qz_command commands[] = {
    {"train", "RECIPE", "train a model as a recipe says",
     "Reads the recipe, prints the plan, trains, exports what was trained, reads it back and evaluates it beside the\n"
     "model before. The work happens in OUTPUT.partial, which becomes OUTPUT at the very end; interrupted, it goes on "
     "with\n"
     "--resume. Exit code 3: finished, but a limit of evaluate.accept is not met (the result is kept and marked by a "
     "file\n"
     "NOT_ACCEPTED).",
     1, 1, train_options, qz_cmd_train},
    {"merge", "RECIPE", "put the adapter that a recipe trained into its base",
     "Writes base + adapter as `weights` and `export` say into --output DIR (default: the recipe's output with "
     "-merged\n"
     "behind its name), and how much of the adapter's gain that keeps on the recipe's evaluation text.",
     1, 1, merge_options, qz_cmd_merge},
    {"plan", "RECIPE", "say what `train` would need: memory, disk, time",
     "The same plan that `train` prints first. Exit code 1 when this machine cannot hold it.", 1, 1, plan_options,
     qz_cmd_plan},
    {"list", "KIND", "what there is: methods, transforms, ranges, solvers, formats, containers, families, backends",
     "KIND is one of methods (transforms, ranges and solvers), transforms, ranges, solvers, formats, containers,\n"
     "families, backends.",
     1, 1, json_option, qz_cmd_list},
    {"schema", "", "print the JSON schema of recipes", "", 0, 0, schema_options, qz_cmd_schema},
};

const qz_program qz_qat = {.name = "qat",
                           .summary = "trains language models through the quantizer that serves them",
                           .commands = commands,
                           .count = sizeof commands / sizeof commands[0],
                           .trains = true};
