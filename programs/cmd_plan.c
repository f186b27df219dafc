/* qcal plan, qat plan: the plan that the program prints first, and nothing else. */
#include "programs/job.h"

qz_status qz_cmd_plan(qz_cli *cli, int *exit_code)
{
    qz_job job;
    *exit_code = QZ_EXIT_DONE;
    cli->overwrite = true; /* a plan replaces nothing, so an earlier result is not in its way */
    QZ_TRY(qz_job_open(&job, cli));
    qz_status status = cli->json ? qz_job_print_plan_json(&job, cli) : qz_job_print_plan(&job, cli);
    if (status == QZ_OK) status = qz_job_fits(&job);
    qz_job_close(&job);
    return status;
}
