/* Look-up of a plug-in by name: the one place where names are compared. */
#include "base/plugin.h"

#include <string.h>

int qz_plugins_find(const qz_plugins *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->rows[i]->name, name) == 0) return (int)i;
    return -1;
}
