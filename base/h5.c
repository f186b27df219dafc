/* The door to HDF5. Its own error printing is switched off; its deepest message becomes part of ours. */
#include "base/h5.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"

struct qz_h5 {
    hid_t file, half;       /* half: the type binary16, which HDF5 1.10 does not predefine */
    char *path, *temporary; /* temporary: of a file being created, else NULL */
};

static herr_t deepest(unsigned n, const H5E_error2_t *e, void *out)
{
    if (n == 0) snprintf(out, 160, "%s", e->desc ? e->desc : "");
    return 0;
}

static qz_status fail(qz_status code, const qz_h5 *f, const char *name, const char *what)
{
    char reason[160] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, deepest, reason);
    return QZ_FAIL(code, "%s%s%s: %s%s%s", f->path, *name ? ": " : "", name, what, *reason ? ": " : "", reason);
}

/* IEEE 754 binary16: sign at bit 15, exponent of 5 bits at 10 with bias 15, mantissa of 10 bits at 0. */
static hid_t make_half(void)
{
    hid_t t = H5Tcopy(H5T_NATIVE_FLOAT);
    H5Tset_fields(t, 15, 10, 5, 0, 10);
    H5Tset_size(t, 2);
    H5Tset_ebias(t, 15);
    return t;
}

static void release(qz_h5 *f)
{
    if (f->half > 0) H5Tclose(f->half);
    qz_free(f->path);
    qz_free(f->temporary);
    qz_free(f);
}

static qz_h5 *handle_new(const char *path, bool create)
{
    H5dont_atexit(); /* its own tidying up at exit crashes over a file whose closing failed on a full disk */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    qz_h5 *f = qz_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->path = qz_strdup(path);
    if (create && f->path && (f->temporary = qz_malloc(strlen(path) + 5))) sprintf(f->temporary, "%s.tmp", path);
    f->half = make_half();
    if (f->path && (!create || f->temporary)) return f;
    release(f);
    return NULL;
}

static qz_status no_memory(const char *path)
{
    return QZ_FAIL(QZ_MEMORY, "out of memory: opening %s", path);
}

qz_status qz_h5_open(qz_h5 **out, const char *path)
{
    *out = NULL;
    qz_map probe; /* refuses what is not a regular file: opening a pipe would wait for ever */
    QZ_TRY(qz_map_open(&probe, path));
    qz_map_close(&probe);
    qz_h5 *f = handle_new(path, false);
    if (!f) return no_memory(path);
    f->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (f->file < 0) {
        qz_status status = fail(QZ_FORMAT, f, "", "is not an HDF5 file");
        release(f);
        return status;
    }
    *out = f;
    return QZ_OK;
}

qz_status qz_h5_create(qz_h5 **out, const char *path)
{
    *out = NULL;
    qz_h5 *f = handle_new(path, true);
    if (!f) return no_memory(path);
    f->file = H5Fcreate(f->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (f->file < 0) {
        qz_status status = fail(QZ_IO, f, "", "cannot be created");
        release(f);
        return status;
    }
    *out = f;
    return QZ_OK;
}

static qz_status sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) close(fd);
    return error ? QZ_FAIL(QZ_IO, "%s: cannot be written: %s", path, strerror(error)) : QZ_OK;
}

qz_status qz_h5_close(qz_h5 *f)
{
    qz_status status = QZ_OK;
    bool flushed = !f->temporary || H5Fflush(f->file, H5F_SCOPE_GLOBAL) >= 0;
    if (!flushed) status = fail(QZ_IO, f, "", "cannot be written");
    if (H5Fclose(f->file) < 0 && status == QZ_OK) status = fail(QZ_IO, f, "", "cannot be closed");
    if (f->temporary && status == QZ_OK) status = sync_file(f->temporary);
    if (f->temporary && status == QZ_OK) status = qz_path_rename(f->temporary, f->path);
    if (f->temporary && status != QZ_OK) remove(f->temporary);
    release(f);
    return status;
}

void qz_h5_abandon(qz_h5 *f)
{
    if (!f) return;
    H5Fclose(f->file);
    if (f->temporary) remove(f->temporary);
    release(f);
}

bool qz_h5_has(qz_h5 *f, const char *name)
{
    return H5Lexists(f->file, name, H5P_DEFAULT) > 0;
}

