/* A validating scan of JSON text (RFC 8259), for errors with line and column, and what else the json*.c files share.
 * Private to base/. Columns count characters, not bytes. */
#ifndef QZ_BASE_JSON_SCAN_H
#define QZ_BASE_JSON_SCAN_H

#include <stddef.h>

#include "base/status.h"

/* Longer numbers than QZ_JSON_DIGITS are cut off by cJSON without a word. */
enum { QZ_JSON_DEPTH = 200, QZ_JSON_DIGITS = 63, QZ_JSON_NUMBER_TEXT = 40 };

/* QZ_FORMAT "line 3, column 14: ..." unless text is one value with white space around it, valid UTF-8, no deeper than
 * QZ_JSON_DEPTH, without \u0000. */
QZ_NODISCARD qz_status qz_json_scan(const char *text, size_t size);

/* In text that qz_json_scan accepts: the offset behind the value that starts at `at`, and behind white space. */
size_t qz_json_skip_value(const char *text, size_t size, size_t at);
size_t qz_json_skip_space(const char *text, size_t at);
/* In such text: the offset of value `index`, or of its key. Values are counted from 0, a container before its members.
 */
size_t qz_json_locate(const char *text, size_t size, size_t index);

/* QZ_FORMAT with the position of offset `at`. */
qz_status qz_json_fail_at(const char *text, size_t size, size_t at, const char *what);

/* The shortest text that reads back as the same double; NaN and infinities become null. */
void qz_json_format_number(char out[QZ_JSON_NUMBER_TEXT], double value);

#endif
