#include "calib/calib.h"
