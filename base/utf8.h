/* Is this UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF)? */
#ifndef QZ_BASE_UTF8_H
#define QZ_BASE_UTF8_H

#include <stddef.h>

/* Offset of the first byte that is not part of valid UTF-8; `size` when all is well. */
size_t qz_utf8_check(const char *text, size_t size);

#endif
