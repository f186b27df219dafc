/* The door to cJSON: a qz_json_node is a cJSON item. What the library does not check was checked by the scan before it.
 *
 * An object's unused string field holds its index (a qz_strmap from key to item) when it has more than INDEX_FROM
 * members; qz_json_close takes it out again before cJSON frees the tree. */
#include "base/json.h"

#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json_scan.h"
#include "base/map.h"

enum { INDEX_FROM = 8 };
#define INTEGER_LIMIT 9007199254740992.0 /* 2^53: from here on doubles skip integers */

struct qz_json {
    cJSON *root;
};

static const cJSON *item_of(const qz_json_node *n)
{
    return (const cJSON *)n;
}

static const qz_json_node *node_of(const cJSON *item)
{
    return (const qz_json_node *)item;
}

/* Before main, so that no thread can be parsing yet. */
__attribute__((constructor)) static void install_hooks(void)
{
    cJSON_Hooks hooks = {qz_malloc, qz_free};
    cJSON_InitHooks(&hooks);
}

static void drop_indices(cJSON *item)
{
    for (; item; item = item->next) {
        if (cJSON_IsObject(item)) {
            qz_strmap_free((qz_strmap *)(void *)item->valuestring);
            item->valuestring = NULL;
        }
        drop_indices(item->child);
    }
}

/* The text that a tree was made of, for messages that say where. */
typedef struct source {
    const char *text;
    size_t size;
    const cJSON *root;
} source;

/* Adds to *order the number of values in front of `wanted`; false when it is not among `item`, its siblings and what
 * they hold. */
static bool count_up_to(size_t *order, const cJSON *item, const cJSON *wanted)
{
    for (; item; item = item->next) {
        if (item == wanted) return true;
        (*order)++;
        if (count_up_to(order, item->child, wanted)) return true;
    }
    return false;
}

static qz_status fail_item(const source *from, const cJSON *item, const char *what)
{
    size_t order = 0;
    (void)count_up_to(&order, from->root, item);
    return qz_json_fail_at(from->text, from->size, qz_json_locate(from->text, from->size, order), what);
}

static qz_status duplicate(const source *from, const cJSON *item)
{
    char what[256];
    snprintf(what, sizeof what, "the key \"%s\" appears twice in one object", item->string);
    return fail_item(from, item, what);
}

static qz_status index_object(const source *from, cJSON *object, size_t count)
{
    qz_strmap *map;
    QZ_TRY(qz_strmap_new(&map, count));
    object->valuestring = (char *)(void *)map;
    for (cJSON *c = object->child; c; c = c->next) {
        bool there;
        QZ_TRY(qz_strmap_add(map, c->string, strlen(c->string), (int64_t)(intptr_t)c, &there));
        if (there) return duplicate(from, c);
    }
    return QZ_OK;
}

static qz_status check_small_object(const source *from, const cJSON *object)
{
    for (const cJSON *c = object->child; c; c = c->next)
        for (const cJSON *d = c->next; d; d = d->next)
            if (strcmp(c->string, d->string) == 0) return duplicate(from, d);
    return QZ_OK;
}

/* Duplicate keys, numbers beyond a double, and the indices, for `item` and everything below it. */
static qz_status check_item(const source *from, cJSON *item)
{
    size_t count = 0;
    if (cJSON_IsNumber(item) && !isfinite(item->valuedouble)) return fail_item(from, item, "the number is too large");
    for (cJSON *c = item->child; c; c = c->next, count++) QZ_TRY(check_item(from, c));
    if (!cJSON_IsObject(item)) return QZ_OK;
    return count > INDEX_FROM ? index_object(from, item, count) : check_small_object(from, item);
}

qz_status qz_json_parse(qz_json **out, const char *text, size_t size)
{
    *out = NULL;
    QZ_TRY(qz_json_scan(text, size));
    qz_json *doc = qz_calloc(1, sizeof *doc);
    if (doc) doc->root = cJSON_ParseWithLength(text, size);
    if (!doc || !doc->root) {
        qz_free(doc);
        return QZ_FAIL(QZ_MEMORY, "out of memory: JSON text of %zu bytes", size);
    }
    qz_status status = check_item(&(source){text, size, doc->root}, doc->root);
    if (status != QZ_OK) {
        qz_json_close(doc);
        return status;
    }
    *out = doc;
    return QZ_OK;
}

void qz_json_close(qz_json *doc)
{
    if (!doc) return;
    drop_indices(doc->root);
    cJSON_Delete(doc->root);
    qz_free(doc);
}

const qz_json_node *qz_json_root(const qz_json *doc)
{
    return node_of(doc->root);
}

qz_json_type qz_json_type_of(const qz_json_node *node)
{
    const cJSON *i = item_of(node);
    if (cJSON_IsObject(i)) return QZ_JSON_OBJECT;
    if (cJSON_IsArray(i)) return QZ_JSON_ARRAY;
    if (cJSON_IsString(i)) return QZ_JSON_STRING;
    if (cJSON_IsNumber(i)) return QZ_JSON_NUMBER;
    if (cJSON_IsBool(i)) return QZ_JSON_BOOL;
    return QZ_JSON_NULL;
}

