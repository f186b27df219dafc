/* A checked recipe -> its canonical text: every key in the table's order, defaults filled in, plug-ins as objects with
 * all options. Two recipes that mean the same have the same text and the same hash; the text reads back as itself. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "recipes/recipe_reader.h"

static void put_options(qz_json_writer *w, const qz_options *options)
{
    for (int i = 0; options->table && options->table[i].type != QZ_OPT_END; i++) {
        const qz_option *o = &options->table[i];
        double v = options->value[i];
        if (o->type == QZ_OPT_BOOL) qz_json_put_bool(w, o->name, v != 0);
        if (o->type == QZ_OPT_INT) qz_json_put_int(w, o->name, (int64_t)v);
        if (o->type == QZ_OPT_NUMBER) qz_json_put_double(w, o->name, v);
        if (o->type == QZ_OPT_CHOICE) qz_json_put_string(w, o->name, o->choices[(int)v]);
    }
}

static void put_choice(qz_json_writer *w, const char *key, const qz_choice *choice)
{
    qz_json_begin_object(w, key);
    qz_json_put_string(w, "method", choice->name);
    put_options(w, &choice->options);
    qz_json_end(w);
}

static void put_choices(qz_json_writer *w, const char *key, const qz_choice *choices, int count)
{
    qz_json_begin_array(w, key);
    for (int i = 0; i < count; i++) put_choice(w, NULL, &choices[i]);
    qz_json_end(w);
}

static void put_patterns(qz_json_writer *w, const char *key, const qz_patterns *p)
{
    qz_json_begin_array(w, key);
    for (int i = 0; i < p->count; i++) qz_json_put_string(w, NULL, p->pattern[i]);
    qz_json_end(w);
}

static void put_name(qz_json_writer *w, const char *key, const qz_field_name *names, int value)
{
    for (const qz_field_name *n = names; n->name; n++)
        if (n->value == value) qz_json_put_string(w, key, n->name);
}

/* What the rows' values are read from: an object of which `from` is the place. */
typedef struct source {
    qz_json_writer *w;
    const qz_recipe *recipe;
    const char *base;
    size_t from;
    bool change; /* an absent value is null, because what this is laid over may have one */
} source;

static void put_members(const source *s, const char *path);

static void put_absent(const source *s, const char *key)
{
    if (s->change) qz_json_put_string(s->w, key, NULL);
}

static void put_object(const source *s, const qz_field *f, bool given)
{
    if (!given) {
        put_absent(s, qz_field_key(f));
        return;
    }
    qz_json_begin_object(s->w, qz_field_key(f));
    put_members(s, f->path);
    qz_json_end(s->w);
}

/* "skip": false is never needed: an entry that said so has an empty weights.skip. */
static void put_exception(qz_json_writer *w, const qz_recipe *r, const qz_recipe_exception *e)
{
    qz_json_begin_object(w, NULL);
    put_patterns(w, "match", &e->match);
    if (e->skip) qz_json_put_bool(w, "skip", true);
    source s = {w, r, (const char *)&e->weights, offsetof(qz_recipe, weights), true};
    put_object(&s, qz_field_at("weights"), true);
    s.base = (const char *)&e->activations;
    s.from = offsetof(qz_recipe, activations);
    put_object(&s, qz_field_at("activations"), e->activations.mode != QZ_ACT_NONE);
    qz_json_end(w);
}

static void put_exceptions(qz_json_writer *w, const char *key, const qz_recipe *r)
{
    qz_json_begin_array(w, key);
    for (int i = 0; i < r->overrides; i++) put_exception(w, r, &r->override[i]);
    qz_json_end(w);
}

static void put_text(const source *s, const char *key, const char *text)
{
    if (text)
        qz_json_put_string(s->w, key, text);
    else
        put_absent(s, key);
}

/* One that has no default was not asked for when it is 0. */
static void put_int(const source *s, const qz_field *f, int64_t value)
{
    if (f->fallback || value != 0)
        qz_json_put_int(s->w, qz_field_key(f), value);
    else
        put_absent(s, qz_field_key(f));
}

/* Likewise, unless 0 is a value that can be given. */
static void put_number(const source *s, const qz_field *f, double value)
{
    if (f->fallback || f->low <= 0 || value != 0)
        qz_json_put_double(s->w, qz_field_key(f), value);
    else
        put_absent(s, qz_field_key(f));
}

