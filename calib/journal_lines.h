/* One line of the journal <-> what it says; see journal_lines.c. What is read is copied to `arena`. */
#ifndef QZ_CALIB_JOURNAL_LINES_H
#define QZ_CALIB_JOURNAL_LINES_H

#include "base/json.h"
#include "calib/journal.h"

#define QZ_JOURNAL_FORMAT "1"

void qz_journal_put_identity(qz_json_writer *w, const qz_journal_text *identity, size_t count);
void qz_journal_put_layer(qz_json_writer *w, const qz_journal_layer *l);
/* `format` is one of the properties. */
QZ_NODISCARD qz_status qz_journal_read_identity(const qz_journal_text **out, size_t *count, const qz_json_node *root,
                                                qz_arena *arena);
QZ_NODISCARD qz_status qz_journal_read_layer(qz_journal_layer *l, const qz_json_node *root, qz_arena *arena);

#endif
