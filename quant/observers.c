/* The table of observers, expanded from observers.def. */
#include "quant/quant.h"

#define QZ_OBSERVER(name) extern const qz_observer qz_observer_##name;
#include "quant/observers.def"
#undef QZ_OBSERVER

static const qz_observer *const table[] = {
#define QZ_OBSERVER(name) &qz_observer_##name,
#include "quant/observers.def"
#undef QZ_OBSERVER
};

static const qz_plugin *const rows[] = {
#define QZ_OBSERVER(name) &qz_observer_##name.plugin,
#include "quant/observers.def"
#undef QZ_OBSERVER
};

const qz_plugins *qz_observers(void)
{
    static const qz_plugins list = {"observer", sizeof rows / sizeof *rows, rows};
    return &list;
}

const qz_observer *qz_observer_at(size_t i)
{
    return table[i];
}
