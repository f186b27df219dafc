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

static void put_name(qz_json_writer *w, const char *key, const qz_field_name *names, const void *place)
{
    int value;
    memcpy(&value, place, sizeof value);
    for (const qz_field_name *n = names; n->name; n++)
        if (n->value == value) qz_json_put_string(w, key, n->name);
}

static void put_members(qz_json_writer *w, const qz_recipe *r, const char *path);

static void put_object(qz_json_writer *w, const qz_recipe *r, const qz_field *f)
{
    bool given = f->place == QZ_NO_PLACE || *(const bool *)((const char *)r + f->place);
    if (!given) return;
    qz_json_begin_object(w, qz_field_key(f));
    put_members(w, r, f->path);
    qz_json_end(w);
}

static void put_field(qz_json_writer *w, const qz_recipe *r, const qz_field *f)
{
    const char *key = qz_field_key(f);
    const void *place = f->place == QZ_NO_PLACE ? NULL : (const char *)r + f->place;
    switch (f->type) {
    case QZ_FIELD_OBJECT:
        put_object(w, r, f);
        break;
    case QZ_FIELD_VERSION:
        qz_json_put_int(w, key, *(const int *)place);
        break;
    case QZ_FIELD_TEXT:
    case QZ_FIELD_BACKEND:
        if (*(const char *const *)place) qz_json_put_string(w, key, *(const char *const *)place);
        break;
    case QZ_FIELD_INT:
    case QZ_FIELD_BYTES:
        qz_json_put_int(w, key, *(const int64_t *)place);
        break;
    case QZ_FIELD_NUMBER: /* one that has no default was not asked for when it is 0 */
        if (*(const double *)place != 0) qz_json_put_double(w, key, *(const double *)place);
        break;
    case QZ_FIELD_BOOL:
        qz_json_put_bool(w, key, *(const bool *)place);
        break;
    case QZ_FIELD_NAME:
        put_name(w, key, f->names, place);
        break;
    case QZ_FIELD_GROUP:
        if (*(const int64_t *)place > 0) qz_json_put_int(w, key, *(const int64_t *)place);
        if (*(const int64_t *)place == 0) qz_json_put_string(w, key, "channel");
        break;
    case QZ_FIELD_PLUGIN:
        put_choice(w, key, place);
        break;
    case QZ_FIELD_PLUGINS:
        put_choices(w, key, place, r->transforms);
        break;
    case QZ_FIELD_PATTERNS:
        put_patterns(w, key, place);
        break;
    case QZ_FIELD_TYPES:
        break;
    }
}

static void put_members(qz_json_writer *w, const qz_recipe *r, const char *path)
{
    for (size_t i = 0; i < qz_recipe_field_count; i++)
        if (qz_field_is_in(&qz_recipe_fields[i], path)) put_field(w, r, &qz_recipe_fields[i]);
}

qz_status qz_recipe_canonize(const qz_recipe_reader *r)
{
    qz_recipe *recipe = r->recipe;
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_json_begin_object(w, NULL);
    put_members(w, recipe, "");
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
