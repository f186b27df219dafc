/* The state of a training run <-> an HDF5 file, so that k steps, an end of any kind and N - k further steps give the
 * bits of N steps.
 *
 * docs/state-file.md has the layout. The caller lists what it consists of (qz_state): views that are written from, and
 * read into, the memory where they live. Files are FOLDER/state-00000200.h5; one appears whole or not at all, ends with
 * a fingerprint of all its bytes, and after it was written older ones but the last few are removed.
 *
 *     qz_state_tensor tensor[] = {{"parameters/model.norm.weight", norm}, {"moments/first/model.norm.weight", m}};
 *     qz_state_integer integer[] = {{"position", &position}};
 *     qz_state s = {.recipe = recipe->text, .tensor = tensor, .tensors = 2, .integer = integer, .integers = 1};
 *     QZ_TRY(qz_state_save("out", &s, 200, 2));
 *     QZ_TRY(qz_state_load(&step, "out", &s));    // step: 200 */
#ifndef QZ_TRAIN_STATE_H
#define QZ_TRAIN_STATE_H

#include "numeric/tensor.h"

/* Names are unique in the file, where "format", "format_version", "step" and "recipe" are taken; a tensor's is a path
 * ("moments/first/model.norm.weight"). */
typedef struct qz_state_tensor {
    const char *name;
    qz_tensor view; /* dense, on the host; floating of 16 bits or more, or an integer of HDF5's (base/h5.h) */
} qz_state_tensor;

typedef struct qz_state_integer {
    const char *name;
    int64_t *value;
} qz_state_integer;

typedef struct qz_state_number {
    const char *name;
    double *value; /* bit for bit, NaN too */
} qz_state_number;

/* Where a run comes from. */
typedef struct qz_state_text {
    const char *name;  /* "model_hash" */
    const char *value; /* at most QZ_STATE_TEXT - 1 bytes */
    const char *noun;  /* "model": a file with another value is refused by this name; NULL: not compared */
} qz_state_text;

enum { QZ_STATE_TEXT = 1024 };

typedef struct qz_state {
    const char *recipe; /* canonical JSON; a file of another one is refused, naming the keys, but for those that the
                         * state does not depend on, which are told by qz_warn (state_compare.c); NULL: none */
    const qz_state_text *text;
    const qz_state_tensor *tensor;
    const qz_state_integer *integer;
    const qz_state_number *number;
    int texts, tensors, integers, numbers;
} qz_state;

/* ---- a folder's states ---- */

/* Writes the state after `step` and removes those older than the `keep` (at least 1) newest. States of later steps, of
 * a course that was left, and unfinished files of a run that was killed are removed too. */
QZ_NODISCARD qz_status qz_state_save(const char *folder, const qz_state *s, int64_t step, int keep);
/* Reads the newest state that is whole; *step: 0 when the folder has none. One that is truncated or spoiled is told by
 * qz_warn, and the one before is taken; none left is QZ_FORMAT. One of another recipe, model or text is QZ_ARG with
 * what changed. */
QZ_NODISCARD qz_status qz_state_load(int64_t *step, const char *folder, const qz_state *s);
/* The newest state's step by its name, 0 when there is none. */
QZ_NODISCARD qz_status qz_state_newest(int64_t *step, const char *folder);
/* Removes all states of the folder: a run that begins anew. */
QZ_NODISCARD qz_status qz_state_clear(const char *folder);

/* Bytes of one file, within a few KiB for each tensor; on the disk there are `keep` + 1 at most. */
uint64_t qz_state_bytes(const qz_state *s);

/* ---- one file ---- */

QZ_NODISCARD qz_status qz_state_write(const char *path, const qz_state *s, int64_t step);
/* QZ_FORMAT or QZ_IO: not whole, or not such a file; QZ_ARG: of another run. Nothing of `s` is touched in both cases.
 */
QZ_NODISCARD qz_status qz_state_read(int64_t *step, const char *path, const qz_state *s);

#endif