static hid_t memory_type(const qz_h5 *f, qz_h5_type t)
{
    switch (t) {
    case QZ_H5_I32:
        return H5T_NATIVE_INT32;
    case QZ_H5_I64:
        return H5T_NATIVE_INT64;
    case QZ_H5_U16:
        return H5T_NATIVE_UINT16;
    case QZ_H5_U32:
        return H5T_NATIVE_UINT32;
    case QZ_H5_F32:
        return H5T_NATIVE_FLOAT;
    case QZ_H5_U8:
        return H5T_NATIVE_UINT8;
    case QZ_H5_U64:
        return H5T_NATIVE_UINT64;
    case QZ_H5_F16:
        return f->half;
    default:
        return H5T_NATIVE_DOUBLE;
    }
}

static qz_status check_space(const qz_h5 *f, const char *name, hid_t space, hid_t type)
{
    int n = H5Sget_simple_extent_ndims(space);
    H5T_class_t kind = H5Tget_class(type);
    if (H5Sget_simple_extent_type(space) == H5S_NULL) return QZ_FAIL(QZ_FORMAT, "%s: %s: holds no data", f->path, name);
    if (n < 0 || n > 8) return QZ_FAIL(QZ_FORMAT, "%s: %s: has %d dimensions, at most 8 are read", f->path, name, n);
    if (kind != H5T_INTEGER && kind != H5T_FLOAT)
        return QZ_FAIL(QZ_FORMAT, "%s: %s: does not hold plain numbers", f->path, name);
    return QZ_OK;
}

qz_status qz_h5_shape(qz_h5 *f, const char *name, int *rank, uint64_t shape[8], bool *integer)
{
    if (!qz_h5_has(f, name)) return QZ_FAIL(QZ_FORMAT, "%s: has no dataset \"%s\"", f->path, name);
    hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT);
    if (set < 0) return fail(QZ_FORMAT, f, name, "is not a dataset");
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    qz_status status = check_space(f, name, space, type);
    if (status == QZ_OK) {
        hsize_t dims[8] = {0};
        *rank = H5Sget_simple_extent_dims(space, dims, NULL);
        for (int i = 0; shape && i < *rank; i++) shape[i] = dims[i];
        if (integer) *integer = H5Tget_class(type) == H5T_INTEGER;
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(set);
    return status;
}

/* To HDF5 an infinite double is also one that is too large for a float. */
static bool is_special(H5T_conv_except_t kind, hid_t from, const void *src)
{
    double value = 0;
    if (kind == H5T_CONV_EXCEPT_PINF || kind == H5T_CONV_EXCEPT_NINF || kind == H5T_CONV_EXCEPT_NAN) return true;
    if (H5Tequal(from, H5T_NATIVE_DOUBLE) > 0) memcpy(&value, src, sizeof value);
    return isinf(value);
}

/* HDF5 clips what does not fit the type in memory and cuts off fractions; this turns both into a failed read. NaN and
 * infinities stay where the type in memory has them. */
static H5T_conv_ret_t refuse_change(H5T_conv_except_t kind, hid_t from, hid_t to, void *src, void *dst, void *context)
{
    (void)dst, (void)context;
    if (kind == H5T_CONV_EXCEPT_PRECISION) return H5T_CONV_UNHANDLED;
    return H5Tget_class(to) == H5T_FLOAT && is_special(kind, from, src) ? H5T_CONV_UNHANDLED : H5T_CONV_ABORT;
}

/* The whole dataset when `in_memory` and `in_file` are H5S_ALL. */
static qz_status read_selected(qz_h5 *f, const char *name, qz_h5_type type, void *out, hid_t set, hid_t in_memory,
                               hid_t in_file)
{
    hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_type_conv_cb(transfer, refuse_change, NULL);
    herr_t result = H5Dread(set, memory_type(f, type), in_memory, in_file, transfer, out);
    H5Pclose(transfer);
    return result < 0 ? fail(QZ_FORMAT, f, name, "cannot be read as the wanted type") : QZ_OK;
}

