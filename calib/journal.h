/* What a run has finished, so that the same command with --resume can go on after kill -9.
 *
 * `resume.jsonl` in OUTPUT.partial: the first line is the identity of the run, every further line one finished layer,
 * appended and synced after the layer's tensors are. Text, so that a user can read how far a run came.
 *
 *     qz_journal *j;
 *     if (!resuming || !qz_journal_is_there(folder))
 *         QZ_TRY(qz_journal_create(&j, folder, identity, count));  // after the shards' headers are written and synced
 *     else {
 *         QZ_TRY(qz_journal_open(&j, folder));
 *         QZ_TRY(qz_journal_compare(j, identity, count));
 *         for (size_t i = 0; i < qz_journal_layers(j); i++) {
 *             const qz_journal_layer *l = qz_journal_layer_at(j, i);
 *             ... qz_shards_mark for l->tensor[], compare what is read back with its fingerprint ...
 *             qz_journal_report(l, report);
 *         }
 *     }
 *     ... work on a layer; qz_shards_sync ...
 *     QZ_TRY(qz_journal_add(j, &(qz_journal_layer){.layer = i, .tensor = ..., .row = ..., .number = ...}));
 *     qz_journal_close(j);                                         // the file stays; qz_output_commit removes it
 *
 * A last line that a crash cut short is dropped when the journal is opened. A damaged line before it is QZ_FORMAT. */
#ifndef QZ_CALIB_JOURNAL_H
#define QZ_CALIB_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/report.h"
#include "base/status.h"

#define QZ_JOURNAL_NAME "resume.jsonl"

typedef struct qz_journal qz_journal;

/* Of the identity: a property and its value. Of a layer: a tensor and its fingerprint. */
typedef struct qz_journal_text {
    const char *name, *value;
} qz_journal_text;

typedef struct qz_journal_number {
    const char *name;
    double value; /* every double goes there and back unchanged, NaN as a NaN */
} qz_journal_number;

typedef struct qz_journal_note {
    qz_severity severity;
    const char *text;
} qz_journal_note;

typedef struct qz_journal_layer {
    int layer;
    const qz_journal_text *tensor; /* written: name and fingerprint */
    const qz_report_row *row;      /* what the layer added to the report */
    const qz_journal_note *note;
    const qz_journal_number *number; /* anything else to be carried over */
    size_t tensors, rows, notes, numbers;
} qz_journal_layer;

bool qz_journal_is_there(const char *folder);
/* Replaces an older journal of the folder. */
QZ_NODISCARD qz_status qz_journal_create(qz_journal **out, const char *folder, const qz_journal_text *identity,
                                         size_t count);
/* Reads everything back and appends from there on. */
QZ_NODISCARD qz_status qz_journal_open(qz_journal **out, const char *folder);
void qz_journal_close(qz_journal *j); /* NULL allowed */

/* QZ_ARG naming each property that is not what it was. */
QZ_NODISCARD qz_status qz_journal_compare(const qz_journal *j, const qz_journal_text *identity, size_t count);
/* One line; on the disk when this returns. */
QZ_NODISCARD qz_status qz_journal_add(qz_journal *j, const qz_journal_layer *layer);

/* The layers that qz_journal_open found, in the order in which they were finished. */
size_t qz_journal_layers(const qz_journal *j);
const qz_journal_layer *qz_journal_layer_at(const qz_journal *j, size_t i);
/* NULL when the layer has no number of that name. */
const double *qz_journal_number_of(const qz_journal_layer *l, const char *name);
/* Adds the layer's rows and notes to a report, as the interrupted run did. */
void qz_journal_report(const qz_journal_layer *l, qz_report *report);

/* Where a report stands, and what came since: the rows and notes of one layer, for qz_journal_add. Views that are valid
 * until the report grows. */
typedef struct qz_journal_mark {
    size_t rows, notes;
} qz_journal_mark;
qz_journal_mark qz_journal_mark_of(const qz_report *report);
QZ_NODISCARD qz_status qz_journal_since(qz_journal_layer *l, const qz_report *report, qz_journal_mark mark,
                                        qz_arena *arena);

/* How many finished layers the folder's journal names; 0 when there is none or it cannot be read. */
size_t qz_journal_peek(const char *folder);

#endif
