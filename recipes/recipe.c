#include "recipes/recipes.h"
