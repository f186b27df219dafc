/* See journal.h; journal_lines.h has the form of a line. Each ends with ,"end":"<XXH3 of the line so far>"}, which
 * tells a whole line from one that a crash left half on the disk, even when a file system made the file longer before
 * it wrote the data. */
#include "calib/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "calib/journal_lines.h"

enum { LIMIT = 1 << 30, END_SIZE = 42 /* ,"end":"32 digits"} */ };

struct qz_journal {
    qz_arena *arena;
    const char *path;
    int fd;
    const qz_journal_text *identity;
    qz_journal_layer *layer;
    size_t properties, layers;
};

static char *path_in(const char *folder, qz_arena *arena)
{
    return qz_path_join(arena, folder, QZ_JOURNAL_NAME);
}

bool qz_journal_is_there(const char *folder)
{
    qz_arena *arena;
    if (qz_arena_new(&arena, "journal") != QZ_OK) return false;
    char *path = path_in(folder, arena);
    bool there = path && qz_path_exists(path);
    qz_arena_free(arena);
    return there;
}

static qz_status journal_new(qz_journal **out, const char *folder)
{
    *out = NULL;
    qz_journal *j = qz_calloc(1, sizeof *j);
    if (!j) return QZ_FAIL(QZ_MEMORY, "out of memory: the journal");
    j->fd = -1;
    qz_status status = qz_arena_new(&j->arena, "journal");
    if (status == QZ_OK && !(j->path = path_in(folder, j->arena))) status = qz_arena_failed(j->arena);
    if (status != QZ_OK) {
        qz_journal_close(j);
        return status;
    }
    *out = j;
    return QZ_OK;
}

void qz_journal_close(qz_journal *j)
{
    if (!j) return;
    if (j->fd >= 0) close(j->fd);
    qz_arena_free(j->arena);
    qz_free(j);
}

/* ---- writing ---- */

/* The object's text with `,"end":"<fingerprint of what precedes>"}` in place of its last brace, and a newline. */
static qz_status sealed(char **out, size_t *size, qz_json_writer *w, qz_arena *arena)
{
    const char *text;
    size_t n;
    char print[QZ_HASH_TEXT];
    QZ_TRY(qz_json_writer_finish(w, &text, &n));
    qz_hash_bytes(print, text, n - 1);
    if (!(*out = qz_arena_printf(arena, "%.*s,\"end\":\"%s\"}\n", (int)(n - 1), text, print)))
        return qz_arena_failed(arena);
    *size = n - 1 + END_SIZE + 1;
    return QZ_OK;
}

static qz_status append(qz_journal *j, const char *text, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(j->fd, text + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return QZ_FAIL(QZ_IO, "%s: cannot be written: %s", j->path, strerror(n < 0 ? errno : ENOSPC));
        done += (size_t)n;
    }
    if (fdatasync(j->fd) != 0) return QZ_FAIL(QZ_IO, "%s: cannot be written: %s", j->path, strerror(errno));
    return QZ_OK;
}

