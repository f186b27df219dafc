/* A file -> the ids of its documents, one after the other, handed on as they come.
 *
 * A .txt file is one document; line ends are read as "\n" whatever they are, as Python's text files do, because the
 * peers that samples must equal read text that way. A .jsonl file has a document a line (documents_lines.c). An HDF5
 * file holds the ids of one in its dataset "ids". */
#include <string.h>

#include "base/h5.h"
#include "base/utf8.h"
#include "data/data_impl.h"
#include "data/tokenizer_impl.h"

enum { BLOCK = 1 << 16 }; /* ids that are read from an HDF5 file together */

static qz_status need_tokenizer(const char *path, const qz_tokenizer *tokenizer)
{
    if (tokenizer) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s: text needs a tokenizer, and the model has no tokenizer.json: give ids in an HDF5 file",
                   path);
}

static qz_status check_utf8(const char *path, const char *text, size_t size)
{
    size_t good = qz_utf8_check(text, size);
    if (good == size) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s: not UTF-8 text: byte 0x%02x at offset %zu; a binary file, or another encoding", path,
                   (unsigned)(uint8_t)text[good], good);
}

/* ---- .txt ---- */

/* "\r\n" and "\r" become "\n". */
static qz_status newlines_to(qz_spill *out, const char *text, size_t size)
{
    for (const char *end = text + size; text < end;) {
        const char *mark = memchr(text, '\r', (size_t)(end - text));
        QZ_TRY(qz_spill_add(out, text, (size_t)((mark ? mark : end) - text)));
        if (!mark) break;
        QZ_TRY(qz_spill_add(out, "\n", 1));
        text = mark + 1;
        if (text < end && *text == '\n') text++;
    }
    return QZ_OK;
}

static qz_status newlines_on_disk(qz_map *out, const char *text, size_t size, const char *folder)
{
    qz_spill *file;
    QZ_TRY(qz_spill_open(&file, folder));
    qz_status status = newlines_to(file, text, size);
    if (status == QZ_OK) status = qz_spill_map(out, file);
    qz_spill_close(file);
    return status;
}

static size_t newlines_in_memory(char *out, const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n' && i > 0 && text[i - 1] == '\r') continue;
        out[n++] = text[i] == '\r' ? '\n' : text[i];
    }
    return n;
}

static qz_status take_all(void *self, const int32_t *ids, size_t count)
{
    const qz_document_taker *taker = self;
    return taker->take(taker->self, ids, count, true);
}

static qz_status pass(void *self, uint64_t done, uint64_t all)
{
    const qz_document_taker *taker = self;
    return taker->passed ? taker->passed(taker->self, done, all) : QZ_OK;
}

static qz_status encode_document(const char *path, const char *text, size_t size, const qz_tokenizer *tokenizer,
                                 size_t limit, const qz_document_taker *taker)
{
    qz_document_taker copy = *taker;
    qz_ids_taker ids = {.self = &copy, .take = take_all, .passed = pass, .folder = taker->folder};
    if (taker->begin) QZ_TRY(taker->begin(taker->self, false));
    QZ_TRY_CTX(qz_tokenizer_encode_to(tokenizer, text, size, limit, &ids), "%s", path);
    return taker->end ? taker->end(taker->self) : QZ_OK;
}

static qz_status read_text(const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer, size_t limit,
                           const qz_document_taker *taker)
{
    const char *text = (const char *)map->data;
    QZ_TRY(check_utf8(rule->path, text, map->size));
    if (!memchr(text, '\r', map->size)) return encode_document(rule->path, text, map->size, tokenizer, limit, taker);
    qz_map spilled = {0};
    char *copy = taker->folder ? NULL : qz_malloc(map->size);
    qz_status status = QZ_OK;
    if (taker->folder)
        status = newlines_on_disk(&spilled, text, map->size, taker->folder);
    else if (copy)
        spilled = (qz_map){(uint8_t *)copy, newlines_in_memory(copy, text, map->size)};
    else
        status = QZ_FAIL(QZ_MEMORY, "out of memory: %s wanted %zu bytes", rule->path, map->size);
    if (status == QZ_OK)
        status = encode_document(rule->path, (const char *)spilled.data, spilled.size, tokenizer, limit, taker);
    if (taker->folder) qz_map_close(&spilled);
    qz_free(copy);
    return status;
}

/* ---- HDF5 ---- */

static qz_status read_block(int32_t *out, qz_h5 *file, const char *path, uint64_t start, uint64_t count, int64_t *wide)
{
    QZ_TRY(qz_h5_read_part(file, "ids", QZ_H5_I64, wide, 1, &start, &count));
    for (uint64_t i = 0; i < count; i++) {
        if (wide[i] < 0 || wide[i] > INT32_MAX)
            return QZ_FAIL(QZ_FORMAT, "%s: ids[%llu] is %lld, which is no token id", path,
                           (unsigned long long)(start + i), (long long)wide[i]);
        out[i] = (int32_t)wide[i];
    }
    return QZ_OK;
}

