/* A lock on the marker keeps two runs out of one folder; the system drops it when a process dies. */
#include "programs/output_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "calib/journal.h"
#include "train/state.h"

enum { LARGEST_REPORT = 64 << 20 };

struct qz_output {
    qz_arena *arena;
    const char *path, *work, *old;
    const char *made; /* topmost parent that did not exist; NULL: none */
    int marker;       /* locked; -1: none */
    bool keep;        /* a failure leaves the work for another run to go on */
};

typedef enum kind { NOTHING, FOLDER, OTHER, LINK } kind;

static kind kind_of(const char *path)
{
    struct stat s;
    if (lstat(path, &s) != 0) return NOTHING;
    if (S_ISLNK(s.st_mode)) return LINK;
    return S_ISDIR(s.st_mode) ? FOLDER : OTHER;
}

/* `path` without slashes at its end, and with a last part that is a name. */
static qz_status tidy(char out[PATH_MAX], const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    if (length == 0 || length > PATH_MAX - 64) return QZ_FAIL(QZ_ARG, "output: \"%.64s\" is no folder's name", path);
    snprintf(out, PATH_MAX, "%.*s", (int)length, path);
    const char *name = qz_path_base(out);
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return QZ_FAIL(QZ_ARG, "output: \"%.64s\" cannot be replaced; give a folder with a name of its own", path);
    return QZ_OK;
}

static qz_status is_empty(bool *out, const char *folder)
{
    qz_arena *arena;
    char **names;
    size_t count = 0;
    QZ_TRY(qz_arena_new(&arena, "output"));
    qz_status status = qz_folder_list(&names, &count, folder, arena);
    qz_arena_free(arena);
    *out = count == 0;
    return status;
}

/* Is a member of the folder's report.json this text? Anything that cannot be read counts as no. */
static bool report_says(const char *folder, const char *key, const char *value)
{
    qz_arena *arena;
    char *text, *path;
    size_t size;
    qz_json *doc = NULL;
    bool says = false;
    if (qz_arena_new(&arena, "output") != QZ_OK) return false;
    path = qz_path_join(arena, folder, "report.json");
    if (path && kind_of(path) == OTHER && qz_file_read(&text, &size, path, LARGEST_REPORT, arena) == QZ_OK &&
        qz_json_parse(&doc, text, size) == QZ_OK) {
        const qz_json_node *node = qz_json_get(qz_json_root(doc), key);
        says = qz_json_is(node, QZ_JSON_STRING) && strcmp(qz_json_text(node), value) == 0;
    }
    qz_json_close(doc);
    qz_arena_free(arena);
    return says;
}

static bool has_report(const char *folder)
{
    return report_says(folder, "program", "qcal") || report_says(folder, "program", "qat");
}

bool qz_output_is_finished(const char *path, const char *recipe_hash)
{
    char work[PATH_MAX];
    snprintf(work, sizeof work, "%s.partial", path);
    return kind_of(work) == NOTHING && has_report(path) && report_says(path, "recipe_hash", recipe_hash);
}

static qz_status check_final(const char *path, bool overwrite)
{
    bool empty;
    switch (kind_of(path)) {
    case NOTHING:
        return QZ_OK;
    case LINK:
        return QZ_FAIL(QZ_IO, "%s: is a symbolic link, which is not followed; give the folder itself", path);
    case OTHER:
        return QZ_FAIL(QZ_IO, "%s: exists and is no folder; choose another output", path);
    case FOLDER:
        break;
    }
    QZ_TRY(is_empty(&empty, path));
    if (empty) return QZ_OK;
    if (!overwrite)
        return QZ_FAIL(QZ_IO, "%s: exists and is not empty; choose another output%s", path,
                       has_report(path) ? ", or replace it with --overwrite" : "");
    if (has_report(path)) return QZ_OK;
    return QZ_FAIL(
        QZ_IO, "%s: was not written by qcal or qat (no report.json of ours), so --overwrite does not replace it", path);
}

