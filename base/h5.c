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
    hid_t file;
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

static void release(qz_h5 *f)
{
    qz_free(f->path);
    qz_free(f->temporary);
    qz_free(f);
}

static qz_h5 *handle_new(const char *path, bool create)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    qz_h5 *f = qz_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->path = qz_strdup(path);
    if (create && f->path && (f->temporary = qz_malloc(strlen(path) + 5))) sprintf(f->temporary, "%s.tmp", path);
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

static hid_t memory_type(qz_h5_type t)
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
    hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT), transfer = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_type_conv_cb(transfer, refuse_change, NULL);
    herr_t result = H5Dread(set, memory_type(type), H5S_ALL, H5S_ALL, transfer, out);
    qz_status status = result < 0 ? fail(QZ_FORMAT, f, name, "cannot be read as the wanted type") : QZ_OK;
    H5Pclose(transfer);
    H5Dclose(set);
    return status;
}

qz_status qz_h5_write(qz_h5 *f, const char *name, qz_h5_type type, const void *data, int rank, const uint64_t *shape)
{
    hsize_t dims[8];
    assert(rank >= 0 && rank <= 8);
    for (int i = 0; i < rank; i++) dims[i] = shape[i];
    hid_t space = H5Screate_simple(rank, dims, NULL);
    hid_t set = H5Dcreate2(f->file, name, memory_type(type), space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    bool good = set >= 0 && H5Dwrite(set, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    qz_status status = good ? QZ_OK : fail(QZ_IO, f, name, "cannot be written");
    if (set >= 0) H5Dclose(set);
    H5Sclose(space);
    return status;
}

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