static qz_status read_blocks(qz_h5 *file, const char *path, uint64_t count, const qz_document_taker *taker,
                             qz_arena *arena)
{
    int64_t *wide = qz_arena_array(arena, int64_t, BLOCK);
    int32_t *ids = qz_arena_array(arena, int32_t, BLOCK);
    if (!wide || !ids) return qz_arena_failed(arena);
    if (taker->begin) QZ_TRY(taker->begin(taker->self, false));
    for (uint64_t start = 0, n; start < count; start += n) {
        n = count - start < BLOCK ? count - start : BLOCK;
        QZ_TRY(read_block(ids, file, path, start, n, wide));
        QZ_TRY(taker->take(taker->self, ids, (size_t)n, true));
        if (taker->passed) QZ_TRY(taker->passed(taker->self, start + n, count));
    }
    return taker->end ? taker->end(taker->self) : QZ_OK;
}

static qz_status read_dataset(qz_h5 *file, const char *path, const qz_document_taker *taker)
{
    int rank;
    uint64_t shape[8];
    bool integer;
    qz_arena *arena;
    if (!qz_h5_has(file, "ids"))
        return QZ_FAIL(QZ_FORMAT, "%s: there is no dataset \"ids\"; token ids are expected there", path);
    QZ_TRY(qz_h5_shape(file, "ids", &rank, shape, &integer));
    if (rank != 1 || !integer)
        return QZ_FAIL(QZ_FORMAT, "%s: dataset \"ids\" has rank %d and %s values, expected one row of integers", path,
                       rank, integer ? "integer" : "other");
    QZ_TRY(qz_arena_new(&arena, "ids"));
    qz_status status = read_blocks(file, path, shape[0], taker, arena);
    qz_arena_free(arena);
    return status;
}

static qz_status read_h5(const char *path, const qz_document_taker *taker)
{
    qz_h5 *file;
    QZ_TRY(qz_h5_open(&file, path));
    qz_status status = read_dataset(file, path, taker);
    if (status != QZ_OK) return qz_h5_abandon(file), status;
    return qz_h5_close(file);
}

/* ---- by suffix ---- */

static bool has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && !strcmp(path + n - m, suffix);
}

bool qz_data_has_lines(const char *path)
{
    return has_suffix(path, ".jsonl");
}

static qz_status read_mapped(const qz_windows_rule *rule, const qz_map *map, const qz_tokenizer *tokenizer,
                             size_t limit, const qz_document_taker *taker)
{
    if (map->size == 0) return QZ_FAIL(QZ_FORMAT, "%s: the file is empty; text is expected", rule->path);
    if (has_suffix(rule->path, ".txt")) return read_text(rule, map, tokenizer, limit, taker);
    QZ_TRY(check_utf8(rule->path, (const char *)map->data, map->size));
    return qz_lines_visit(rule, map, tokenizer, limit, taker);
}

qz_status qz_documents_visit(const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t limit,
                             const qz_document_taker *taker)
{
    const char *path = rule->path;
    qz_map map;
    if (has_suffix(path, ".h5") || has_suffix(path, ".hdf5")) return read_h5(path, taker);
    if (!has_suffix(path, ".txt") && !qz_data_has_lines(path))
        return QZ_FAIL(QZ_ARG, "%s: cannot tell what is in it; known suffixes: .txt, .jsonl, .h5, .hdf5", path);
    QZ_TRY(need_tokenizer(path, tokenizer));
    QZ_TRY(qz_map_open(&map, path));
    qz_status status = read_mapped(rule, &map, tokenizer, limit, taker);
    qz_map_close(&map);
    return status;
}

/* ---- all in memory ---- */

static qz_status collect(void *self, const int32_t *ids, size_t count, bool counts)
{
    (void)counts;
    return qz_text_add(self, (const char *)ids, count * sizeof *ids);
}

qz_status qz_documents_read(qz_ids *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t limit,
                            qz_arena *arena)
{
    qz_text bytes = {0};
    qz_document_taker taker = {.self = &bytes, .take = collect};
    qz_status status = qz_documents_visit(rule, tokenizer, limit, &taker);
    out->count = bytes.size / sizeof(int32_t);
    out->id = status == QZ_OK ? qz_arena_array(arena, int32_t, out->count) : NULL;
    if (status == QZ_OK && !out->id) status = qz_arena_failed(arena);
    if (status == QZ_OK && out->count) memcpy(out->id, bytes.data, bytes.size);
    qz_text_free(&bytes);
    return status;
}
