/* What the files that read text and token ids share. */
#ifndef QZ_DATA_DATA_IMPL_H
#define QZ_DATA_DATA_IMPL_H

#include "base/file.h"
#include "data/data.h"

/* Who gets the documents of a file, in order. Any of its functions may be NULL. */
typedef struct qz_document_taker {
    void *self;
    qz_status (*begin)(void *self, bool conversation); /* a conversation has the marks that it needs */
    /* Its next ids; `counts`: they are something to learn, not a prompt. */
    qz_status (*take)(void *self, const int32_t *ids, size_t count, bool counts);
    qz_status (*end)(void *self);
    qz_status (*passed)(void *self, uint64_t done, uint64_t all); /* so much of the file is read */
    const char *folder; /* where text that had to be written anew is kept, in a file without a name; NULL: in memory */
    bool training;      /* lines may be a prompt and its completion, and who says what is told apart */
    bool apart;         /* a conversation keeps its own BOS, because no window puts one in front */
} qz_document_taker;

/* Reads rule->path from the front until `limit` ids are handed on; only path, field, model and bos are looked at. */
QZ_NODISCARD qz_status qz_documents_visit(const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t limit,
                                          const qz_document_taker *taker);
/* All ids of rule->path in file order, or its first ones: reading stops once `limit` of them are there. */
QZ_NODISCARD qz_status qz_documents_read(qz_ids *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer,
                                         size_t limit, qz_arena *arena);
/* The documents of a .jsonl file (documents_lines.c). */
QZ_NODISCARD qz_status qz_lines_visit(const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer,
                                      size_t limit, const qz_document_taker *taker);

/* QZ_FORMAT when one of the ids, the first of which is number `first` of the file, is beyond the vocabulary. */
QZ_NODISCARD qz_status qz_ids_check(const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t first,
                                    const int32_t *ids, size_t count);
/* Length, BOS and vocabulary fit together. */
QZ_NODISCARD qz_status qz_windows_check_rule(const qz_windows_rule *rule);
int64_t qz_windows_step(const qz_windows_rule *rule); /* ids of the text in a window */

#endif
