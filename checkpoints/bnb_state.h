/* bitsandbytes' quant_state: what a 4-bit weight's JSON text says (FORMATS.md 5.1). */
#ifndef QZ_CHECKPOINTS_BNB_STATE_H
#define QZ_CHECKPOINTS_BNB_STATE_H

#include "checkpoints/checkpoints.h"

typedef struct qz_bnb_state {
    qz_format format; /* nf4 or fp4 */
    int64_t block;
    qz_dtype type; /* of the values before they were quantized, and after */
    int64_t n, k;
    bool nested;
    float offset;
} qz_bnb_state;

/* Bytes of the text: they depend on all but the offset, which is not known when tensors are declared. */
QZ_NODISCARD qz_status qz_bnb_state_size(int64_t *size, const qz_bnb_state *state, qz_arena *scratch);
/* The text, filled up with spaces to its size. */
QZ_NODISCARD qz_status qz_bnb_state_print(char **out, const qz_bnb_state *state, qz_arena *arena);
QZ_NODISCARD qz_status qz_bnb_state_parse(qz_bnb_state *out, const char *text, size_t size);

#endif
