/* Declared tensors -> safetensors files, written in any order by any thread, the same bytes every time.
 *
 * Units go to files in the order in which they were declared, a new file being opened when the limit would be passed.
 * Inside a file the wider types come first, then by name, as the reference writer does: with a header padded to 8
 * bytes every tensor is then aligned to its own type, since the format allows no padding between tensors.
 * `__metadata__` says {"format": "pt"}, without which transformers refuses the file. The index is written last, so a
 * folder without it is not mistaken for a whole one.
 *
 * An interrupted run can go on: the layout depends on the declarations only, so the same declarations find the files of
 * the earlier run byte for byte where they would put them, and only the tensors' data differ. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/map.h"
#include "checkpoints/checkpoints.h"

enum { LENGTH_BYTES = 8 };

typedef struct entry {
    const char *name;
    qz_dtype dtype;
    int ndim;
    int64_t shape[QZ_MAX_DIMS];
    uint64_t bytes, offset; /* offset in the file */
    size_t unit, file;
    _Atomic uint64_t claimed, written; /* bytes: of parts handed over, and safely in the file */
    _Atomic bool touched;              /* a tensor without bytes is written too */
} entry;

typedef struct shard {
    char *name;
    uint64_t data, size; /* of tensors; of the file */
    qz_outfile *out;
} shard;

struct qz_shards {
    qz_arena *arena;
    const char *folder;
    uint64_t limit;
    entry *tensor;
    size_t count, room;
    size_t units;
    qz_strmap *names, *unit_names;
    shard *file;
    size_t files;
    bool ready; /* all headers are written, or found */
    bool keep;  /* unfinished files are for a later run */
};

qz_status qz_shards_new(qz_shards **out, const char *folder, uint64_t limit)
{
    *out = NULL;
    qz_shards *s = qz_calloc(1, sizeof *s);
    if (!s) return QZ_FAIL(QZ_MEMORY, "%s: no memory for the table of tensors", folder);
    s->limit = limit ? limit : UINT64_MAX;
    qz_status status = qz_arena_new(&s->arena, "shards");
    if (status == QZ_OK) status = qz_strmap_new(&s->names, 256);
    if (status == QZ_OK) status = qz_strmap_new(&s->unit_names, 256);
    if (status == QZ_OK && !(s->folder = qz_arena_strdup(s->arena, folder))) status = qz_arena_failed(s->arena);
    if (status != QZ_OK) {
        qz_shards_free(s);
        return status;
    }
    *out = s;
    return QZ_OK;
}

void qz_shards_free(qz_shards *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->files; i++) qz_outfile_abandon(s->file[i].out);
    qz_strmap_free(s->names);
    qz_strmap_free(s->unit_names);
    qz_arena_free(s->arena);
    qz_free(s->tensor);
    qz_free(s);
}

/* ---- declaring ---- */

static qz_status grow(qz_shards *s)
{
    if (s->count < s->room) return QZ_OK;
    size_t room = s->room ? 2 * s->room : 256;
    entry *more = qz_realloc(s->tensor, qz_array_bytes(room, sizeof *more));
    if (!more) return QZ_FAIL(QZ_MEMORY, "no memory for the table of %zu tensors", room);
    s->tensor = more;
    s->room = room;
    return QZ_OK;
}

static qz_status count_bytes(entry *e)
{
    uint64_t count = 1;
    for (int i = 0; i < e->ndim; i++)
        if (e->shape[i] < 0 || __builtin_mul_overflow(count, (uint64_t)e->shape[i], &count))
            return QZ_FAIL(QZ_SHAPE, "tensor \"%s\": dimension %d is %lld, or the product overflows", e->name, i,
                           (long long)e->shape[i]);
    QZ_TRY_CTX(qz_dtype_bytes(e->dtype, count, &e->bytes), "tensor \"%s\"", e->name);
    return QZ_OK;
}

static qz_status number_unit(qz_shards *s, entry *e, const char *unit)
{
    int64_t known = qz_strmap_get(s->unit_names, unit, strlen(unit));
    if (known >= 0) {
        e->unit = (size_t)known;
        return QZ_OK;
    }
    char *copy = qz_arena_strdup(s->arena, unit);
    if (!copy) return qz_arena_failed(s->arena);
    e->unit = s->units++;
    return qz_strmap_add(s->unit_names, copy, strlen(copy), (int64_t)e->unit, NULL);
}

