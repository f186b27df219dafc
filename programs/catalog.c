/* Joins the tables of calib, quant, checkpoints and kernels into the catalog that recipes are checked against. */
#include "programs/catalog.h"

#include <string.h>

#include "calib/calib.h"

static bool needs_statistics(const qz_plugins *list, int index)
{
    size_t i = (size_t)index;
    if (list == qz_transforms()) return qz_transform_at(i)->needs != QZ_NEED_NOTHING;
    if (list == qz_ranges()) return qz_range_at(i)->needs != QZ_NEED_NOTHING;
    if (list == qz_solvers()) return qz_solver_at(i)->needs != QZ_NEED_NOTHING;
    return false;
}

qz_recipe_catalog qz_catalog(void)
{
    return (qz_recipe_catalog){qz_transforms(), qz_ranges(),    qz_solvers(),    qz_containers(),
                               qz_backends(),   qz_observers(), needs_statistics};
}

/* "path=value" -> an override. */
static qz_status split(qz_override *out, const char *text, qz_arena *arena)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return QZ_FAIL(QZ_ARG, "--set: found \"%s\", expected PATH=VALUE, for example weights.group=64", text);
    char *path = qz_arena_printf(arena, "%.*s", (int)(equals - text), text);
    char *origin = qz_arena_printf(arena, "--set %s", text);
    if (!path || !origin) return qz_arena_failed(arena);
    *out = (qz_override){path, equals + 1, origin, false};
    return QZ_OK;
}

/* Each program has its own recipes; without its training, one of qat's is qcal's as well. */
static qz_status check_program(const qz_recipe *r, const qz_cli *cli)
{
    const char *path = cli->argument[0];
    if (r->train.wanted == cli->program->trains) return QZ_OK;
    if (r->train.wanted)
        return QZ_FAIL(QZ_ARG,
                       "%s: train: this recipe trains: use `qat train %s`, or `--set train=null` to quantize without "
                       "training",
                       path, path);
    return QZ_FAIL(QZ_ARG, "%s: train: missing: this recipe does not train; `qcal run %s` quantizes", path, path);
}

/* --set comes first, so that the options with names of their own win. */
qz_status qz_catalog_read_recipe(qz_recipe **out, const qz_cli *cli)
{
    qz_override overrides[QZ_CLI_LIST + 4];
    int count = 0;
    for (int i = 0; i < cli->sets; i++) QZ_TRY(split(&overrides[count++], cli->set[i], cli->arena));
    if (cli->model) overrides[count++] = (qz_override){"model", cli->model, "--model", true};
    if (cli->output) overrides[count++] = (qz_override){"output", cli->output, "--output", true};
    const char *text = cli->program->trains ? "train.data" : "calibration.data";
    if (cli->data) overrides[count++] = (qz_override){text, cli->data, "--data", true};
    if (cli->backend) overrides[count++] = (qz_override){"backend", cli->backend, "--backend", true};
    qz_recipe_catalog catalog = qz_catalog();
    QZ_TRY(qz_recipe_read(out, cli->argument[0], &catalog, overrides, count, cli->arena));
    return check_program(*out, cli);
}
