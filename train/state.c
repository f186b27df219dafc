/* See state.h; docs/state-file.md has the layout, state_folder.c which files a folder keeps.
 *
 * HDF5 says where its data ends, so the fingerprint of the file's bytes can stand behind it: a program that reads HDF5
 * does not see it. It is checked before HDF5 is asked, which a spoiled file may lead astray. */
#include "train/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/h5.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/state_compare.h"

#define FORMAT "qat state"
#define SEAL "\nend of qat state "

enum { VERSION = 1, SEAL_SIZE = sizeof SEAL - 1 + QZ_HASH_TEXT /* 32 digits and a newline */, OVERHEAD = 4096 };

/* ---- types ---- */

static qz_h5_type stored_type(qz_dtype t)
{
    switch (t) {
    case QZ_F64:
        return QZ_H5_F64;
    case QZ_F32:
        return QZ_H5_F32;
    case QZ_F16:
        return QZ_H5_F16;
    case QZ_I64:
        return QZ_H5_I64;
    case QZ_I32:
        return QZ_H5_I32;
    case QZ_U64:
        return QZ_H5_U64;
    case QZ_U32:
        return QZ_H5_U32;
    case QZ_U16:
    case QZ_BF16: /* its bits */
        return QZ_H5_U16;
    default:
        assert(t == QZ_U8 || t == QZ_BOOL);
        return QZ_H5_U8;
    }
}

uint64_t qz_state_bytes(const qz_state *s)
{
    uint64_t bytes = OVERHEAD + (s->recipe ? strlen(s->recipe) : 0);
    bytes += (uint64_t)(s->texts + s->integers + s->numbers) * QZ_STATE_TEXT;
    for (int i = 0; i < s->tensors; i++) {
        const qz_tensor *t = &s->tensor[i].view;
        bytes += OVERHEAD + (uint64_t)qz_tensor_count(t) * (uint64_t)qz_dtype_bits(t->dtype) / 8;
    }
    return bytes;
}

/* ---- writing ---- */

static qz_status write_tensor(qz_h5 *h5, const qz_state_tensor *t)
{
    uint64_t shape[QZ_MAX_DIMS] = {0};
    assert(qz_tensor_is_contiguous(&t->view) && t->view.device == QZ_HOST);
    for (int i = 0; i < t->view.ndim; i++) shape[i] = (uint64_t)t->view.shape[i];
    return qz_h5_write(h5, t->name, stored_type(t->view.dtype), t->view.data, t->view.ndim, shape);
}

static qz_status write_recipe(qz_h5 *h5, const char *recipe)
{
    const uint64_t size = strlen(recipe); /* a dataset, since an attribute has 64 KB at most */
    return qz_h5_write(h5, "recipe", QZ_H5_U8, recipe, 1, &size);
}

static qz_status write_all(qz_h5 *h5, const qz_state *s, int64_t step)
{
    QZ_TRY(qz_h5_write_text(h5, "format", FORMAT));
    QZ_TRY(qz_h5_write_int(h5, "/", "format_version", VERSION));
    QZ_TRY(qz_h5_write_int(h5, "/", "step", step));
    for (int i = 0; i < s->texts; i++) {
        assert(strlen(s->text[i].value) < QZ_STATE_TEXT);
        QZ_TRY(qz_h5_write_text(h5, s->text[i].name, s->text[i].value));
    }
    for (int i = 0; i < s->integers; i++) QZ_TRY(qz_h5_write_int(h5, "/", s->integer[i].name, *s->integer[i].value));
    for (int i = 0; i < s->numbers; i++) QZ_TRY(qz_h5_write_double(h5, "/", s->number[i].name, *s->number[i].value));
    if (s->recipe) QZ_TRY(write_recipe(h5, s->recipe));
    for (int i = 0; i < s->tensors; i++) QZ_TRY(write_tensor(h5, &s->tensor[i]));
    return QZ_OK;
}

