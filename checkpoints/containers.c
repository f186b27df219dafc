/* The containers of containers.def as a list. */
#include "checkpoints/checkpoints.h"

#define QZ_CONTAINER(name) extern const qz_container qz_container_##name;
#include "checkpoints/containers.def"
#undef QZ_CONTAINER

#define QZ_CONTAINER(name) &qz_container_##name.plugin,
static const qz_plugin *const rows[] = {
#include "checkpoints/containers.def"
};
#undef QZ_CONTAINER

static const qz_plugins list = {.kind = "container", .count = sizeof rows / sizeof *rows, .rows = rows};

const qz_plugins *qz_containers(void)
{
    return &list;
}

const qz_container *qz_container_at(size_t i)
{
    return (const qz_container *)rows[i]; /* the plug-in is a container's first member */
}

qz_status qz_container_find(const qz_container **out, const char *name)
{
    int i = qz_plugins_find(&list, name);
    if (i < 0) return QZ_FAIL(QZ_ARG, "container \"%s\" is not known; `qcal list containers` shows all", name);
    *out = qz_container_at((size_t)i);
    return QZ_OK;
}
