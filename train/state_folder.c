/* The states of a run's folder: which is read, which are kept. See state.h. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "train/state.h"

#define PREFIX "state-"

enum { DIGITS = 8, MOST_DIGITS = 18 };

typedef struct states {
    const char *folder;
    qz_arena *arena;
    int64_t *step; /* [count] increasing */
    size_t count;
    char **unfinished; /* [leftovers] paths */
    size_t leftovers;
} states;

/* The step of "state-00000200.h5" and *rest, what follows it; 0: no such name. */
static int64_t step_of(const char *name, const char **rest)
{
    const size_t prefix = sizeof PREFIX - 1;
    if (strncmp(name, PREFIX, prefix) != 0) return 0;
    const size_t digits = strspn(name + prefix, "0123456789");
    if (digits < DIGITS || digits > MOST_DIGITS || strncmp(name + prefix + digits, ".h5", 3) != 0) return 0;
    *rest = name + prefix + digits + 3;
    return strtoll(name + prefix, NULL, 10);
}

static char *path_of(const states *s, int64_t step)
{
    return qz_arena_printf(s->arena, "%s/" PREFIX "%0*" PRId64 ".h5", s->folder, DIGITS, step);
}

static int increasing(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static qz_status sort_out(states *s, char **names, size_t count)
{
    s->step = qz_arena_array(s->arena, int64_t, count);
    s->unfinished = qz_arena_array(s->arena, char *, count);
    if (!s->step || !s->unfinished) return qz_arena_failed(s->arena);
    for (size_t i = 0; i < count; i++) {
        const char *rest = "";
        const int64_t step = step_of(names[i], &rest);
        if (step == 0) continue;
        if (*rest == '\0') {
            s->step[s->count++] = step;
        } else if (strcmp(rest, ".new") == 0 || strcmp(rest, ".new.tmp") == 0) {
            char *path = qz_path_join(s->arena, s->folder, names[i]);
            if (!path) return qz_arena_failed(s->arena);
            s->unfinished[s->leftovers++] = path;
        }
    }
    qsort(s->step, s->count, sizeof *s->step, increasing);
    return QZ_OK;
}

static qz_status list_states(states *s, const char *folder, qz_arena *arena)
{
    char **names;
    size_t count;
    *s = (states){.folder = folder, .arena = arena};
    if (!qz_path_is_folder(folder)) return QZ_OK;
    QZ_TRY(qz_folder_list(&names, &count, folder, arena));
    return sort_out(s, names, count);
}

static qz_status remove_file(const char *path)
{
    return remove(path) == 0 ? QZ_OK : QZ_FAIL(QZ_IO, "%s: cannot be removed", path);
}

static qz_status remove_state(const states *s, int64_t step)
{
    char *path = path_of(s, step);
    return path ? remove_file(path) : qz_arena_failed(s->arena);
}

/* Removes all but the `keep` newest that are not after `step`. */
static qz_status prune(const char *folder, int64_t step, int keep, qz_arena *arena)
{
    states s;
    QZ_TRY(list_states(&s, folder, arena));
    for (size_t i = s.count; i-- > 0;) {
        if (s.step[i] <= step && keep-- > 0) continue;
        QZ_TRY(remove_state(&s, s.step[i]));
    }
    return QZ_OK;
}

/* What a run that was killed left half written. */
static qz_status remove_unfinished(const char *folder, qz_arena *arena)
{
    states s;
    QZ_TRY(list_states(&s, folder, arena));
    for (size_t i = 0; i < s.leftovers; i++) QZ_TRY(remove_file(s.unfinished[i]));
    return QZ_OK;
}

static qz_status save(const char *folder, const qz_state *s, int64_t step, int keep, qz_arena *arena)
{
    char *path = path_of(&(states){.folder = folder, .arena = arena}, step);
    if (!path) return qz_arena_failed(arena);
    QZ_TRY(remove_unfinished(folder, arena));
    QZ_TRY(qz_state_write(path, s, step));
    return prune(folder, step, keep, arena);
}

qz_status qz_state_save(const char *folder, const qz_state *s, int64_t step, int keep)
{
    qz_arena *arena;
    assert(step >= 1 && keep >= 1);
    QZ_TRY(qz_arena_new(&arena, "states"));
    qz_status status = save(folder, s, step, keep, arena);
    qz_arena_free(arena);
    return status;
}

static qz_status read_state(const states *all, int64_t step, const qz_state *s)
{
    int64_t found;
    char *path = path_of(all, step);
    if (!path) return qz_arena_failed(all->arena);
    QZ_TRY(qz_state_read(&found, path, s));
    if (found == step) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s: is the state after step %" PRId64, path, found);
}

static qz_status load(int64_t *step, const char *folder, const qz_state *s, qz_arena *arena)
{
    states all;
    QZ_TRY(list_states(&all, folder, arena));
    for (size_t i = all.count; i-- > 0;) {
        const qz_status status = read_state(&all, all.step[i], s);
        if (status == QZ_OK) *step = all.step[i];
        if (status != QZ_FORMAT && status != QZ_IO) return status;
        qz_warn("%s; %s", qz_error_message(), i ? "the state before it is used" : "there is none before it");
    }
    if (all.count == 0) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s: none of its %zu state files is whole; run with --overwrite in place of --resume to "
                   "start again",
                   folder, all.count);
}

qz_status qz_state_load(int64_t *step, const char *folder, const qz_state *s)
{
    qz_arena *arena;
    *step = 0;
    QZ_TRY(qz_arena_new(&arena, "states"));
    qz_status status = load(step, folder, s, arena);
    qz_arena_free(arena);
    return status;
}

qz_status qz_state_newest(int64_t *step, const char *folder)
{
    qz_arena *arena;
    states s;
    *step = 0;
    QZ_TRY(qz_arena_new(&arena, "states"));
    qz_status status = list_states(&s, folder, arena);
    if (status == QZ_OK && s.count > 0) *step = s.step[s.count - 1];
    qz_arena_free(arena);
    return status;
}

qz_status qz_state_clear(const char *folder)
{
    qz_arena *arena;
    QZ_TRY(qz_arena_new(&arena, "states"));
    qz_status status = prune(folder, INT64_MAX, 0, arena);
    if (status == QZ_OK) status = remove_unfinished(folder, arena);
    qz_arena_free(arena);
    return status;
}
