/* The plug-ins of this program, as recipes want to know them. */
#ifndef QZ_PROGRAMS_CATALOG_H
#define QZ_PROGRAMS_CATALOG_H

#include "programs/cli.h"

qz_recipe_catalog qz_catalog(void);
/* The recipe named by the first argument, with the options --model, --output, --data, --backend and --set applied. One
 * that trains is refused by a program that does not, and the other way round. */
QZ_NODISCARD qz_status qz_catalog_read_recipe(qz_recipe **out, const qz_cli *cli);

#endif
