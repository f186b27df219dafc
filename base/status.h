/* What a function that can fail returns, and the sentence that says why.
 *
 * The code is for programs, the message for people. QZ_FAIL stores the message where the error is born, in a
 * buffer of the calling thread; QZ_TRY passes the code on; QZ_TRY_CTX adds a line of context on the way up.
 * A message names the thing, the value found, the value allowed and, where the user can act, what to do.
 *
 *     if (fd < 0) return QZ_FAIL(QZ_IO, "%s: cannot be opened: %s", path, strerror(errno));
 *     QZ_TRY_CTX(qz_json_parse(&j, text, size), "reading %s", path);
 *
 * Inside a parallel region a worker's message stays in its own thread: carry it out with qz_error_save.
 */
#ifndef QZ_BASE_STATUS_H
#define QZ_BASE_STATUS_H

typedef enum qz_status {
    QZ_OK = 0,
    QZ_ARG,         /* a caller's or user's argument, recipe or command line is wrong */
    QZ_MEMORY,      /* an allocation failed or a plan does not fit */
    QZ_IO,          /* the operating system refused a file operation */
    QZ_FORMAT,      /* bytes or text are not what their format says */
    QZ_SHAPE,       /* sizes do not fit together */
    QZ_UNSUPPORTED, /* understood, but not something that we do */
    QZ_NUMERIC,     /* NaN, infinity, or a factorization that failed */
    QZ_DEVICE,      /* an accelerator failed */
    QZ_INTERRUPTED, /* the user asked to stop */
} qz_status;

#define QZ_NODISCARD __attribute__((warn_unused_result))
#define QZ_PRINTF(text, first) __attribute__((__format__(__printf__, text, first)))

/* The message of this thread's last failure; "" when there was none. Valid until the next failure. */
const char *qz_error_message(void);
const char *qz_status_name(qz_status status);

/* Used by the macros below; returns `code`. */
qz_status qz_error_set(qz_status code, const char *format, ...) QZ_PRINTF(2, 3);
/* Puts a line in front of the stored message: "context: message". Returns `code`. */
qz_status qz_error_context(qz_status code, const char *format, ...) QZ_PRINTF(2, 3);
void qz_error_clear(void);

/* A failure carried from a worker thread to the thread that reports it. */
typedef struct qz_error {
    qz_status code;
    char message[1024];
} qz_error;
void qz_error_save(qz_error *out, qz_status code);
qz_status qz_error_restore(const qz_error *saved);

#define QZ_FAIL(code, ...) qz_error_set((code), __VA_ARGS__)

#define QZ_TRY(call)                                                                                                   \
    do {                                                                                                               \
        qz_status qz_try_status_ = (call);                                                                             \
        if (qz_try_status_ != QZ_OK) return qz_try_status_;                                                            \
    } while (0)

#define QZ_TRY_CTX(call, ...)                                                                                          \
    do {                                                                                                               \
        qz_status qz_try_status_ = (call);                                                                             \
        if (qz_try_status_ != QZ_OK) return qz_error_context(qz_try_status_, __VA_ARGS__);                             \
    } while (0)

/* For functions that must release something: sets `status` and jumps. */
#define QZ_TRY_GOTO(status, label, call)                                                                               \
    do {                                                                                                               \
        (status) = (call);                                                                                             \
        if ((status) != QZ_OK) goto label;                                                                             \
    } while (0)

#endif
