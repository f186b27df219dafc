#include "eval/eval.h"