static void put_group(const source *s, const qz_field *f, int64_t group)
{
    if (group > 0)
        qz_json_put_int(s->w, qz_field_key(f), group);
    else
        put_name(s->w, qz_field_key(f), f->names, (int)group);
}

static void put_observer(const source *s, const char *key, const qz_choice *choice)
{
    if (choice->name && choice->index >= 0)
        put_choice(s->w, key, choice);
    else
        put_text(s, key, choice->name);
}

static int name_at(const void *place)
{
    int value;
    memcpy(&value, place, sizeof value);
    return value;
}

static void put_field(const source *s, const qz_field *f)
{
    const char *key = qz_field_key(f);
    const void *place = f->place == QZ_NO_PLACE ? NULL : s->base + (f->place - s->from);
    switch (f->type) {
    case QZ_FIELD_OBJECT:
        put_object(s, f, !place || *(const bool *)place);
        break;
    case QZ_FIELD_PART:
        put_object(s, f, name_at(place) != 0);
        break;
    case QZ_FIELD_VERSION:
        qz_json_put_int(s->w, key, *(const int *)place);
        break;
    case QZ_FIELD_TEXT:
    case QZ_FIELD_BACKEND:
        put_text(s, key, *(const char *const *)place);
        break;
    case QZ_FIELD_INT:
    case QZ_FIELD_BYTES:
        put_int(s, f, *(const int64_t *)place);
        break;
    case QZ_FIELD_NUMBER:
        put_number(s, f, *(const double *)place);
        break;
    case QZ_FIELD_BOOL:
        qz_json_put_bool(s->w, key, *(const bool *)place);
        break;
    case QZ_FIELD_NAME:
        put_name(s->w, key, f->names, name_at(place));
        break;
    case QZ_FIELD_FLAG:
        put_name(s->w, key, f->names, *(const bool *)place);
        break;
    case QZ_FIELD_GROUP:
        put_group(s, f, *(const int64_t *)place);
        break;
    case QZ_FIELD_PLUGIN:
        put_choice(s->w, key, place);
        break;
    case QZ_FIELD_OBSERVER:
        put_observer(s, key, place);
        break;
    case QZ_FIELD_PLUGINS:
        put_choices(s->w, key, place, s->recipe->transforms);
        break;
    case QZ_FIELD_PATTERNS:
        put_patterns(s->w, key, place);
        break;
    case QZ_FIELD_EXCEPTIONS:
        put_exceptions(s->w, key, s->recipe);
        break;
    case QZ_FIELD_CHANGES:
    case QZ_FIELD_OUTPUTS:
    case QZ_FIELD_TYPES:
        break;
    }
}

static void put_members(const source *s, const char *path)
{
    for (size_t i = 0; i < qz_recipe_field_count; i++)
        if (qz_field_is_in(&qz_recipe_fields[i], path)) put_field(s, &qz_recipe_fields[i]);
}

/* Each output's text is whole, so there is nothing that they would be laid over but the version. */
static void put_outputs(qz_json_writer *w, const qz_recipe *r)
{
    qz_json_put_int(w, "version", r->version);
    qz_json_begin_array(w, "outputs");
    for (int i = 0; i < r->output_count; i++) qz_json_put_raw(w, NULL, r->outputs[i]->text);
    qz_json_end(w);
}

qz_status qz_recipe_row_text(const char **out, const qz_recipe *recipe, const qz_field *f, qz_arena *arena)
{
    source s = {.recipe = recipe, .base = (const char *)recipe};
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&s.w, false));
    qz_json_begin_object(s.w, NULL);
    put_field(&s, f);
    qz_json_end(s.w);
    qz_status status = qz_json_writer_finish(s.w, &text, &size);
    *out = status == QZ_OK ? qz_arena_strdup(arena, text) : NULL;
    qz_json_writer_free(s.w);
    return status == QZ_OK && !*out ? qz_arena_failed(arena) : status;
}

qz_status qz_recipe_canonize(const qz_recipe_reader *r)
{
    qz_recipe *recipe = r->recipe;
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_json_begin_object(w, NULL);
    if (recipe->output_count)
        put_outputs(w, recipe);
    else
        put_members(&(source){w, recipe, (const char *)recipe, 0, false}, "");
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) {
        qz_hash_bytes(recipe->hash, text, size);
        recipe->text = qz_arena_strdup(r->arena, text);
        if (!recipe->text) status = qz_arena_failed(r->arena);
    }
    qz_json_writer_free(w);
    return status;
}
