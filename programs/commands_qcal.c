/* qcal's commands: one row each. */
#include "programs/cli.h"

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

const qz_program qz_qcal = {.name = "qcal",
                            .summary = "calibrates and quantizes trained language models",
                            .commands = commands,
                            .count = sizeof commands / sizeof commands[0]};
