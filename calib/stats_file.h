/* Statistics of a model's linear inputs <-> an HDF5 file: calibrate once, export many times.
 *
 * docs/statistics-file.md has the layout. Written and read one input at a time, so that never more than one Gram matrix
 * of a layer is in memory.
 *
 *     qz_stats_file *f;
 *     QZ_TRY(qz_stats_file_create(&f, path, &source));                         // PATH.tmp until closed
 *     QZ_TRY(qz_stats_file_write(f, layer, input, &stats));                    // not rescaled
 *     QZ_TRY(qz_stats_file_close(f));                                          // or qz_stats_file_abandon(f)
 *
 *     QZ_TRY(qz_stats_file_open(&f, path));
 *     QZ_TRY(qz_stats_file_check(f, &mine));
 *     QZ_TRY(qz_stats_file_read(&stats, f, layer, input, k, wants, arena));    // as qz_stats_finish leaves it
 */
#ifndef QZ_CALIB_STATS_FILE_H
#define QZ_CALIB_STATS_FILE_H

#include "models/models.h"
#include "quant/stats.h"

typedef struct qz_stats_file qz_stats_file;

/* Where the statistics come from; stored in the file. NULL texts are stored as "". */
typedef struct qz_stats_source {
    const char *program, *family, *backend; /* "qcal 0.1.0"; "llama"; backend with its BLAS core */
    const char *model_hash, *tokenizer_hash, *data_hash;
    uint64_t seed;
    int64_t samples, sequence_length, layers;
    int64_t experts; /* of a layer; 0: it has no router */
    qz_dtype type;   /* of Gram matrices in the file: F32 (exact) or F16 (half the size) */
} qz_stats_source;

QZ_NODISCARD qz_status qz_stats_file_create(qz_stats_file **out, const char *path, const qz_stats_source *source);
/* A file that is cut off, foreign, or of another version is QZ_FORMAT saying which. */
QZ_NODISCARD qz_status qz_stats_file_open(qz_stats_file **out, const char *path);
QZ_NODISCARD qz_status qz_stats_file_close(qz_stats_file *f); /* a file that was created gets its name */
void qz_stats_file_abandon(qz_stats_file *f);                 /* removes a file that was created; NULL allowed */

const qz_stats_source *qz_stats_file_source(const qz_stats_file *f);
/* The three hashes, samples, sequence length, layers and experts must be those of `mine`; QZ_ARG naming each that is
 * not, found and expected. A NULL hash or a number below 1 is not compared. */
QZ_NODISCARD qz_status qz_stats_file_check(const qz_stats_file *f, const qz_stats_source *mine);

/* Inputs as models.h numbers them. */
QZ_NODISCARD qz_status qz_stats_file_write(qz_stats_file *f, int layer, int input, const qz_stats *s);
bool qz_stats_file_has(const qz_stats_file *f, int layer, int input);
/* `k` channels are expected. What `wants` asks for must be in the file; what it does not ask for is not read. The
 * reservoir has the capacity that it was gathered with. */
QZ_NODISCARD qz_status qz_stats_file_read(qz_stats *out, qz_stats_file *f, int layer, int input, int64_t k,
                                          qz_stats_wants wants, qz_arena *arena);

/* The same of the output head's input, the final norm. */
QZ_NODISCARD qz_status qz_stats_file_write_head(qz_stats_file *f, const qz_stats *s);
bool qz_stats_file_has_head(const qz_stats_file *f);
QZ_NODISCARD qz_status qz_stats_file_read_head(qz_stats *out, qz_stats_file *f, int64_t k, qz_stats_wants wants,
                                               qz_arena *arena);

/* The same of a layer's keys after rope (`value` false) and values; a record without a Gram matrix is fine here. */
QZ_NODISCARD qz_status qz_stats_file_write_kv(qz_stats_file *f, int layer, bool value, const qz_stats *s);
bool qz_stats_file_has_kv(const qz_stats_file *f, int layer, bool value);
QZ_NODISCARD qz_status qz_stats_file_read_kv(qz_stats *out, qz_stats_file *f, int layer, bool value, int64_t k,
                                             qz_stats_wants wants, qz_arena *arena);

/* A number of the whole run ("largest_activation"). */
QZ_NODISCARD qz_status qz_stats_file_write_number(qz_stats_file *f, const char *name, double value);
QZ_NODISCARD qz_status qz_stats_file_read_number(qz_stats_file *f, const char *name, double *value);

/* Bytes of the file at most, before compression, which saves little: of one input, and of the layers that `kept` names
 * ((layers); NULL: all) with their keys and values, and of the output head's input. */
uint64_t qz_stats_file_input_bytes(int64_t k, qz_dtype type, qz_stats_wants wants);
uint64_t qz_stats_file_bytes(const qz_model *m, qz_dtype type, qz_stats_wants wants, const bool *kept, bool head);

#endif
