/* qcal: calibrates and quantizes trained language models. See cli.h for the commands. */
int main(void)
{
    return 0;
}
