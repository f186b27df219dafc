#include "numeric/format.h"
