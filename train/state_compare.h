/* What differs between two recipes, key by key: what refuses a state file, and what does not. Private to train/. */
#ifndef QZ_TRAIN_STATE_COMPARE_H
#define QZ_TRAIN_STATE_COMPARE_H

#include "base/arena.h"
#include "base/status.h"

typedef struct qz_state_changes {
    char *refused; /* a line for each, "\nrecipe: train.batch changed: the file says 8, this run 16" */
    char *noted;   /* likewise, "\ntrain.steps: 100 in the state, 200 now": the state means the same with either */
} qz_state_changes;

/* Appends a line for each difference. Both texts are JSON; the order of an object's members does not matter. Paths may
 * be spelled in another way unsaid: fingerprints tell whether what they lead to is the same. */
QZ_NODISCARD qz_status qz_state_compare_recipes(qz_state_changes *to, const char *then, const char *now,
                                                qz_arena *arena);
/* Appends such a line for a text. */
QZ_NODISCARD qz_status qz_state_add_change(char **list, const char *noun, const char *then, const char *now,
                                           qz_arena *arena);

#endif