static qz_status check_unused(const char *work)
{
    char marker[PATH_MAX + 32];
    snprintf(marker, sizeof marker, "%s/" QZ_OUTPUT_MARKER, work);
    if (kind_of(work) != FOLDER || kind_of(marker) != OTHER)
        return QZ_FAIL(QZ_IO, "%s: is in the way and not from a run of ours; move or remove it", work);
    int fd = open(marker, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return QZ_FAIL(QZ_IO, "%s: %s", marker, strerror(errno));
    bool busy = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    if (busy) return QZ_FAIL(QZ_IO, "%s: another run is working there; wait for it or choose another output", work);
    return QZ_OK;
}

bool qz_output_progress(qz_output_done *out, const char *work)
{
    int64_t step = 0;
    qz_error saved;
    char training[PATH_MAX + 32];
    snprintf(training, sizeof training, "%s/" QZ_OUTPUT_TRAINING, work);
    const size_t layers = qz_journal_peek(work);
    qz_error_save(&saved, QZ_OK);
    if (kind_of(training) != FOLDER || qz_state_newest(&step, training) != QZ_OK) step = 0;
    (void)qz_error_restore(&saved);
    out->text[0] = '\0';
    if (layers > 0) snprintf(out->text, sizeof out->text, "%zu finished layer%s", layers, layers == 1 ? "" : "s");
    if (step > 0) snprintf(out->text, sizeof out->text, "the state after step %lld", (long long)step);
    out->step = step;
    return layers > 0 || step > 0;
}

/* A folder named OUTPUT.partial is ours when it holds the marker as a regular file, or nothing at all. Hours of work
 * are not thrown away unasked. */
static qz_status check_work(const char *work, bool overwrite)
{
    bool empty = false;
    if (kind_of(work) == NOTHING) return QZ_OK;
    if (kind_of(work) == FOLDER) QZ_TRY(is_empty(&empty, work));
    if (empty) return QZ_OK;
    QZ_TRY(check_unused(work));
    qz_output_done done;
    if (overwrite || !qz_output_progress(&done, work)) return QZ_OK;
    return QZ_FAIL(QZ_IO, "%s: holds %s of an interrupted run; go on with --resume, or start again with --overwrite",
                   work, done.text);
}

/* A run that was killed as it put its work in place has no marker any more, but a report. */
static qz_status check_interrupted(const char *work, const char *path)
{
    if (kind_of(work) == NOTHING)
        return QZ_FAIL(QZ_IO, "%s: there is no such folder, so there is nothing to resume%s", work,
                       has_report(path) ? ": the run has finished" : "; run without --resume");
    char marker[PATH_MAX + 32];
    snprintf(marker, sizeof marker, "%s/" QZ_OUTPUT_MARKER, work);
    if (kind_of(work) == FOLDER && kind_of(marker) == NOTHING && has_report(work)) return QZ_OK;
    return check_unused(work);
}

/* The folder that has to hold OUTPUT, or its nearest ancestor that exists, must be one that can be written. */
static qz_status check_parent(const char *path)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    do {
        char *slash = strrchr(parent, '/');
        if (!slash)
            strcpy(parent, ".");
        else
            slash[slash == parent] = '\0';
    } while (kind_of(parent) == NOTHING);
    struct stat s;
    if (stat(parent, &s) != 0) return QZ_FAIL(QZ_IO, "%s: %s", parent, strerror(errno));
    if (!S_ISDIR(s.st_mode)) return QZ_FAIL(QZ_IO, "%s: %s is no folder", path, parent);
    if (access(parent, W_OK | X_OK) != 0)
        return QZ_FAIL(QZ_IO, "%s: cannot be made: %s: %s", path, parent, strerror(errno));
    return QZ_OK;
}

