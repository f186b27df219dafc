/* See state_compare.h. */
#include "train/state_compare.h"

#include <string.h>

#include "base/json.h"

enum { VALUE = 64 };

/* Where in the recipe, and where differences go. */
typedef struct walk {
    qz_state_changes *to;
    const char *path;
    qz_arena *arena;
} walk;

qz_status qz_state_add_change(char **list, const char *noun, const char *then, const char *now, qz_arena *arena)
{
    *list = qz_arena_printf(arena, "%s\n%s changed: the file says %s, this run %s", *list, noun, then, now);
    return *list ? QZ_OK : qz_arena_failed(arena);
}

static void print(char out[VALUE], const qz_json_node *node)
{
    if (node)
        qz_json_print(node, out, VALUE);
    else
        strcpy(out, "nothing");
}

/* What follows from them is not in the state: the course of the steps to come, and what is measured. */
static const char *const free_keys[] = {"train.learning_rate",
                                        "train.scale_learning_rate",
                                        "train.offset_learning_rate",
                                        "train.clip_norm",
                                        "train.schedule",
                                        "train.warmup",
                                        "train.final_rate",
                                        "train.steps",
                                        "train.save_every",
                                        "train.keep",
                                        "train.evaluate_every",
                                        "train.patience",
                                        "evaluate",
                                        NULL};
/* Fingerprints of what is read there are compared, and the output is where the state was found. */
static const char *const paths[] = {"output",     "model", "train.data", "train.validation.data", "train.loss.teacher",
                                    "train.init", NULL};

/* The key itself, or a member of it. */
static bool is_among(const char *const *keys, const char *path)
{
    for (; *keys; keys++) {
        const size_t length = strlen(*keys);
        if (strncmp(path, *keys, length) == 0 && (path[length] == '\0' || path[length] == '.')) return true;
    }
    return false;
}

static qz_status note(const walk *w, const char *then, const char *now)
{
    w->to->noted = qz_arena_printf(w->arena, "%s\n%s: %s in the state, %s now", w->to->noted, w->path, then, now);
    return w->to->noted ? QZ_OK : qz_arena_failed(w->arena);
}

static qz_status add(const walk *w, const qz_json_node *then, const qz_json_node *now)
{
    char x[VALUE], y[VALUE];
    if (qz_json_is(then, QZ_JSON_STRING) && qz_json_is(now, QZ_JSON_STRING) && is_among(paths, w->path)) return QZ_OK;
    print(x, then);
    print(y, now);
    if (is_among(free_keys, w->path)) return note(w, x, y);
    char *noun = qz_arena_printf(w->arena, "recipe: %s", w->path);
    return noun ? qz_state_add_change(&w->to->refused, noun, x, y, w->arena) : qz_arena_failed(w->arena);
}

/* The walk at a member or element. */
static qz_status inside(walk *out, const walk *w, const char *key, size_t index)
{
    *out = *w;
    if (key)
        out->path = qz_arena_printf(w->arena, "%s%s%s", w->path, *w->path ? "." : "", key);
    else
        out->path = qz_arena_printf(w->arena, "%s.%zu", w->path, index);
    return out->path ? QZ_OK : qz_arena_failed(w->arena);
}

static qz_status compare(const walk *w, const qz_json_node *then, const qz_json_node *now);

static qz_status compare_objects(const walk *w, const qz_json_node *then, const qz_json_node *now)
{
    walk at;
    for (const qz_json_node *m = qz_json_first(then); m; m = qz_json_next(m)) {
        QZ_TRY(inside(&at, w, qz_json_key(m), 0));
        QZ_TRY(compare(&at, m, qz_json_get(now, qz_json_key(m))));
    }
    for (const qz_json_node *m = qz_json_first(now); m; m = qz_json_next(m)) {
        if (qz_json_get(then, qz_json_key(m))) continue;
        QZ_TRY(inside(&at, w, qz_json_key(m), 0));
        QZ_TRY(add(&at, NULL, m));
    }
    return QZ_OK;
}

static qz_status compare_arrays(const walk *w, const qz_json_node *then, const qz_json_node *now)
{
    walk at;
    size_t i = 0;
    if (qz_json_count(then) != qz_json_count(now)) return add(w, then, now);
    for (const qz_json_node *x = qz_json_first(then), *y = qz_json_first(now); x;
         x = qz_json_next(x), y = qz_json_next(y), i++) {
        QZ_TRY(inside(&at, w, NULL, i));
        QZ_TRY(compare(&at, x, y));
    }
    return QZ_OK;
}

static bool same_leaf(const qz_json_node *then, const qz_json_node *now)
{
    switch (qz_json_type_of(then)) {
    case QZ_JSON_BOOL:
        return qz_json_true(then) == qz_json_true(now);
    case QZ_JSON_NUMBER:
        return qz_json_double(then) == qz_json_double(now);
    case QZ_JSON_STRING:
        return strcmp(qz_json_text(then), qz_json_text(now)) == 0;
    default:
        return true;
    }
}

static qz_status compare(const walk *w, const qz_json_node *then, const qz_json_node *now)
{
    if (!then || !now || qz_json_type_of(then) != qz_json_type_of(now)) return add(w, then, now);
    if (qz_json_is(then, QZ_JSON_OBJECT)) return compare_objects(w, then, now);
    if (qz_json_is(then, QZ_JSON_ARRAY)) return compare_arrays(w, then, now);
    return same_leaf(then, now) ? QZ_OK : add(w, then, now);
}

qz_status qz_state_compare_recipes(qz_state_changes *to, const char *then, const char *now, qz_arena *arena)
{
    qz_json *x, *y;
    QZ_TRY_CTX(qz_json_parse(&x, then, strlen(then)), "the recipe in the file");
    qz_status status = qz_json_parse(&y, now, strlen(now));
    if (status == QZ_OK) {
        status = compare(&(walk){to, "", arena}, qz_json_root(x), qz_json_root(y));
        qz_json_close(y);
    }
    qz_json_close(x);
    return status;
}