const char *qz_json_type_name(qz_json_type type)
{
    static const char *const names[] = {"null", "true or false", "a number", "a string", "an array", "an object"};
    return names[type];
}

bool qz_json_is(const qz_json_node *node, qz_json_type type)
{
    return node && qz_json_type_of(node) == type;
}

const qz_json_node *qz_json_get(const qz_json_node *object, const char *key)
{
    const cJSON *i = item_of(object);
    if (!cJSON_IsObject(i)) return NULL;
    if (i->valuestring) {
        int64_t found = qz_strmap_get((const qz_strmap *)(const void *)i->valuestring, key, strlen(key));
        return found == -1 ? NULL : node_of((const cJSON *)(intptr_t)found);
    }
    for (const cJSON *c = i->child; c; c = c->next)
        if (strcmp(c->string, key) == 0) return node_of(c);
    return NULL;
}

size_t qz_json_count(const qz_json_node *node)
{
    const cJSON *i = item_of(node);
    size_t count = 0;
    if (!cJSON_IsObject(i) && !cJSON_IsArray(i)) return 0;
    for (const cJSON *c = i->child; c; c = c->next) count++;
    return count;
}

const qz_json_node *qz_json_first(const qz_json_node *node)
{
    const cJSON *i = item_of(node);
    return cJSON_IsObject(i) || cJSON_IsArray(i) ? node_of(i->child) : NULL;
}

const qz_json_node *qz_json_next(const qz_json_node *node)
{
    return node_of(item_of(node)->next);
}

const char *qz_json_key(const qz_json_node *member)
{
    return item_of(member)->string;
}

const char *qz_json_text(const qz_json_node *string)
{
    return item_of(string)->valuestring;
}

double qz_json_double(const qz_json_node *number)
{
    return item_of(number)->valuedouble;
}

bool qz_json_true(const qz_json_node *node)
{
    return cJSON_IsTrue(item_of(node));
}

/* `size` is at least 16. Control characters become spaces; no character is cut in half. */
static void print_string(const char *s, char *out, size_t size)
{
    size_t n = 0;
    out[n++] = '"';
    while (*s && n + 8 < size) { /* room for four bytes, ..." and the NUL */
        do out[n++] = (unsigned char)*s < 0x20 ? ' ' : *s;
        while (((unsigned char)*++s & 0xc0) == 0x80);
    }
    snprintf(out + n, size - n, "%s\"", *s ? "..." : "");
}

void qz_json_print(const qz_json_node *node, char *out, size_t size)
{
    char number[QZ_JSON_NUMBER_TEXT];
    switch (qz_json_type_of(node)) {
    case QZ_JSON_OBJECT:
        snprintf(out, size, "an object of %zu members", qz_json_count(node));
        break;
    case QZ_JSON_ARRAY:
        snprintf(out, size, "an array of %zu elements", qz_json_count(node));
        break;
    case QZ_JSON_STRING:
        print_string(qz_json_text(node), out, size);
        break;
    case QZ_JSON_NUMBER:
        qz_json_format_number(number, qz_json_double(node));
        snprintf(out, size, "%s", number);
        break;
    case QZ_JSON_BOOL:
        snprintf(out, size, "%s", qz_json_true(node) ? "true" : "false");
        break;
    default:
        snprintf(out, size, "%s", node ? "null" : "nothing");
    }
}

static qz_status wrong(const qz_json_node *node, const char *name, const char *expected)
{
    char found[80];
    qz_json_print(node, found, sizeof found);
    return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected %s", name, found, expected);
}

qz_status qz_json_number(const qz_json_node *node, const char *name, double low, double high, double *out)
{
    char expected[80];
    snprintf(expected, sizeof expected, "a number from %g to %g", low, high);
    if (!qz_json_is(node, QZ_JSON_NUMBER)) return wrong(node, name, expected);
    double v = qz_json_double(node);
    if (v < low || v > high) return wrong(node, name, expected);
    *out = v;
    return QZ_OK;
}

qz_status qz_json_int(const qz_json_node *node, const char *name, int64_t low, int64_t high, int64_t *out)
{
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)low, (long long)high);
    if (!qz_json_is(node, QZ_JSON_NUMBER)) return wrong(node, name, expected);
    double v = qz_json_double(node);
    if (fabs(v) >= INTEGER_LIMIT || v != floor(v) || (int64_t)v < low || (int64_t)v > high)
        return wrong(node, name, expected);
    *out = (int64_t)v;
    return QZ_OK;
}

qz_status qz_json_string(const qz_json_node *node, const char *name, const char **out)
{
    if (!qz_json_is(node, QZ_JSON_STRING)) return wrong(node, name, "a string");
    *out = qz_json_text(node);
    return QZ_OK;
}

qz_status qz_json_bool(const qz_json_node *node, const char *name, bool *out)
{
    if (!qz_json_is(node, QZ_JSON_BOOL)) return wrong(node, name, "true or false");
    *out = qz_json_true(node);
    return QZ_OK;
}