static qz_status write_h5(const char *path, const qz_state *s, int64_t step)
{
    qz_h5 *h5;
    QZ_TRY(qz_h5_create(&h5, path));
    qz_status status = write_all(h5, s, step);
    if (status == QZ_OK) return qz_h5_close(h5);
    qz_h5_abandon(h5);
    return status;
}

/* The line that ends a whole file whose other bytes are [data, data + size). */
static void make_seal(char out[SEAL_SIZE + 1], const void *data, size_t size)
{
    char print[QZ_HASH_TEXT];
    qz_hash_bytes(print, data, size);
    snprintf(out, SEAL_SIZE + 1, SEAL "%s\n", print);
}

static qz_status append_seal(const char *path, const char *seal)
{
    const int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    bool good = fd >= 0 && write(fd, seal, SEAL_SIZE) == SEAL_SIZE && fsync(fd) == 0;
    const int error = errno;
    if (fd >= 0) close(fd);
    return good ? QZ_OK : QZ_FAIL(QZ_IO, "%s: cannot be written: %s", path, strerror(error));
}

static qz_status seal_file(const char *path)
{
    qz_map map;
    char seal[SEAL_SIZE + 1];
    QZ_TRY(qz_map_open(&map, path));
    make_seal(seal, map.data, map.size);
    qz_map_close(&map);
    return append_seal(path, seal);
}

static qz_status check_room(const char *path, const qz_state *s)
{
    uint64_t room, bytes = qz_state_bytes(s);
    QZ_TRY(qz_disk_free(path, &room));
    if (room >= bytes) return QZ_OK;
    return QZ_FAIL(QZ_IO, "%s: the state takes %" PRIu64 " bytes, and the disk has %" PRIu64 " left", path, bytes,
                   room);
}

/* Under PATH.new until it is sealed: a file of the final name is a whole one. */
qz_status qz_state_write(const char *path, const qz_state *s, int64_t step)
{
    QZ_TRY(check_room(path, s));
    char *fresh = qz_malloc(strlen(path) + sizeof ".new");
    if (!fresh) return QZ_FAIL(QZ_MEMORY, "out of memory: writing %s", path);
    sprintf(fresh, "%s.new", path);
    qz_status status = write_h5(fresh, s, step);
    if (status == QZ_OK) {
        status = seal_file(fresh);
        if (status == QZ_OK) status = qz_path_rename(fresh, path);
        if (status != QZ_OK) remove(fresh);
    }
    qz_free(fresh);
    return status;
}

/* ---- reading ---- */

static qz_status check_seal(const char *path)
{
    qz_map map;
    char seal[SEAL_SIZE + 1];
    QZ_TRY(qz_map_open(&map, path));
    bool whole = map.size > SEAL_SIZE;
    if (whole) {
        const size_t size = map.size - SEAL_SIZE;
        qz_map_will_need(map.data, map.size);
        make_seal(seal, map.data, size);
        whole = memcmp(map.data + size, seal, SEAL_SIZE) == 0;
    }
    qz_map_close(&map);
    return whole ? QZ_OK : QZ_FAIL(QZ_FORMAT, "%s: is no whole state file: it is cut off or its bytes changed", path);
}

static qz_status check_version(qz_h5 *h5, const char *path)
{
    char text[QZ_STATE_TEXT];
    int64_t version;
    if (qz_h5_read_text(h5, "format", text, sizeof text) != QZ_OK || strcmp(text, FORMAT) != 0)
        return QZ_FAIL(QZ_FORMAT, "%s: is an HDF5 file, but no state of a training run", path);
    QZ_TRY(qz_h5_read_int(h5, "/", "format_version", &version));
    if (version == VERSION) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s: is a state file of version %" PRId64 ", and this program reads version %d", path,
                   version, VERSION);
}

static qz_status read_recipe(char **out, qz_h5 *h5, qz_arena *arena)
{
    int rank;
    uint64_t shape[8];
    QZ_TRY(qz_h5_shape(h5, "recipe", &rank, shape, NULL));
    if (rank != 1 || !(*out = qz_arena_alloc(arena, shape[0] + 1))) return qz_arena_failed(arena);
    (*out)[shape[0]] = '\0';
    return qz_h5_read(h5, "recipe", QZ_H5_U8, *out, shape[0]);
}

