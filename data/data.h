/* Text -> token ids -> windows. A tokenizer.json's truncation and padding are left aside.
 *
 *     qz_tokenizer *tok;
 *     QZ_TRY(qz_tokenizer_open(&tok, "demo/model/tokenizer.json"));
 *     qz_windows w;
 *     qz_windows_rule rule = {.path = "demo/text/calib.txt", .count = 128, .length = 512, .bos = 0};
 *     QZ_TRY(qz_windows_load(&w, &rule, tok, arena));
 *     // w.ids (w.count, w.length)
 */
#ifndef QZ_DATA_DATA_H
#define QZ_DATA_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/status.h"

/* ---- tokenizer.json as Hugging Face's tokenizers library writes it (tokenizer*.c) ---- */

typedef struct qz_tokenizer qz_tokenizer;

/* A component that we do not know is QZ_UNSUPPORTED naming it. */
QZ_NODISCARD qz_status qz_tokenizer_open(qz_tokenizer **out, const char *path);
/* The same from JSON text; `name` appears in messages. */
QZ_NODISCARD qz_status qz_tokenizer_parse(qz_tokenizer **out, const char *json, size_t size, const char *name);
void qz_tokenizer_close(qz_tokenizer *t);

typedef struct qz_ids {
    int32_t *id; /* (count) */
    size_t count;
} qz_ids;

/* `special`: add what the post-processor adds (BOS, EOS). Special tokens written out in the text are recognised in
 * either case. Invalid UTF-8 is QZ_FORMAT with its offset. Safe to call from several threads. */
QZ_NODISCARD qz_status qz_tokenizer_encode(const qz_tokenizer *t, const char *text, size_t size, bool special,
                                           qz_ids *out, qz_arena *arena);
/* NUL-terminated text; invalid UTF-8 pieces become U+FFFD and ids that are no token are left out, as the library does.
 * `size` may be NULL. */
QZ_NODISCARD qz_status qz_tokenizer_decode(const qz_tokenizer *t, const int32_t *ids, size_t count, bool skip_special,
                                           char **out, size_t *size, qz_arena *arena);
/* Largest id + 1, added tokens included. */
int64_t qz_tokenizer_size(const qz_tokenizer *t);
/* -1 when absent. */
int32_t qz_tokenizer_id(const qz_tokenizer *t, const char *token);

/* Does this file have a document a line? By its suffix, .jsonl. */
bool qz_data_has_lines(const char *path);

/* ---- windows (windows.c): the calibration rule ---- */

/* A document is tokenized once without special tokens (a .txt file is one document; each .jsonl line is one, its text
 * in `field`, or a conversation in "messages" or "conversations"; an HDF5 file's dataset `ids` is one). Line ends of a
 * .txt file are read as "\n". Documents follow one another. Windows are cut in file order: BOS and length - 1 ids, or
 * `length` ids when bos < 0; a short last piece is dropped. */
typedef struct qz_windows_rule {
    const char *path;  /* .txt, .jsonl, .h5 or .hdf5; by suffix */
    const char *field; /* of .jsonl; NULL: "text" */
    const char *model; /* folder whose chat template renders .jsonl lines that hold "messages" instead; NULL: none */
    int64_t count;     /* windows wanted; 0: all */
    int64_t length;
    int32_t bos;      /* -1: none */
    bool shuffle;     /* choose the windows by a seeded permutation of all of them instead of the first */
    bool allow_fewer; /* fewer than `count` is fine (evaluation); otherwise an error saying how much there is */
    uint64_t seed;
    int64_t vocabulary; /* of the model: an id at or above it is an error; 0: not checked */
} qz_windows_rule;

typedef struct qz_windows {
    int32_t *ids; /* (count, length) */
    int64_t count, length;
    int64_t tokens;          /* ids that were read: all of the file's when it is shuffled, too short or wanted whole */
    bool has_bos;            /* id 0 of each window was put there by the rule */
    char hash[QZ_HASH_TEXT]; /* of the file's bytes */
} qz_windows;

