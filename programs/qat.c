/* qat: trains language models through the quantizer that serves them. The commands are in commands_qat.c. */
#include "programs/cli.h"

int main(int argc, char **argv)
{
    return qz_cli_main(&qz_qat, argc, argv, stdout, stderr);
}
