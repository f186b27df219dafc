/* The registry of families: families.def expanded twice. */
#include "models/families.h"

#define QZ_FAMILY(name) &qz_family_##name.plugin,
static const qz_plugin *const rows[] = {
#include "models/families.def"
};
#undef QZ_FAMILY

static const qz_plugins list = {"family", sizeof rows / sizeof rows[0], rows};

const qz_plugins *qz_families(void)
{
    return &list;
}

const qz_family *qz_family_at(size_t i)
{
    return (const qz_family *)rows[i];
}
