/* One safetensors file -> a table of named views into its map.
 *
 * Specification: https://github.com/huggingface/safetensors (README "Format", tensor.rs): a u64 header length, that
 * many bytes of JSON, then the data. Checked here, before any view is handed out: the header is an object of at most
 * 100 MB; names are unique; types are known; a tensor's bytes equal product(shape) * bits / 8; sorted by offset the
 * tensors lie back to back from 0 to the end of the file. So no later read can leave the map, and no byte of the file
 * belongs to two tensors or to none.
 * The bytes need not be aligned: older writers did not pad the header. Readers of views allow for that. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/map.h"
#include "checkpoints/checkpoints.h"

#define HEADER_LIMIT 100000000u /* of the reference reader */
#define LENGTH_BYTES 8u

struct qz_safetensors {
    qz_map map; /* size 0 when the bytes are the caller's */
    qz_arena *arena;
    qz_json *header; /* owns the names */
    const qz_json_node *metadata;
    qz_stored *tensor;
    size_t count;
    qz_strmap *index;
    const char *name; /* of the file, for messages */
    const uint8_t *bytes;
    size_t header_size, size;
};

/* What parsing needs to know of the file. */
typedef struct source {
    const uint8_t *data; /* after the header */
    uint64_t size;
    uint64_t start; /* of the data in the file */
    const char *name;
} source;

static qz_status header_length(uint64_t *out, const uint8_t *bytes, size_t size, const char *name)
{
    if (size < LENGTH_BYTES)
        return QZ_FAIL(QZ_FORMAT, "%s: %zu bytes are too few for a safetensors file; it is truncated or another format",
                       name, size);
    uint64_t n = 0;
    for (unsigned i = 0; i < LENGTH_BYTES; i++) n |= (uint64_t)bytes[i] << (8 * i);
    if (n > HEADER_LIMIT)
        return QZ_FAIL(QZ_FORMAT,
                       "%s: the header claims %llu bytes; at most %u are allowed: this is no safetensors file", name,
                       (unsigned long long)n, HEADER_LIMIT);
    if (n > size - LENGTH_BYTES)
        return QZ_FAIL(QZ_FORMAT, "%s: the header claims %llu bytes, but only %zu follow: the file is truncated", name,
                       (unsigned long long)n, size - LENGTH_BYTES);
    if (n == 0 || bytes[LENGTH_BYTES] != '{')
        return QZ_FAIL(QZ_FORMAT, "%s: the header does not begin with '{': this is no safetensors file", name);
    *out = n;
    return QZ_OK;
}

static qz_status parse_shape(qz_tensor *view, uint64_t *count, const qz_json_node *node)
{
    if (!qz_json_is(node, QZ_JSON_ARRAY))
        return QZ_FAIL(QZ_FORMAT, "shape: found %s, expected an array", qz_json_type_name(qz_json_type_of(node)));
    size_t dims = qz_json_count(node);
    if (dims > QZ_MAX_DIMS)
        return QZ_FAIL(QZ_UNSUPPORTED, "shape: %zu dimensions; at most %d are read", dims, QZ_MAX_DIMS);
    view->ndim = 0;
    for (const qz_json_node *d = qz_json_first(node); d; d = qz_json_next(d))
        QZ_TRY(qz_json_int(d, "shape", 0, (int64_t)1 << 52, &view->shape[view->ndim++]));
    int64_t stride = 1;
    for (int i = view->ndim - 1; i >= 0; i--) {
        view->stride[i] = stride;
        if (__builtin_mul_overflow(stride, view->shape[i] ? view->shape[i] : 1, &stride))
            return QZ_FAIL(QZ_SHAPE, "shape: the product of the dimensions overflows");
    }
    *count = (uint64_t)qz_tensor_count(view);
    return QZ_OK;
}

