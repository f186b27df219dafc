/* The table of transforms, expanded from transforms.def. */
#include "calib/calib.h"

#define QZ_TRANSFORM(name) extern const qz_transform qz_transform_##name;
#include "calib/transforms.def"
#undef QZ_TRANSFORM

static const qz_transform *const table[] = {
#define QZ_TRANSFORM(name) &qz_transform_##name,
#include "calib/transforms.def"
#undef QZ_TRANSFORM
};

static const qz_plugin *const rows[] = {
#define QZ_TRANSFORM(name) &qz_transform_##name.plugin,
#include "calib/transforms.def"
#undef QZ_TRANSFORM
};

const qz_plugins *qz_transforms(void)
{
    static const qz_plugins list = {"transform", sizeof rows / sizeof *rows, rows};
    return &list;
}

const qz_transform *qz_transform_at(size_t i)
{
    return table[i];
}
