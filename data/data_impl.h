/* What windows.c and documents.c share. */
#ifndef QZ_DATA_DATA_IMPL_H
#define QZ_DATA_DATA_IMPL_H

#include "data/data.h"

/* All ids of rule->path in file order, or its first ones: reading stops once `limit` of them are there. */
QZ_NODISCARD qz_status qz_documents_read(qz_ids *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer,
                                         size_t limit, qz_arena *arena);

#endif