qz_status qz_h5_read(qz_h5 *f, const char *name, qz_h5_type type, void *out, size_t count)
{
    int rank;
    uint64_t shape[8], total = 1;
    bool overflow = false;
    QZ_TRY(qz_h5_shape(f, name, &rank, shape, NULL));
    for (int i = 0; i < rank; i++) overflow |= __builtin_mul_overflow(total, shape[i], &total);
    if (overflow || total != count)
        return QZ_FAIL(QZ_SHAPE, "%s: %s: has %llu elements, expected %zu", f->path, name, (unsigned long long)total,
                       count);
    hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT);
    qz_status status = read_selected(f, name, type, out, set, H5S_ALL, H5S_ALL);
    H5Dclose(set);
    return status;
}

static void to_dims(hsize_t dims[8], int rank, const uint64_t *shape)
{
    assert(rank >= 0 && rank <= 8);
    for (int i = 0; i < rank; i++) dims[i] = shape[i];
}

/* How a dataset is stored: without the time of its making, so that equal contents are equal files. */
static hid_t new_storage(void)
{
    hid_t storage = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(storage, false);
    return storage;
}

/* An empty dataset; missing groups of its path are made. Negative on failure. */
static hid_t make_set(qz_h5 *f, const char *name, qz_h5_type type, int rank, const uint64_t *shape, hid_t storage)
{
    hsize_t dims[8];
    to_dims(dims, rank, shape);
    hid_t space = H5Screate_simple(rank, dims, NULL), link = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(link, 1);
    hid_t set = H5Dcreate2(f->file, name, memory_type(f, type), space, link, storage, H5P_DEFAULT);
    H5Pclose(link);
    H5Sclose(space);
    return set;
}

qz_status qz_h5_write(qz_h5 *f, const char *name, qz_h5_type type, const void *data, int rank, const uint64_t *shape)
{
    hid_t storage = new_storage(), set = make_set(f, name, type, rank, shape, storage);
    H5Pclose(storage);
    bool good = set >= 0 && H5Dwrite(set, memory_type(f, type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_IO, f, name, "cannot be written");
    if (set >= 0) H5Dclose(set);
    return status;
}

enum { DEFLATE_LEVEL = 1 }; /* Gram matrices shrink to 86 % here and to 85 % at level 9, at six times the time */

/* Chunks cannot be longer than the dataset, nor 0: a dataset without elements is stored plainly. */
static void set_chunks(hid_t storage, int rank, const uint64_t *shape, const uint64_t *chunk)
{
    hsize_t dims[8];
    bool empty = rank == 0;
    for (int i = 0; i < rank; i++) {
        dims[i] = chunk[i] < shape[i] ? chunk[i] : shape[i];
        empty |= dims[i] == 0;
    }
    if (empty) return;
    H5Pset_chunk(storage, rank, dims);
    H5Pset_shuffle(storage);
    H5Pset_deflate(storage, DEFLATE_LEVEL);
    H5Pset_fletcher32(storage);
}

qz_status qz_h5_make(qz_h5 *f, const char *name, qz_h5_type type, int rank, const uint64_t *shape,
                     const uint64_t *chunk)
{
    hid_t storage = new_storage();
    set_chunks(storage, rank, shape, chunk);
    hid_t set = make_set(f, name, type, rank, shape, storage);
    H5Pclose(storage);
    qz_status status = set < 0 ? fail(QZ_IO, f, name, "cannot be made") : QZ_OK;
    if (set >= 0) H5Dclose(set);
    return status;
}

/* Opens the dataset and selects the block in it; QZ_SHAPE when it is not inside. */
static qz_status select_part(hid_t *set, hid_t *in_memory, hid_t *in_file, qz_h5 *f, const char *name, int rank,
                             const uint64_t *start, const uint64_t *count)
{
    int stored;
    uint64_t shape[8];
    hsize_t first[8], size[8];
    QZ_TRY(qz_h5_shape(f, name, &stored, shape, NULL));
    if (stored != rank) return QZ_FAIL(QZ_SHAPE, "%s: %s: has %d dimensions, expected %d", f->path, name, stored, rank);
    for (int i = 0; i < rank; i++)
        if (start[i] > shape[i] || count[i] > shape[i] - start[i])
            return QZ_FAIL(QZ_SHAPE, "%s: %s: has %llu elements in dimension %d, expected at least %llu", f->path, name,
                           (unsigned long long)shape[i], i, (unsigned long long)(start[i] + count[i]));
    to_dims(first, rank, start);
    to_dims(size, rank, count);
    *set = H5Dopen2(f->file, name, H5P_DEFAULT);
    *in_file = H5Dget_space(*set);
    *in_memory = H5Screate_simple(rank, size, NULL);
    H5Sselect_hyperslab(*in_file, H5S_SELECT_SET, first, NULL, size, NULL);
    return QZ_OK;
}

static void close_part(hid_t set, hid_t in_memory, hid_t in_file)
{
    H5Sclose(in_memory);
    H5Sclose(in_file);
    H5Dclose(set);
}

qz_status qz_h5_write_part(qz_h5 *f, const char *name, qz_h5_type type, const void *data, int rank,
                           const uint64_t *start, const uint64_t *count)
{
    hid_t set, in_memory, in_file;
    QZ_TRY(select_part(&set, &in_memory, &in_file, f, name, rank, start, count));
    bool good = H5Dwrite(set, memory_type(f, type), in_memory, in_file, H5P_DEFAULT, data) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_IO, f, name, "cannot be written");
    close_part(set, in_memory, in_file);
    return status;
}