static qz_status open_for_appending(qz_journal *j)
{
    j->fd = open(j->path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    return j->fd < 0 ? QZ_FAIL(QZ_IO, "%s: cannot be opened: %s", j->path, strerror(errno)) : QZ_OK;
}

static qz_status write_line(qz_journal *j, qz_json_writer *w, bool first)
{
    char *text = NULL;
    size_t size = 0;
    qz_arena_mark mark = qz_arena_save(j->arena);
    QZ_TRY(sealed(&text, &size, w, j->arena));
    QZ_TRY(first ? qz_file_write(j->path, text, size) : append(j, text, size));
    qz_arena_restore(j->arena, mark);
    return QZ_OK;
}

qz_status qz_journal_add(qz_journal *j, const qz_journal_layer *layer)
{
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_journal_put_layer(w, layer);
    qz_status status = write_line(j, w, false);
    qz_json_writer_free(w);
    return status;
}

qz_status qz_journal_create(qz_journal **out, const char *folder, const qz_journal_text *identity, size_t count)
{
    qz_journal *j;
    qz_json_writer *w;
    *out = NULL;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_journal_put_identity(w, identity, count);
    qz_status status = journal_new(&j, folder);
    if (status == QZ_OK) status = write_line(j, w, true);
    if (status == QZ_OK) status = open_for_appending(j);
    qz_json_writer_free(w);
    if (status != QZ_OK) {
        qz_journal_close(j);
        return status;
    }
    *out = j;
    return QZ_OK;
}

/* ---- reading ---- */

/* The line [text, text + size), without its newline, ends with the fingerprint of what precedes. */
static bool is_sealed(const char *text, size_t size)
{
    char want[END_SIZE + 1], print[QZ_HASH_TEXT];
    if (size <= END_SIZE) return false;
    qz_hash_bytes(print, text, size - END_SIZE);
    snprintf(want, sizeof want, ",\"end\":\"%s\"}", print);
    return memcmp(text + size - END_SIZE, want, END_SIZE) == 0;
}

static qz_status read_line(qz_journal *j, const char *line, size_t size, bool first)
{
    qz_json *doc = NULL;
    qz_status status = qz_json_parse(&doc, line, size);
    const qz_json_node *root = status == QZ_OK ? qz_json_root(doc) : NULL;
    if (status == QZ_OK && first) status = qz_journal_read_identity(&j->identity, &j->properties, root, j->arena);
    if (status == QZ_OK && !first) status = qz_journal_read_layer(&j->layer[j->layers++], root, j->arena);
    qz_json_close(doc);
    return status;
}

/* Reads line after line; *good becomes the length of the part that is whole. */
static qz_status read_lines(qz_journal *j, const char *text, size_t size, size_t *good)
{
    size_t number = 1;
    for (size_t at = 0; at < size; number++) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        bool last = !end || at + length + 1 == size;
        if (!end || !is_sealed(text + at, length)) {
            if (last && number > 1) return QZ_OK;
            return QZ_FAIL(QZ_FORMAT,
                           "%s: line %zu is damaged; run with --overwrite in place of --resume to start again", j->path,
                           number);
        }
        QZ_TRY_CTX(read_line(j, text + at, length, number == 1), "%s: line %zu", j->path, number);
        *good = at += length + 1;
    }
    return QZ_OK;
}

static size_t count_lines(const char *text, size_t size)
{
    size_t n = 1;
    for (size_t i = 0; i < size; i++) n += text[i] == '\n';
    return n;
}

static qz_status read_all(qz_journal *j, size_t *good)
{
    char *text;
    size_t size;
    QZ_TRY(qz_file_read(&text, &size, j->path, LIMIT, j->arena));
    j->layer = qz_arena_array(j->arena, qz_journal_layer, count_lines(text, size));
    if (!j->layer) return qz_arena_failed(j->arena);
    QZ_TRY(read_lines(j, text, size, good));
    if (j->properties == 0) return QZ_FAIL(QZ_FORMAT, "%s: is empty", j->path);
    return QZ_OK;
}

/* Cuts off what a crash left behind the last whole line. */
static qz_status drop_tail(const qz_journal *j, size_t good)
{
    if (ftruncate(j->fd, (off_t)good) != 0 || fdatasync(j->fd) != 0)
        return QZ_FAIL(QZ_IO, "%s: cannot be written: %s", j->path, strerror(errno));
    return QZ_OK;
}

qz_status qz_journal_open(qz_journal **out, const char *folder)
{
    qz_journal *j;
    size_t good = 0;
    *out = NULL;
    QZ_TRY(journal_new(&j, folder));
    qz_status status = read_all(j, &good);
    if (status == QZ_OK) status = open_for_appending(j);
    if (status == QZ_OK) status = drop_tail(j, good);
    if (status != QZ_OK) {
        qz_journal_close(j);
        return status;
    }
    *out = j;
    return QZ_OK;
}

/* ---- what was read ---- */

static const char *value_of(const qz_journal_text *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0) return list[i].value;
    return NULL;
}