qz_status qz_shards_declare(qz_shards *s, const char *unit, const char *name, qz_dtype t, int ndim,
                            const int64_t *shape)
{
    if (s->file) return QZ_FAIL(QZ_ARG, "tensor \"%s\" is declared after writing began", name);
    if (ndim < 0 || ndim > QZ_MAX_DIMS)
        return QZ_FAIL(QZ_ARG, "tensor \"%s\": %d dimensions; at most %d are written", name, ndim, QZ_MAX_DIMS);
    QZ_TRY(grow(s));
    entry *e = &s->tensor[s->count];
    *e = (entry){.dtype = t, .ndim = ndim};
    if (!(e->name = qz_arena_strdup(s->arena, name))) return qz_arena_failed(s->arena);
    for (int i = 0; i < ndim; i++) e->shape[i] = shape[i];
    QZ_TRY(count_bytes(e));
    QZ_TRY(number_unit(s, e, unit));
    bool twice = false;
    QZ_TRY(qz_strmap_add(s->names, e->name, strlen(e->name), (int64_t)s->count, &twice));
    if (twice) return QZ_FAIL(QZ_ARG, "tensor \"%s\" is declared twice", name);
    s->count++;
    return QZ_OK;
}

/* ---- laying out ---- */

/* Units -> files, in order; sets entry.file and the number of files. */
static qz_status assign_files(qz_shards *s)
{
    size_t n = s->units;
    uint64_t *bytes = qz_arena_calloc(s->arena, qz_array_bytes(n, sizeof *bytes));
    size_t *file = qz_arena_calloc(s->arena, qz_array_bytes(n, sizeof *file));
    if (!bytes || !file) return qz_arena_failed(s->arena);
    for (size_t i = 0; i < s->count; i++) bytes[s->tensor[i].unit] += s->tensor[i].bytes;
    uint64_t used = 0;
    size_t last = 0;
    for (size_t u = 0; u < n; u++) {
        if (used > 0 && (used > s->limit || bytes[u] > s->limit - used)) {
            last++;
            used = 0;
        }
        file[u] = last;
        used += bytes[u];
    }
    for (size_t i = 0; i < s->count; i++) s->tensor[i].file = file[s->tensor[i].unit];
    s->files = last + 1;
    return QZ_OK;
}

/* File, then the wider type, then the name. */
static int by_place(const void *a, const void *b)
{
    const entry *x = *(const entry *const *)a, *y = *(const entry *const *)b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    int wide = qz_dtype_bits(y->dtype) - qz_dtype_bits(x->dtype);
    return wide ? wide : strcmp(x->name, y->name);
}

/* The header's JSON of one file, whose tensors are order[0 .. n); offsets in entries count from the data. */
static qz_status header_text(const char **out, size_t *size, qz_json_writer *w, entry *const *order, size_t n)
{
    qz_json_begin_object(w, NULL);
    qz_json_begin_object(w, "__metadata__");
    qz_json_put_string(w, "format", "pt");
    qz_json_end(w);
    for (size_t i = 0; i < n; i++) {
        const entry *e = order[i];
        qz_json_begin_object(w, e->name);
        qz_json_put_string(w, "dtype", qz_dtype_name(e->dtype));
        qz_json_begin_array(w, "shape");
        for (int d = 0; d < e->ndim; d++) qz_json_put_int(w, NULL, e->shape[d]);
        qz_json_end(w);
        qz_json_begin_array(w, "data_offsets");
        qz_json_put_int(w, NULL, (int64_t)e->offset);
        qz_json_put_int(w, NULL, (int64_t)(e->offset + e->bytes));
        qz_json_end(w);
        qz_json_end(w);
    }
    qz_json_end(w);
    return qz_json_writer_finish(w, out, size);
}

static qz_status create_file(const qz_shards *s, shard *f, const char *path, const char *header, size_t size)
{
    QZ_TRY(qz_outfile_open(&f->out, path, f->size));
    if (s->keep) qz_outfile_keep(f->out);
    return qz_outfile_write(f->out, 0, header, size);
}

/* The file of an earlier run is ours when its size and its header are what this layout gives. */
static qz_status adopt_file(shard *f, const char *path, const char *header, size_t size, qz_arena *arena)
{
    qz_arena_mark mark = qz_arena_save(arena);
    char *found = qz_arena_alloc(arena, size);
    if (!found) return qz_arena_failed(arena);
    QZ_TRY_CTX(qz_outfile_adopt(&f->out, path, f->size), "this run's layout does not fit what is there");
    QZ_TRY(qz_outfile_read(f->out, 0, found, size));
    size_t same = 0;
    while (same < size && found[same] == header[same]) same++;
    if (same < size)
        return QZ_FAIL(
            QZ_FORMAT, "%s.tmp: its header differs from this run's layout at byte %zu, where \"%.*s\" belongs", path,
            same, (int)(size - same < 60 ? size - same : 60), header + (same < LENGTH_BYTES ? LENGTH_BYTES : same));
    qz_arena_restore(arena, mark);
    return QZ_OK;
}

