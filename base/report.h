/* What happened, as rows: collected by every module, printed as a table by the program, written to report.json.
 *
 *     qz_report_add(report, "layer", "model.layers.3.mlp.down_proj", "relative_loss", 0.0012, "");
 *     qz_report_note(report, QZ_WARN, "calibration data is the demo text but the model is not the demo model");
 */
#ifndef QZ_BASE_REPORT_H
#define QZ_BASE_REPORT_H

#include <stddef.h>

#include "base/status.h"

typedef struct qz_report qz_report;
typedef enum qz_severity { QZ_INFO, QZ_WARN } qz_severity;

typedef struct qz_report_row {
    const char *section, *where, *what, *unit;
    double value;
    const char *text; /* NULL: the value counts */
} qz_report_row;

QZ_NODISCARD qz_status qz_report_new(qz_report **out);
void qz_report_free(qz_report *r);

/* All strings are copied. Failing to remember a row is kept and told by qz_report_status. Not thread-safe. */
void qz_report_add(qz_report *r, const char *section, const char *where, const char *what, double value,
                   const char *unit);
void qz_report_text(qz_report *r, const char *section, const char *where, const char *what, const char *text);
void qz_report_note(qz_report *r, qz_severity severity, const char *format, ...) QZ_PRINTF(3, 4);
QZ_NODISCARD qz_status qz_report_status(const qz_report *r);

size_t qz_report_count(const qz_report *r);
const qz_report_row *qz_report_row_at(const qz_report *r, size_t i);
/* The first row of that section, where and what; NULL when there is none. `where` NULL matches any. */
const qz_report_row *qz_report_find(const qz_report *r, const char *section, const char *where, const char *what);
size_t qz_report_notes(const qz_report *r);
const char *qz_report_note_at(const qz_report *r, size_t i, qz_severity *severity);

#endif