static qz_status check(const char *path, bool overwrite, bool resume)
{
    char tidied[PATH_MAX], work[PATH_MAX + 16];
    QZ_TRY(tidy(tidied, path));
    snprintf(work, sizeof work, "%s.partial", tidied);
    if (resume) QZ_TRY(check_interrupted(work, tidied));
    QZ_TRY(check_final(tidied, overwrite));
    if (!resume) QZ_TRY(check_work(work, overwrite));
    return check_parent(tidied);
}

qz_status qz_output_check(const char *path, bool overwrite)
{
    return check(path, overwrite, false);
}

qz_status qz_output_check_resume(const char *path, bool overwrite)
{
    return check(path, overwrite, true);
}

qz_status qz_output_check_program(const char *path, bool trains)
{
    char tidied[PATH_MAX], left[PATH_MAX + 64];
    QZ_TRY(tidy(tidied, path));
    snprintf(left, sizeof left, "%s.partial/%s", tidied, trains ? QZ_JOURNAL_NAME : QZ_OUTPUT_TRAINING);
    if (kind_of(left) == NOTHING) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "%s.partial: is from an interrupted run of %s; go on with that, or choose another output",
                   tidied, trains ? "qcal" : "qat train");
}

qz_status qz_output_keeps(const char *path, const char *input)
{
    char here[PATH_MAX], there[PATH_MAX];
    if (!input || !realpath(path, here) || !realpath(input, there)) return QZ_OK;
    size_t length = strlen(here);
    if (strncmp(here, there, length) != 0 || (there[length] != '\0' && there[length] != '/')) return QZ_OK;
    return QZ_FAIL(QZ_ARG, "output: %s would be replaced, but %s, which is read, lies there; choose another output",
                   path, input);
}

/* Topmost part of `folder` that does not exist, or NULL. */
static const char *first_missing(const char *folder, qz_arena *arena)
{
    char part[PATH_MAX];
    for (const char *c = folder; *c; c++) {
        if (c[1] != '/' && c[1] != '\0') continue;
        snprintf(part, sizeof part, "%.*s", (int)(c + 1 - folder), folder);
        if (kind_of(part) == NOTHING) return qz_arena_strdup(arena, part);
    }
    return NULL;
}

static qz_status make_parent(qz_output *o)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", o->path);
    char *slash = strrchr(parent, '/');
    if (!slash || slash == parent) return QZ_OK;
    *slash = '\0';
    o->made = first_missing(parent, o->arena);
    return qz_folder_make(parent);
}

/* Removes parents that we made, as long as nothing else is in them. */
static void remove_parents(const qz_output *o)
{
    char parent[PATH_MAX];
    if (!o->made) return;
    snprintf(parent, sizeof parent, "%s", o->path);
    for (char *slash; (slash = strrchr(parent, '/')) != NULL;) {
        *slash = '\0';
        if (strlen(parent) < strlen(o->made) || rmdir(parent) != 0) return;
    }
}

static qz_status lock_marker(qz_output *o, int flags)
{
    char *marker = qz_path_join(o->arena, o->work, QZ_OUTPUT_MARKER);
    if (!marker) return qz_arena_failed(o->arena);
    o->marker = open(marker, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0666);
    if (o->marker < 0) return QZ_FAIL(QZ_IO, "%s: %s", marker, strerror(errno));
    if (flock(o->marker, LOCK_EX | LOCK_NB) != 0) return QZ_FAIL(QZ_IO, "%s: %s", marker, strerror(errno));
    return QZ_OK;
}

static qz_status make_work(qz_output *o)
{
    if (kind_of(o->work) != NOTHING) QZ_TRY(qz_folder_remove(o->work));
    if (mkdir(o->work, 0777) != 0) return QZ_FAIL(QZ_IO, "%s: cannot be made: %s", o->work, strerror(errno));
    return lock_marker(o, O_EXCL);
}