qz_status qz_h5_read_part(qz_h5 *f, const char *name, qz_h5_type type, void *out, int rank, const uint64_t *start,
                          const uint64_t *count)
{
    hid_t set, in_memory, in_file;
    QZ_TRY(select_part(&set, &in_memory, &in_file, f, name, rank, start, count));
    qz_status status = read_selected(f, name, type, out, set, in_memory, in_file);
    close_part(set, in_memory, in_file);
    return status;
}

/* ---- attributes ---- */

qz_status qz_h5_write_text(qz_h5 *f, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    hid_t attribute = H5Acreate2(f->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, type, text) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_IO, f, name, "the attribute cannot be written");
    if (attribute >= 0) H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

qz_status qz_h5_read_text(qz_h5 *f, const char *name, char *out, size_t size)
{
    hid_t attribute = H5Aopen(f->file, name, H5P_DEFAULT);
    if (attribute < 0) return QZ_FAIL(QZ_FORMAT, "%s: has no attribute \"%s\"", f->path, name);
    hid_t stored = H5Aget_type(attribute), type = H5Tcopy(H5T_C_S1);
    bool good = H5Tget_class(stored) == H5T_STRING && H5Tis_variable_str(stored) == 0 && H5Tget_size(stored) <= size;
    H5Tset_size(type, size);
    good = good && H5Aread(attribute, type, out) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_FORMAT, f, name, "the attribute is no text that fits");
    H5Tclose(type);
    H5Tclose(stored);
    H5Aclose(attribute);
    return status;
}

static qz_status write_scalar(qz_h5 *f, const char *object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate_by_name(f->file, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = a >= 0 && H5Awrite(a, type, value) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_IO, f, name, "the attribute cannot be written");
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return status;
}

/* One number of the class; HDF5 converts between widths. */
static qz_status read_scalar(qz_h5 *f, const char *object, const char *name, hid_t type, void *out)
{
    hid_t a = H5Aopen_by_name(f->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (a < 0) return QZ_FAIL(QZ_FORMAT, "%s: %s has no attribute \"%s\"", f->path, object, name);
    hid_t stored = H5Aget_type(a), space = H5Aget_space(a);
    bool good = H5Tget_class(stored) == H5Tget_class(type) && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Tget_size(stored) <= H5Tget_size(type) && H5Aread(a, type, out) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_FORMAT, f, name, "the attribute is no number of the wanted type");
    H5Sclose(space);
    H5Tclose(stored);
    H5Aclose(a);
    return status;
}

qz_status qz_h5_write_int(qz_h5 *f, const char *object, const char *name, int64_t value)
{
    return write_scalar(f, object, name, H5T_NATIVE_INT64, &value);
}

qz_status qz_h5_read_int(qz_h5 *f, const char *object, const char *name, int64_t *value)
{
    return read_scalar(f, object, name, H5T_NATIVE_INT64, value);
}

qz_status qz_h5_write_double(qz_h5 *f, const char *object, const char *name, double value)
{
    return write_scalar(f, object, name, H5T_NATIVE_DOUBLE, &value);
}

qz_status qz_h5_read_double(qz_h5 *f, const char *object, const char *name, double *value)
{
    return read_scalar(f, object, name, H5T_NATIVE_DOUBLE, value);
}
