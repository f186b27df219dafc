/* What tests share: temporary folders, fixtures, and assertions on qz_status. */
#ifndef QZ_TESTING_H
#define QZ_TESTING_H

#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>

#include "base/status.h"

/* The call succeeds; otherwise its message is shown. */
#define check_ok(call)                                                                                                 \
    do {                                                                                                               \
        qz_status check_status_ = (call);                                                                              \
        cr_assert(check_status_ == QZ_OK, "%s: %s", qz_status_name(check_status_), qz_error_message());                \
    } while (0)

/* The call fails with `code` and its message contains `part`. */
#define check_fails(code, part, call)                                                                                  \
    do {                                                                                                               \
        qz_status check_status_ = (call);                                                                              \
        cr_assert(check_status_ == (code), "expected %s, got %s (%s)", qz_status_name(code),                           \
                  qz_status_name(check_status_), qz_error_message());                                                  \
        cr_assert(strstr(qz_error_message(), (part)) != NULL, "\"%s\" is not in \"%s\"", (part), qz_error_message());  \
    } while (0)

/* A fresh folder under the system's temporary folder, removed at exit of the process. */
const char *test_folder(void);
/* test_folder()/name, in a static ring of buffers. */
const char *test_path(const char *name);
void test_write_file(const char *path, const void *data, size_t size);

/* tests/golden, or $QZ_GOLDEN; then "/" and the name. */
const char *golden_path(const char *name);

#endif
