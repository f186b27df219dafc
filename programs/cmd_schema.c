/* qcal schema: the JSON schema of recipes, or the reference table. */
#include "programs/catalog.h"

qz_status qz_cmd_schema(qz_cli *cli, int *exit_code)
{
    char *text;
    qz_recipe_catalog catalog = qz_catalog();
    *exit_code = QZ_EXIT_DONE;
    if (cli->markdown)
        QZ_TRY(qz_recipe_reference(&text, &catalog, cli->arena));
    else
        QZ_TRY(qz_recipe_schema(&text, &catalog, cli->arena));
    fputs(text, cli->out);
    return QZ_OK;
}
