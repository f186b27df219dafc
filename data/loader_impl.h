/* What the files of the training loader share. */
#ifndef QZ_DATA_LOADER_IMPL_H
#define QZ_DATA_LOADER_IMPL_H

#include "data/data_impl.h"

/* ---- tokens of a whole file, in files without a name (loader_tokens.c) ---- */

enum {
    QZ_TOKEN_BEGINS = 1, /* the first of a document */
    QZ_TOKEN_COUNTS = 2, /* something to learn: no prompt */
};

typedef struct qz_token_file {
    qz_map ids;   /* (count) uint16_t, or uint32_t when wide */
    qz_map flags; /* (count) uint8_t; empty: every token counts and none begins a document */
    bool wide;
    int64_t count;
    char hash[QZ_HASH_TEXT]; /* of both */
} qz_token_file;

/* `packs`: documents are framed in BOS and EOS, and flags are kept. */
QZ_NODISCARD qz_status qz_token_file_make(qz_token_file *out, const qz_loader_rule *rule, bool packs,
                                          const qz_tokenizer *tokenizer);
void qz_token_file_close(qz_token_file *f);

static inline int32_t qz_token_id(const qz_token_file *f, int64_t i)
{
    return f->wide ? (int32_t)((const uint32_t *)(const void *)f->ids.data)[i]
                   : (int32_t)((const uint16_t *)(const void *)f->ids.data)[i];
}

static inline int qz_token_flags(const qz_token_file *f, int64_t i)
{
    return f->flags.size ? f->flags.data[i] : QZ_TOKEN_COUNTS;
}

/* ---- an order of 0 .. count-1 that takes no memory (loader_order.c) ---- */

enum { QZ_ORDER_ROUNDS = 8 };

typedef struct qz_order {
    int64_t count;
    int half; /* bits of half a number */
    uint64_t key[QZ_ORDER_ROUNDS];
} qz_order;

void qz_order_make(qz_order *out, int64_t count, uint64_t seed, int64_t epoch);
/* What stands at place `i`. */
int64_t qz_order_at(const qz_order *o, int64_t i);

#endif
