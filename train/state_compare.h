/* What differs between two recipes, key by key, for the message that refuses a state file. Private to train/. */
#ifndef QZ_TRAIN_STATE_COMPARE_H
#define QZ_TRAIN_STATE_COMPARE_H

#include "base/arena.h"
#include "base/status.h"

/* Appends a line for each difference to *list, "\nrecipe: train.steps changed: the file says 100, this run 200". Both
 * texts are JSON; the order of an object's members does not matter. */
QZ_NODISCARD qz_status qz_state_compare_recipes(char **list, const char *then, const char *now, qz_arena *arena);
/* Appends such a line for a text. */
QZ_NODISCARD qz_status qz_state_add_change(char **list, const char *noun, const char *then, const char *now,
                                           qz_arena *arena);

#endif
