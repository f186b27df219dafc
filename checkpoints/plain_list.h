/* The list of modules that stay plain, as quantization configs have it. */
#ifndef QZ_CHECKPOINTS_PLAIN_LIST_H
#define QZ_CHECKPOINTS_PLAIN_LIST_H

#include "checkpoints/checkpoints.h"

/* Member `key`: full names of the plan's linears that are not quantized, of its routers, and the output head unless it
 * is quantized (loaders of these lists take every linear that is not listed for a quantized one, the head included). */
void qz_export_put_plain(qz_json_writer *w, const char *key, const qz_export_plan *plan);

#endif