static qz_status add_change(char **text, const char *name, const char *then, const char *now, qz_arena *arena)
{
    *text = qz_arena_printf(arena, "%s%sthe %s changed: " QZ_JOURNAL_NAME " says %s, this run %s", *text,
                            **text ? "\n" : "", name, then ? then : "nothing", now ? now : "nothing");
    return *text ? QZ_OK : qz_arena_failed(arena);
}

static qz_status list_changes(char **text, const qz_journal *j, const qz_journal_text *identity, size_t count,
                              qz_arena *arena)
{
    if (!(*text = qz_arena_strdup(arena, ""))) return qz_arena_failed(arena);
    const char *format = value_of(j->identity, j->properties, "format");
    if (!format || strcmp(format, QZ_JOURNAL_FORMAT) != 0)
        QZ_TRY(add_change(text, "journal's format", format, QZ_JOURNAL_FORMAT, arena));
    for (size_t i = 0; i < count; i++) {
        const char *then = value_of(j->identity, j->properties, identity[i].name);
        if (!then || strcmp(then, identity[i].value) != 0)
            QZ_TRY(add_change(text, identity[i].name, then, identity[i].value, arena));
    }
    for (size_t i = 0; i < j->properties; i++) {
        const qz_journal_text *t = &j->identity[i];
        if (strcmp(t->name, "format") != 0 && !value_of(identity, count, t->name))
            QZ_TRY(add_change(text, t->name, t->value, NULL, arena));
    }
    return QZ_OK;
}

qz_status qz_journal_compare(const qz_journal *j, const qz_journal_text *identity, size_t count)
{
    qz_arena *arena;
    char *text;
    QZ_TRY(qz_arena_new(&arena, "journal"));
    qz_status status = list_changes(&text, j, identity, count, arena);
    if (status == QZ_OK && *text)
        status = QZ_FAIL(QZ_ARG, "%s\nrun with --overwrite in place of --resume to start again", text);
    qz_arena_free(arena);
    return status;
}

size_t qz_journal_layers(const qz_journal *j)
{
    return j->layers;
}

const qz_journal_layer *qz_journal_layer_at(const qz_journal *j, size_t i)
{
    return i < j->layers ? &j->layer[i] : NULL;
}

const double *qz_journal_number_of(const qz_journal_layer *l, const char *name)
{
    for (size_t i = 0; i < l->numbers; i++)
        if (strcmp(l->number[i].name, name) == 0) return &l->number[i].value;
    return NULL;
}

void qz_journal_report(const qz_journal_layer *l, qz_report *report)
{
    for (size_t i = 0; i < l->rows; i++) {
        const qz_report_row *r = &l->row[i];
        if (r->text)
            qz_report_text(report, r->section, r->where, r->what, r->text);
        else
            qz_report_add(report, r->section, r->where, r->what, r->value, r->unit);
    }
    for (size_t i = 0; i < l->notes; i++) qz_report_note(report, l->note[i].severity, "%s", l->note[i].text);
}

qz_journal_mark qz_journal_mark_of(const qz_report *report)
{
    return (qz_journal_mark){qz_report_count(report), qz_report_notes(report)};
}

qz_status qz_journal_since(qz_journal_layer *l, const qz_report *report, qz_journal_mark mark, qz_arena *arena)
{
    size_t rows = qz_report_count(report) - mark.rows, notes = qz_report_notes(report) - mark.notes;
    qz_report_row *row = qz_arena_array(arena, qz_report_row, rows);
    qz_journal_note *note = qz_arena_array(arena, qz_journal_note, notes);
    if (!row || !note) return qz_arena_failed(arena);
    for (size_t i = 0; i < rows; i++) row[i] = *qz_report_row_at(report, mark.rows + i);
    for (size_t i = 0; i < notes; i++) note[i].text = qz_report_note_at(report, mark.notes + i, &note[i].severity);
    l->row = row;
    l->rows = rows;
    l->note = note;
    l->notes = notes;
    return QZ_OK;
}

size_t qz_journal_peek(const char *folder)
{
    qz_journal *j;
    size_t good = 0, layers = 0;
    if (journal_new(&j, folder) != QZ_OK) return 0;
    if (read_all(j, &good) == QZ_OK) layers = j->layers;
    qz_journal_close(j);
    return layers;
}
