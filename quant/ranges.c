/* The table of ranges, expanded from ranges.def. */
#include "quant/quant.h"

#define QZ_RANGE(name) extern const qz_range qz_range_##name;
#include "quant/ranges.def"
#undef QZ_RANGE

static const qz_range *const table[] = {
#define QZ_RANGE(name) &qz_range_##name,
#include "quant/ranges.def"
#undef QZ_RANGE
};

static const qz_plugin *const rows[] = {
#define QZ_RANGE(name) &qz_range_##name.plugin,
#include "quant/ranges.def"
#undef QZ_RANGE
};

const qz_plugins *qz_ranges(void)
{
    static const qz_plugins list = {"range", sizeof rows / sizeof *rows, rows};
    return &list;
}

const qz_range *qz_range_at(size_t i)
{
    return table[i];
}
