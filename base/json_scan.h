/* A validating scan of JSON text (RFC 8259), for errors with line and column. Private to base/. */
#ifndef QZ_BASE_JSON_SCAN_H
#define QZ_BASE_JSON_SCAN_H

#include <stddef.h>

#include "base/status.h"

enum { QZ_JSON_DEPTH = 200 };

/* QZ_FORMAT "line 3, column 14: ..." unless text is one value with white space around it, valid UTF-8, no deeper than
 * QZ_JSON_DEPTH, without \u0000. */
QZ_NODISCARD qz_status qz_json_scan(const char *text, size_t size);

/* Offset behind the value that starts at `at` in text that qz_json_scan accepts; and behind white space. */
size_t qz_json_skip_value(const char *text, size_t at);
size_t qz_json_skip_space(const char *text, size_t at);

/* QZ_FORMAT with the position of offset `at`. */
qz_status qz_json_fail_at(const char *text, size_t size, size_t at, const char *what);

#endif
