/* What the commands share: a model folder opened for work, with its tokenizer and backend, and texts cut into windows.
 */
#ifndef QZ_PROGRAMS_SESSION_H
#define QZ_PROGRAMS_SESSION_H

#include "calib/calib.h"
#include "eval/eval.h"

typedef struct qz_session {
    const qz_backend *backend;
    qz_ckpt *ckpt;
    qz_model *model;
    qz_tokenizer *tokenizer; /* NULL: the folder has no tokenizer.json */
    qz_arena *arena;
} qz_session;

/* `backend`: a name, "auto" or NULL. On failure nothing stays open; qz_session_close is allowed then as well. */
QZ_NODISCARD qz_status qz_session_open(qz_session *out, const char *folder, const char *backend,
                                       const char *const *pass_through, qz_arena *arena);
/* The same without the tokenizer, for a folder whose text is already cut into windows. */
QZ_NODISCARD qz_status qz_session_open_weights(qz_session *out, const char *folder, const char *backend,
                                               const char *const *pass_through, qz_arena *arena);
void qz_session_close(qz_session *s);

/* Text needs the folder's tokenizer. */
QZ_NODISCARD qz_status qz_session_can_read(const qz_session *s, const char *path);
/* Windows of a text for this model: BOS, vocabulary and tokenizer are filled in. */
QZ_NODISCARD qz_status qz_session_windows(qz_windows *out, const qz_session *s, const qz_windows_rule *rule);

/* How many numbers a folder stores, and in how many bytes. */
typedef struct qz_weight_count {
    uint64_t numbers, bytes;               /* everything */
    uint64_t linear_numbers, linear_bytes; /* weights of the quantized linears, with scales and zeros */
} qz_weight_count;
QZ_NODISCARD qz_status qz_session_count(qz_weight_count *out, const qz_session *s);
double qz_bits(uint64_t bytes, uint64_t numbers); /* 0 for no numbers */

/* Bytes of the regular files in a folder. */
QZ_NODISCARD qz_status qz_folder_bytes(uint64_t *out, const char *folder);

#endif
