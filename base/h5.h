/* HDF5 datasets of plain numbers. The door to HDF5: the only file that includes it is h5.c.
 *
 * Names are paths ("layers/3/qkv/gram"); the groups on the way are made as they are needed. A small dataset is written
 * and read whole; a large one is made compressed and then written and read in parts. */
#ifndef QZ_BASE_H5_H
#define QZ_BASE_H5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qz_h5 qz_h5;
typedef enum qz_h5_type {
    QZ_H5_I32,
    QZ_H5_I64,
    QZ_H5_U16,
    QZ_H5_U32,
    QZ_H5_F32,
    QZ_H5_F64,
    QZ_H5_U8,
    QZ_H5_U64,
    QZ_H5_F16, /* in memory the bits, as uint16_t */
} qz_h5_type;

QZ_NODISCARD qz_status qz_h5_open(qz_h5 **out, const char *path);   /* for reading */
QZ_NODISCARD qz_status qz_h5_create(qz_h5 **out, const char *path); /* PATH.tmp until closed */
QZ_NODISCARD qz_status qz_h5_close(qz_h5 *file);                    /* syncs and renames a created file */
void qz_h5_abandon(qz_h5 *file);                                    /* removes a created file; NULL allowed */

bool qz_h5_has(qz_h5 *file, const char *name);
/* Rank at most 8; shape may be NULL. `integer` (may be NULL) says whether the stored type is an integer. */
QZ_NODISCARD qz_status qz_h5_shape(qz_h5 *file, const char *name, int *rank, uint64_t shape[8], bool *integer);
/* Whole dataset, converted to `type`; `count` elements must equal the dataset's. A value that does not fit is an error.
 */
QZ_NODISCARD qz_status qz_h5_read(qz_h5 *file, const char *name, qz_h5_type type, void *out, size_t count);
QZ_NODISCARD qz_status qz_h5_write(qz_h5 *file, const char *name, qz_h5_type type, const void *data, int rank,
                                   const uint64_t *shape);

/* Chunked, shuffled, deflated and with a checksum for each chunk; zeros until written. `chunk` (rank) is cut to the
 * shape. A part that is made of whole chunks is written at once. */
QZ_NODISCARD qz_status qz_h5_make(qz_h5 *file, const char *name, qz_h5_type type, int rank, const uint64_t *shape,
                                  const uint64_t *chunk);
/* The block of `count` (rank) elements at `start` (rank) of a dataset. */
QZ_NODISCARD qz_status qz_h5_write_part(qz_h5 *file, const char *name, qz_h5_type type, const void *data, int rank,
                                        const uint64_t *start, const uint64_t *count);
QZ_NODISCARD qz_status qz_h5_read_part(qz_h5 *file, const char *name, qz_h5_type type, void *out, int rank,
                                       const uint64_t *start, const uint64_t *count);

/* Attributes of the root, and of the group or dataset `object`, which must be there ("/": the root). */
QZ_NODISCARD qz_status qz_h5_write_text(qz_h5 *file, const char *name, const char *text);
QZ_NODISCARD qz_status qz_h5_read_text(qz_h5 *file, const char *name, char *out, size_t size);
QZ_NODISCARD qz_status qz_h5_write_int(qz_h5 *file, const char *object, const char *name, int64_t value);
QZ_NODISCARD qz_status qz_h5_read_int(qz_h5 *file, const char *object, const char *name, int64_t *value);
QZ_NODISCARD qz_status qz_h5_write_double(qz_h5 *file, const char *object, const char *name, double value);
QZ_NODISCARD qz_status qz_h5_read_double(qz_h5 *file, const char *object, const char *name, double *value);

#endif
