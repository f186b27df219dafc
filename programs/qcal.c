/* qcal: calibrates and quantizes trained language models. The commands are in commands_qcal.c. */
#include "programs/cli.h"

int main(int argc, char **argv)
{
    return qz_cli_main(&qz_qcal, argc, argv, stdout, stderr);
}