/* Length, text, spaces up to a multiple of 8; in `arena`. */
static char *header_bytes(const char *text, size_t size, size_t padded, qz_arena *arena)
{
    char *out = qz_arena_alloc(arena, LENGTH_BYTES + padded);
    if (!out) return NULL;
    for (int i = 0; i < LENGTH_BYTES; i++) out[i] = (char)(uint8_t)((uint64_t)padded >> (8 * i));
    memcpy(out + LENGTH_BYTES, text, size);
    memset(out + LENGTH_BYTES + size, ' ', padded - size);
    return out;
}

/* The earlier run may have been interrupted between finishing this file and finishing all. */
static qz_status unfinish(const qz_shards *s, const char *path)
{
    qz_arena_mark mark = qz_arena_save(s->arena);
    char *temporary = qz_arena_printf(s->arena, "%s.tmp", path);
    if (!temporary) return qz_arena_failed(s->arena);
    if (qz_path_exists(path) && !qz_path_exists(temporary)) QZ_TRY(qz_path_rename(path, temporary));
    qz_arena_restore(s->arena, mark);
    return QZ_OK;
}

static qz_status open_file(qz_shards *s, shard *f, const char *text, size_t size, size_t padded, bool adopt)
{
    qz_arena_mark mark = qz_arena_save(s->arena);
    char *path = qz_path_join(s->arena, s->folder, f->name);
    char *header = header_bytes(text, size, padded, s->arena);
    if (!path || !header) return qz_arena_failed(s->arena);
    f->size = LENGTH_BYTES + padded + f->data;
    if (adopt) QZ_TRY(unfinish(s, path));
    QZ_TRY(adopt ? adopt_file(f, path, header, LENGTH_BYTES + padded, s->arena)
                 : create_file(s, f, path, header, LENGTH_BYTES + padded));
    qz_arena_restore(s->arena, mark);
    return QZ_OK;
}

static qz_status begin_file(qz_shards *s, shard *f, entry *const *order, size_t n, bool adopt)
{
    for (size_t i = 0; i < n; i++) {
        order[i]->offset = f->data;
        f->data += order[i]->bytes;
    }
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    const char *text;
    size_t size = 0;
    qz_status status = header_text(&text, &size, w, order, n);
    if (status == QZ_OK) {
        size_t padded = (size + 7) / 8 * 8;
        for (size_t i = 0; i < n; i++) order[i]->offset += LENGTH_BYTES + padded;
        status = open_file(s, f, text, size, padded, adopt);
    }
    qz_json_writer_free(w);
    return status;
}

static entry **sorted(qz_shards *s)
{
    entry **order = qz_arena_array(s->arena, entry *, s->count);
    for (size_t i = 0; order && i < s->count; i++) order[i] = &s->tensor[i];
    if (order) qsort(order, s->count, sizeof *order, by_place);
    return order;
}

static char *file_name(qz_shards *s, size_t i)
{
    if (s->files == 1) return qz_arena_strdup(s->arena, "model.safetensors");
    return qz_arena_printf(s->arena, "model-%05zu-of-%05zu.safetensors", i + 1, s->files);
}

static qz_status begin(qz_shards *s, bool adopt)
{
    if (s->file) return QZ_FAIL(QZ_ARG, "%s: writing has begun already", s->folder);
    QZ_TRY(assign_files(s));
    size_t files = s->files;
    s->file = qz_arena_calloc(s->arena, qz_array_bytes(files, sizeof *s->file));
    entry **order = sorted(s);
    if (!s->file || !order) {
        s->files = 0;
        return qz_arena_failed(s->arena);
    }
    for (size_t i = 0, first = 0; i < files; i++) {
        size_t n = 0;
        while (first + n < s->count && order[first + n]->file == i) n++;
        if (!(s->file[i].name = file_name(s, i))) return qz_arena_failed(s->arena);
        QZ_TRY(begin_file(s, &s->file[i], order + first, n, adopt));
        first += n;
    }
    s->ready = true;
    return QZ_OK;
}

qz_status qz_shards_begin(qz_shards *s)
{
    return begin(s, false);
}

qz_status qz_shards_resume(qz_shards *s)
{
    s->keep = true;
    return begin(s, true);
}

qz_status qz_shards_mark(qz_shards *s, const char *name)
{
    int64_t i = qz_strmap_get(s->names, name, strlen(name));
    if (i < 0 || !s->ready) return QZ_FAIL(QZ_ARG, "tensor \"%s\" is said to be written but was not declared", name);
    entry *e = &s->tensor[i];
    if (atomic_exchange(&e->touched, true)) return QZ_FAIL(QZ_ARG, "tensor \"%s\" is written twice", name);
    atomic_store(&e->claimed, e->bytes);
    atomic_store(&e->written, e->bytes);
    return QZ_OK;
}