/* `tokenizer` may be NULL for HDF5. Text that is empty, not UTF-8 (binary) or too short is an error. For long .txt
 * files only as much is tokenized as the windows need when !shuffle && count > 0; ids are those of the whole text. */
QZ_NODISCARD qz_status qz_windows_load(qz_windows *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer,
                                       qz_arena *arena);

/* ---- windows for training (loader.c): of a text that may be larger than memory, in a new order every epoch ---- */

/* How documents become windows; docs/training-data.md has the rules with examples. */
typedef enum qz_loader_pack {
    QZ_LOADER_AUTO,      /* .jsonl: documents; else stream */
    QZ_LOADER_DOCUMENTS, /* BOS, text, EOS one after the other; a window has pieces of several and none sees another */
    QZ_LOADER_STREAM,    /* one long text, as the calibration rule cuts it: BOS and length - 1 ids */
} qz_loader_pack;

typedef struct qz_loader_rule {
    const char *path;  /* .txt, .jsonl, .h5 or .hdf5; by suffix */
    const char *field; /* of .jsonl; NULL: "text" */
    const char *model; /* folder whose chat template renders conversations; NULL: none */
    int64_t length;    /* ids of a window */
    int32_t bos, eos;  /* -1: none */
    bool shuffle;
    qz_loader_pack pack;
    uint64_t seed;
    int64_t vocabulary;    /* of the model: an id at or above it is an error; 0: not checked */
    int64_t batch;         /* sequences of a step: an epoch of fewer windows is an error; 0: one window is enough */
    const char *folder;    /* where the tokens are kept while the loader is open, in files without a name */
    qz_progress *progress; /* is told how many bytes of the file are read, phase "tokenize"; may stop it */
} qz_loader_rule;

typedef struct qz_loader qz_loader;

/* With the rule it says all about what comes next. */
typedef struct qz_loader_position {
    int64_t epoch, index; /* windows taken of this epoch, less than qz_loader_windows */
} qz_loader_position;

enum { QZ_LABEL_NONE = -100 };

/* Arrays of the caller. */
typedef struct qz_loader_batch {
    int32_t *ids;    /* (sequences, length) */
    int32_t *labels; /* (sequences, length) of t the id after it; QZ_LABEL_NONE: does not count */
    int32_t *first;  /* (sequences, length) index in the window where the document of t begins; 0 for STREAM */
    int64_t sequences, length;
    int64_t targets; /* labels that count; may be 0 where a batch is all prompt */
} qz_loader_batch;

/* Reads the whole file once. `tokenizer` may be NULL for HDF5. */
QZ_NODISCARD qz_status qz_loader_open(qz_loader **out, const qz_loader_rule *rule, const qz_tokenizer *tokenizer);
void qz_loader_close(qz_loader *s); /* NULL allowed */
/* The next `sequences` windows into the arrays of `batch`, whose sizes are set. A batch may end one epoch and begin the
 * next: every window comes once an epoch. More sequences than an epoch has windows are an error. */
QZ_NODISCARD qz_status qz_loader_next(qz_loader *s, qz_loader_batch *batch, int64_t sequences);
qz_loader_position qz_loader_position_of(const qz_loader *s);
/* Costs the same wherever it goes. */
QZ_NODISCARD qz_status qz_loader_seek(qz_loader *s, qz_loader_position to);
/* Of the ids and of what counts: another text, tokenizer or chat template gives another one. */
const char *qz_loader_hash(const qz_loader *s);
int64_t qz_loader_windows(const qz_loader *s); /* of an epoch */
int64_t qz_loader_tokens(const qz_loader *s);  /* of the data, BOS and EOS of documents included */
bool qz_loader_packs(const qz_loader *s);      /* windows hold documents, and attention needs `first` */

#endif