static qz_status parse_offsets(qz_stored *t, const qz_json_node *node, uint64_t data_size)
{
    if (!qz_json_is(node, QZ_JSON_ARRAY) || qz_json_count(node) != 2)
        return QZ_FAIL(QZ_FORMAT, "data_offsets: expected an array of two numbers");
    int64_t at[2];
    const qz_json_node *item = qz_json_first(node);
    QZ_TRY(qz_json_int(item, "data_offsets", 0, INT64_MAX, &at[0]));
    QZ_TRY(qz_json_int(qz_json_next(item), "data_offsets", 0, INT64_MAX, &at[1]));
    if (at[0] > at[1])
        return QZ_FAIL(QZ_FORMAT, "data_offsets: begin %lld lies after end %lld", (long long)at[0], (long long)at[1]);
    if ((uint64_t)at[1] > data_size)
        return QZ_FAIL(QZ_FORMAT,
                       "data_offsets: end %lld lies past the file's %llu bytes of data: the file is truncated",
                       (long long)at[1], (unsigned long long)data_size);
    t->offset = (uint64_t)at[0];
    t->bytes = (uint64_t)(at[1] - at[0]);
    return QZ_OK;
}

/* t->offset is still relative to the data. */
static qz_status parse_tensor(qz_stored *t, const qz_json_node *node, const source *src)
{
    if (!qz_json_is(node, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(node)));
    const char *type;
    QZ_TRY(qz_json_string(qz_json_get(node, "dtype"), "dtype", &type));
    t->view.dtype = qz_dtype_find(type);
    if (t->view.dtype == QZ_DTYPE_COUNT) return QZ_FAIL(QZ_FORMAT, "dtype: \"%s\" is not a type of safetensors", type);
    uint64_t count = 0, bytes = 0;
    QZ_TRY(parse_shape(&t->view, &count, qz_json_get(node, "shape")));
    QZ_TRY(qz_dtype_bytes(t->view.dtype, count, &bytes));
    QZ_TRY(parse_offsets(t, qz_json_get(node, "data_offsets"), src->size));
    if (t->bytes != bytes)
        return QZ_FAIL(QZ_FORMAT, "%llu elements of %s take %llu bytes, but data_offsets span %llu",
                       (unsigned long long)count, type, (unsigned long long)bytes, (unsigned long long)t->bytes);
    t->view.device = QZ_HOST;
    t->view.data = (void *)(uintptr_t)(src->data + t->offset);
    return QZ_OK;
}

static qz_status parse_metadata(const qz_json_node *node)
{
    if (!qz_json_is(node, QZ_JSON_OBJECT)) return QZ_FAIL(QZ_FORMAT, "__metadata__ is not an object");
    for (const qz_json_node *m = qz_json_first(node); m; m = qz_json_next(m))
        if (!qz_json_is(m, QZ_JSON_STRING))
            return QZ_FAIL(QZ_FORMAT, "__metadata__: \"%s\" is %s; only strings are allowed", qz_json_key(m),
                           qz_json_type_name(qz_json_type_of(m)));
    return QZ_OK;
}