static qz_status list_changes(qz_state_changes *out, qz_h5 *h5, const qz_state *s, qz_arena *arena)
{
    char text[QZ_STATE_TEXT], *recipe;
    *out = (qz_state_changes){qz_arena_strdup(arena, ""), qz_arena_strdup(arena, "")};
    if (!out->refused || !out->noted) return qz_arena_failed(arena);
    for (int i = 0; i < s->texts; i++) {
        const qz_state_text *t = &s->text[i];
        if (!t->noun) continue;
        if (qz_h5_read_text(h5, t->name, text, sizeof text) != QZ_OK) strcpy(text, "nothing");
        if (strcmp(text, t->value) != 0) QZ_TRY(qz_state_add_change(&out->refused, t->noun, text, t->value, arena));
    }
    if (!s->recipe) return QZ_OK;
    QZ_TRY(read_recipe(&recipe, h5, arena));
    return qz_state_compare_recipes(out, recipe, s->recipe, arena);
}

/* A line each. */
static void tell_noted(char *noted)
{
    for (char *line = strtok(noted, "\n"); line; line = strtok(NULL, "\n")) qz_warn("%s", line);
}

static qz_status check_run(qz_h5 *h5, const char *path, const qz_state *s)
{
    qz_arena *arena;
    qz_state_changes changes;
    QZ_TRY(qz_arena_new(&arena, "state file"));
    qz_status status = list_changes(&changes, h5, s, arena);
    if (status == QZ_OK && *changes.refused)
        status = QZ_FAIL(QZ_ARG, "%s: is the state of another run:%s", path, changes.refused);
    if (status == QZ_OK) tell_noted(changes.noted);
    qz_arena_free(arena);
    return status;
}

/* The same shape and kind of number, so that what is read are the bits that were written. */
static qz_status check_tensor(qz_h5 *h5, const char *path, const qz_state_tensor *t)
{
    int rank;
    uint64_t shape[8];
    bool integer;
    QZ_TRY(qz_h5_shape(h5, t->name, &rank, shape, &integer));
    const qz_h5_type type = stored_type(t->view.dtype);
    bool same = rank == t->view.ndim && integer == (type != QZ_H5_F16 && type != QZ_H5_F32 && type != QZ_H5_F64);
    for (int i = 0; same && i < rank; i++) same = shape[i] == (uint64_t)t->view.shape[i];
    return same ? QZ_OK : QZ_FAIL(QZ_ARG, "%s: %s: has another shape or type than in this run", path, t->name);
}

static qz_status read_all(qz_h5 *h5, const char *path, const qz_state *s, int64_t *step)
{
    QZ_TRY(check_version(h5, path));
    QZ_TRY(check_run(h5, path, s));
    for (int i = 0; i < s->tensors; i++) QZ_TRY(check_tensor(h5, path, &s->tensor[i]));
    QZ_TRY(qz_h5_read_int(h5, "/", "step", step));
    for (int i = 0; i < s->integers; i++) QZ_TRY(qz_h5_read_int(h5, "/", s->integer[i].name, s->integer[i].value));
    for (int i = 0; i < s->numbers; i++) QZ_TRY(qz_h5_read_double(h5, "/", s->number[i].name, s->number[i].value));
    for (int i = 0; i < s->tensors; i++) {
        const qz_tensor *t = &s->tensor[i].view;
        QZ_TRY(qz_h5_read(h5, s->tensor[i].name, stored_type(t->dtype), t->data, (size_t)qz_tensor_count(t)));
    }
    return QZ_OK;
}

qz_status qz_state_read(int64_t *step, const char *path, const qz_state *s)
{
    qz_h5 *h5;
    QZ_TRY(check_seal(path));
    QZ_TRY(qz_h5_open(&h5, path));
    qz_status status = read_all(h5, path, s, step);
    qz_h5_abandon(h5); /* opened for reading: nothing is removed */
    return status;
}
