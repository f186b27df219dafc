/* qat's commands: one row each. */
#include "programs/cli.h"

static const char *const json_option[] = {"json", NULL};
static const char *const schema_options[] = {"markdown", NULL};

static const qz_command commands[] = {
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
