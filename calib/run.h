/* Constants of the run that the plan must know. Private to calib/. */
#ifndef QZ_CALIB_RUN_H
#define QZ_CALIB_RUN_H

#include "calib/calib.h"

enum { QZ_RUN_RESERVOIR = 1024 }; /* token rows kept for each linear input */

/* Each input of a layer is looked at when the linears before it are quantized already (stagewise.h). */
bool qz_calib_is_stagewise(const qz_calib_args *args);

#endif
