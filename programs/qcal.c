/* qcal: calibrates and quantizes trained language models. The commands are in cli.c. */
#include "programs/cli.h"

int main(int argc, char **argv)
{
    return qz_cli_main(argc, argv, stdout, stderr);
}
