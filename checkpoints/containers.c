#include "checkpoints/checkpoints.h"
