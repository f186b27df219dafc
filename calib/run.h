/* Constants of the run that the plan must know. Private to calib/. */
#ifndef QZ_CALIB_RUN_H
#define QZ_CALIB_RUN_H

enum { QZ_RUN_RESERVOIR = 1024 }; /* token rows kept for each linear input */

#endif