static qz_status new_output(qz_output **out, const char *path)
{
    qz_arena *arena;
    char tidied[PATH_MAX];
    QZ_TRY(tidy(tidied, path));
    QZ_TRY(qz_arena_new(&arena, "output"));
    qz_output *o = qz_arena_calloc(arena, sizeof *o);
    if (o) {
        *o = (qz_output){.arena = arena, .marker = -1};
        o->path = qz_arena_strdup(arena, tidied);
        o->work = qz_arena_printf(arena, "%s.partial", tidied);
        o->old = qz_arena_printf(arena, "%s.old-%ld", tidied, (long)getpid());
    }
    if (!o || !o->path || !o->work || !o->old) {
        qz_status status = qz_arena_failed(arena);
        qz_arena_free(arena);
        return status;
    }
    *out = o;
    return QZ_OK;
}

static void close_output(qz_output *o)
{
    if (o->marker >= 0) close(o->marker);
    qz_arena_free(o->arena);
}

qz_status qz_output_open(qz_output **out, const char *path, bool overwrite)
{
    qz_output *o;
    *out = NULL;
    QZ_TRY(qz_output_check(path, overwrite));
    QZ_TRY(new_output(&o, path));
    qz_status status = make_parent(o);
    if (status == QZ_OK) status = make_work(o);
    if (status != QZ_OK) {
        qz_output_abandon(o);
        return status;
    }
    *out = o;
    return QZ_OK;
}

qz_status qz_output_resume(qz_output **out, const char *path, bool overwrite)
{
    qz_output *o;
    *out = NULL;
    QZ_TRY(qz_output_check_resume(path, overwrite));
    QZ_TRY(new_output(&o, path));
    o->keep = true;
    qz_status status = lock_marker(o, 0);
    if (status != QZ_OK) {
        qz_output_abandon(o);
        return status;
    }
    *out = o;
    return QZ_OK;
}

void qz_output_keep(qz_output *o)
{
    o->keep = true;
}

bool qz_output_is_kept(const qz_output *o)
{
    return o && o->keep;
}

const char *qz_output_work(const qz_output *o)
{
    return o->work;
}

/* The message of the failure that led here must survive. */
static void remove_work(const qz_output *o)
{
    qz_error saved;
    qz_error_save(&saved, QZ_OK);
    if (o->marker >= 0 && qz_folder_remove(o->work) != QZ_OK) qz_warn("%s", qz_error_message());
    if (o->marker < 0) rmdir(o->work);
    remove_parents(o);
    (void)qz_error_restore(&saved);
}

void qz_output_abandon(qz_output *o)
{
    if (!o) return;
    if (!o->keep) remove_work(o);
    close_output(o);
}

static qz_status unlink_in(const qz_output *o, const char *name)
{
    char *path = qz_path_join(o->arena, o->work, name);
    if (!path) return qz_arena_failed(o->arena);
    if (unlink(path) != 0 && errno != ENOENT) return QZ_FAIL(QZ_IO, "%s: %s", path, strerror(errno));
    return QZ_OK;
}

/* old aside, new in its place; old back when that fails */
static qz_status put_in_place(qz_output *o)
{
    bool replaces = kind_of(o->path) == FOLDER;
    QZ_TRY(unlink_in(o, QZ_JOURNAL_NAME));
    QZ_TRY(unlink_in(o, QZ_OUTPUT_MARKER));
    if (replaces) QZ_TRY(qz_path_rename(o->path, o->old));
    qz_status status = qz_path_rename(o->work, o->path);
    if (status == QZ_OK || !replaces) return status;
    qz_error failure;
    qz_error_save(&failure, status);
    if (rename(o->old, o->path) != 0) qz_warn("what was in %s is now in %s", o->path, o->old);
    return qz_error_restore(&failure);
}

qz_status qz_output_commit(qz_output *o)
{
    qz_status status = put_in_place(o);
    if (status != QZ_OK) {
        qz_output_abandon(o);
        return status;
    }
    if (kind_of(o->old) == FOLDER && qz_folder_remove(o->old) != QZ_OK)
        qz_warn("%s could not be removed: %s", o->old, qz_error_message());
    close_output(o);
    return QZ_OK;
}