static int by_offset(const void *a, const void *b)
{
    const qz_stored *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Back to back from 0 to the end; then offsets count from the start of the file. */
static qz_status check_layout(qz_safetensors *st, const source *src)
{
    qsort(st->tensor, st->count, sizeof *st->tensor, by_offset);
    uint64_t end = 0;
    for (size_t i = 0; i < st->count; i++) {
        qz_stored *t = &st->tensor[i];
        if (t->offset != end)
            return QZ_FAIL(QZ_FORMAT,
                           "%s: tensor \"%s\" begins at byte %llu of the data, but the one before ends at %llu: %s",
                           src->name, t->name, (unsigned long long)t->offset, (unsigned long long)end,
                           t->offset < end ? "they overlap" : "there is a gap");
        end += t->bytes;
        t->offset += src->start;
    }
    if (end != src->size)
        return QZ_FAIL(
            QZ_FORMAT,
            "%s: the tensors end at byte %llu of the data, but the file has %llu: it has grown or lost tensors",
            src->name, (unsigned long long)end, (unsigned long long)src->size);
    return QZ_OK;
}

static qz_status build_index(qz_safetensors *st)
{
    QZ_TRY(qz_strmap_new(&st->index, st->count));
    for (size_t i = 0; i < st->count; i++)
        QZ_TRY(qz_strmap_add(st->index, st->tensor[i].name, strlen(st->tensor[i].name), (int64_t)i, NULL));
    return QZ_OK;
}

static qz_status parse_tensors(qz_safetensors *st, const source *src)
{
    const qz_json_node *root = qz_json_root(st->header);
    st->tensor = qz_arena_calloc(st->arena, qz_array_bytes(qz_json_count(root), sizeof *st->tensor));
    if (!st->tensor) return qz_arena_failed(st->arena);
    for (const qz_json_node *m = qz_json_first(root); m; m = qz_json_next(m)) {
        const char *name = qz_json_key(m);
        if (strcmp(name, "__metadata__") == 0) {
            QZ_TRY_CTX(parse_metadata(m), "%s", src->name);
            st->metadata = m;
            continue;
        }
        qz_stored *t = &st->tensor[st->count++];
        t->name = name;
        t->file = qz_path_base(st->name);
        QZ_TRY_CTX(parse_tensor(t, m, src), "%s: tensor \"%s\"", src->name, name);
    }
    QZ_TRY(check_layout(st, src));
    return build_index(st);
}

static qz_status parse(qz_safetensors *st, const uint8_t *bytes, size_t size, const char *name)
{
    QZ_TRY(qz_arena_new(&st->arena, "safetensors header"));
    if (!(st->name = qz_arena_strdup(st->arena, name))) return qz_arena_failed(st->arena);
    uint64_t n = 0;
    QZ_TRY(header_length(&n, bytes, size, name));
    QZ_TRY_CTX(qz_json_parse(&st->header, (const char *)bytes + LENGTH_BYTES, (size_t)n), "%s: header", name);
    uint64_t start = LENGTH_BYTES + n;
    st->bytes = bytes;
    st->header_size = (size_t)n;
    st->size = size;
    source src = {.data = bytes + start, .size = size - start, .start = start, .name = name};
    return parse_tensors(st, &src);
}

qz_status qz_safetensors_parse(qz_safetensors **out, const void *data, size_t size, const char *name)
{
    *out = NULL;
    qz_safetensors *st = qz_calloc(1, sizeof *st);
    if (!st) return QZ_FAIL(QZ_MEMORY, "%s: no memory", name);
    qz_status status = parse(st, data, size, name);
    if (status != QZ_OK) {
        qz_safetensors_close(st);
        return status;
    }
    *out = st;
    return QZ_OK;
}

qz_status qz_safetensors_open(qz_safetensors **out, const char *path)
{
    *out = NULL;
    qz_map map;
    QZ_TRY(qz_map_open(&map, path));
    qz_status status = qz_safetensors_parse(out, map.data, map.size, path);
    if (status != QZ_OK) {
        qz_map_close(&map);
        return status;
    }
    (*out)->map = map;
    return QZ_OK;
}

void qz_safetensors_close(qz_safetensors *st)
{
    if (!st) return;
    qz_strmap_free(st->index);
    qz_json_close(st->header);
    qz_arena_free(st->arena);
    if (st->map.data) qz_map_close(&st->map);
    qz_free(st);
}

size_t qz_safetensors_count(const qz_safetensors *st)
{
    return st->count;
}

const qz_stored *qz_safetensors_at(const qz_safetensors *st, size_t i)
{
    return i < st->count ? &st->tensor[i] : NULL;
}

const qz_stored *qz_safetensors_find(const qz_safetensors *st, const char *name)
{
    int64_t i = qz_strmap_get(st->index, name, strlen(name));
    return i < 0 ? NULL : &st->tensor[i];
}

const char *qz_safetensors_metadata(const qz_safetensors *st, const char *key)
{
    const qz_json_node *value = qz_json_get(st->metadata, key);
    return value ? qz_json_text(value) : NULL;
}

const void *qz_safetensors_header(const qz_safetensors *st, size_t *size, uint64_t *file_size)
{
    *size = st->header_size;
    *file_size = st->size;
    return st->bytes + LENGTH_BYTES;
}
