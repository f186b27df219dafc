/* XXH3: a 128-bit fingerprint of bytes and of files, and 64-bit hashes for tables. The door to xxHash.
 * Fingerprints identify inputs in reports; they are no protection against a forger. */
#ifndef QZ_BASE_HASH_H
#define QZ_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QZ_HASH_TEXT 33 /* 32 hex digits and a NUL */

uint64_t qz_hash64(const void *data, size_t size);
void qz_hash_bytes(char out[QZ_HASH_TEXT], const void *data, size_t size);
QZ_NODISCARD qz_status qz_hash_file(char out[QZ_HASH_TEXT], const char *path);

/* Several pieces in order. */
typedef struct qz_hasher qz_hasher;
QZ_NODISCARD qz_status qz_hasher_new(qz_hasher **out);
void qz_hasher_add(qz_hasher *h, const void *data, size_t size);
void qz_hasher_finish(qz_hasher *h, char out[QZ_HASH_TEXT]); /* and frees it */

#endif