bool qz_shards_has(const qz_shards *s, const char *name)
{
    return qz_strmap_get(s->names, name, strlen(name)) >= 0;
}

void qz_shards_keep(qz_shards *s)
{
    s->keep = true;
    for (size_t i = 0; i < s->files; i++)
        if (s->file[i].out) qz_outfile_keep(s->file[i].out);
}

qz_status qz_shards_sync(qz_shards *s)
{
    for (size_t i = 0; i < s->files; i++)
        if (s->file[i].out) QZ_TRY(qz_outfile_sync(s->file[i].out));
    return QZ_OK;
}

/* ---- writing ---- */

qz_status qz_shards_write_part(qz_shards *s, const char *name, uint64_t offset, const void *data, size_t bytes)
{
    int64_t i = qz_strmap_get(s->names, name, strlen(name));
    if (i < 0 || !s->ready) return QZ_FAIL(QZ_ARG, "tensor \"%s\" is written but was not declared before", name);
    entry *e = &s->tensor[i];
    if (offset > e->bytes || bytes > e->bytes - offset)
        return QZ_FAIL(QZ_SHAPE, "tensor \"%s\": bytes up to %llu are written, but its shape and type take %llu", name,
                       (unsigned long long)(offset + bytes), (unsigned long long)e->bytes);
    bool again = atomic_exchange(&e->touched, true) && e->bytes == 0;
    if (again || atomic_fetch_add(&e->claimed, bytes) + bytes > e->bytes)
        return QZ_FAIL(QZ_ARG, "tensor \"%s\" is written twice", name);
    QZ_TRY_CTX(qz_outfile_write(s->file[e->file].out, e->offset + offset, data, bytes), "tensor \"%s\"", name);
    atomic_fetch_add(&e->written, bytes);
    return QZ_OK;
}

qz_status qz_shards_write(qz_shards *s, const char *name, const void *data, size_t bytes)
{
    int64_t i = qz_strmap_get(s->names, name, strlen(name));
    if (i >= 0 && bytes != s->tensor[i].bytes)
        return QZ_FAIL(QZ_SHAPE, "tensor \"%s\": %zu bytes are written, but its shape and type take %llu", name, bytes,
                       (unsigned long long)s->tensor[i].bytes);
    return qz_shards_write_part(s, name, 0, data, bytes);
}

static qz_status check_complete(qz_shards *s)
{
    if (!s->ready) return QZ_FAIL(QZ_ARG, "%s: writing has not begun", s->folder);
    for (size_t i = 0; i < s->count; i++) {
        entry *e = &s->tensor[i];
        if (!atomic_load(&e->touched) || atomic_load(&e->written) != e->bytes || atomic_load(&e->claimed) != e->bytes)
            return QZ_FAIL(QZ_ARG, "%s: tensor \"%s\" was declared but not written exactly once", s->folder, e->name);
    }
    return QZ_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const entry *const *)a)->name, (*(const entry *const *)b)->name);
}

static qz_status index_text(const char **out, size_t *size, qz_json_writer *w, const qz_shards *s, entry *const *order)
{
    uint64_t total = 0;
    for (size_t i = 0; i < s->count; i++) total += order[i]->bytes;
    qz_json_begin_object(w, NULL);
    qz_json_begin_object(w, "metadata");
    qz_json_put_int(w, "total_size", (int64_t)total);
    qz_json_end(w);
    qz_json_begin_object(w, "weight_map");
    for (size_t i = 0; i < s->count; i++) qz_json_put_string(w, order[i]->name, s->file[order[i]->file].name);
    qz_json_end(w);
    qz_json_end(w);
    return qz_json_writer_finish(w, out, size);
}

static qz_status write_index(qz_shards *s)
{
    char *path = qz_path_join(s->arena, s->folder, "model.safetensors.index.json");
    entry **order = sorted(s);
    if (!path || !order) return qz_arena_failed(s->arena);
    qsort(order, s->count, sizeof *order, by_name);
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    const char *text;
    size_t size;
    qz_status status = index_text(&text, &size, w, s, order);
    if (status == QZ_OK) status = qz_file_write(path, text, size);
    qz_json_writer_free(w);
    return status;
}

qz_status qz_shards_finish(qz_shards *s)
{
    QZ_TRY(check_complete(s));
    for (size_t i = 0; i < s->files; i++) {
        qz_outfile *out = s->file[i].out;
        s->file[i].out = NULL;
        QZ_TRY(qz_outfile_close(out));
    }
    return s->files > 1 ? write_index(s) : QZ_OK;
}

uint64_t qz_shards_bytes(const qz_shards *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->files; i++) sum += s->file[i].size;
    return sum;
}
