/* "outputs": several checkpoints from one calibration. Each entry is laid over the rest of the recipe and read as a
 * recipe of its own; what one pass over the model shares must then be the same in all. */
#include <stdio.h>
#include <string.h>

#include "recipes/recipe_reader.h"

typedef const qz_recipe_reader reader;

/* What one pass has once. */
static const char *const shared[] = {"model",
                                     "backend",
                                     "calibration",
                                     "statistics",
                                     "evaluate.data",
                                     "evaluate.field",
                                     "evaluate.windows",
                                     "evaluate.sequence_length",
                                     NULL};

/* What statistics of quantized activations belong to. */
static const char *const schemes[] = {"transforms", "weights", "activations", "kv_cache", "overrides", NULL};

/* The root without "outputs", and `change` laid over it. */
static qz_status merge(qz_json **out, const qz_json_node *root, const qz_json_node *change)
{
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, false));
    qz_json_begin_object(w, NULL);
    for (const qz_json_node *c = qz_json_first(root); c; c = qz_json_next(c)) {
        const qz_json_node *other = qz_json_get(change, qz_json_key(c));
        if (other)
            qz_recipe_put_merged(w, qz_json_key(c), c, other);
        else if (strcmp(qz_json_key(c), "outputs") != 0)
            qz_recipe_put_node(w, qz_json_key(c), c);
    }
    for (const qz_json_node *c = qz_json_first(change); c; c = qz_json_next(c))
        if (!qz_json_get(root, qz_json_key(c))) qz_recipe_put_merged(w, qz_json_key(c), NULL, c);
    qz_json_end(w);
    return qz_recipe_writer_parse(out, w);
}

/* Types and keys of what the outputs are laid over, so that a mistake there is reported where it stands. */
static qz_status check_common(reader *r, const qz_json_node *root)
{
    qz_json *doc;
    qz_recipe_reader relaxed = *r;
    relaxed.relaxed = true;
    relaxed.recipe = qz_arena_calloc(r->arena, sizeof *r->recipe);
    if (!relaxed.recipe) return qz_arena_failed(r->arena);
    QZ_TRY(merge(&doc, root, NULL));
    qz_status status = qz_recipe_fill(&relaxed, qz_json_root(doc));
    if (status == QZ_OK) status = qz_recipe_read_exceptions(&relaxed, qz_json_root(doc));
    qz_json_close(doc);
    const qz_override *folder = qz_recipe_origin(r, "output");
    if (status == QZ_OK && folder)
        return qz_recipe_fail(r, "output",
                              "the recipe has \"outputs\", and each names its own folder: set "
                              "outputs.0.output and so on instead");
    return status;
}

static qz_status check_entry(reader *r, const qz_json_node *entry)
{
    if (!qz_json_is(entry, QZ_JSON_OBJECT)) return qz_recipe_fail_type(r, "", entry, "an object");
    if (qz_json_get(entry, "outputs")) return qz_recipe_fail(r, "outputs", "an output has no outputs of its own");
    if (!qz_json_get(entry, "output"))
        return qz_recipe_fail(r, "output", "missing: each of \"outputs\" names a folder of its own");
    return QZ_OK;
}

static qz_status read_entry(reader *r, const qz_json_node *root, const qz_json_node *entry, int i)
{
    char prefix[QZ_RECIPE_PATH];
    snprintf(prefix, sizeof prefix, "outputs.%d.", i);
    qz_recipe_reader own = *r;
    own.prefix = prefix;
    own.entry = entry;
    own.outer = r;
    QZ_TRY(check_entry(&own, entry));
    own.recipe = r->recipe->outputs[i] = qz_arena_calloc(r->arena, sizeof *own.recipe);
    if (!own.recipe) return qz_arena_failed(r->arena);
    qz_json *doc;
    QZ_TRY(merge(&doc, root, entry));
    qz_status status = qz_recipe_read_single(&own, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

/* Two rows' texts; equal when both say the same. */
static qz_status compare(bool *equal, reader *r, const qz_field *f, const qz_recipe *a, const qz_recipe *b)
{
    const char *one, *other;
    QZ_TRY(qz_recipe_row_text(&one, a, f, r->arena));
    QZ_TRY(qz_recipe_row_text(&other, b, f, r->arena));
    *equal = strcmp(one, other) == 0;
    return QZ_OK;
}

/* The row `path`, or where it is an object the first row in it, in which the two differ; NULL: none. */
static qz_status find_difference(const qz_field **out, reader *r, const char *path, const qz_recipe *a,
                                 const qz_recipe *b)
{
    bool whole = qz_field_at(path)->type != QZ_FIELD_OBJECT;
    *out = NULL;
    for (size_t i = 0; i < qz_recipe_field_count && !*out; i++) {
        const qz_field *f = &qz_recipe_fields[i];
        bool equal = true, chosen = whole ? strcmp(f->path, path) == 0 : qz_field_is_in(f, path);
        if (chosen) QZ_TRY(compare(&equal, r, f, a, b));
        if (!equal) *out = f;
    }
    return QZ_OK;
}

static qz_status check_shared(reader *r, int i)
{
    const qz_recipe *first = r->recipe->outputs[0], *other = r->recipe->outputs[i];
    for (const char *const *path = shared; *path; path++) {
        const qz_field *f;
        char full[QZ_RECIPE_PATH];
        QZ_TRY(find_difference(&f, r, *path, first, other));
        if (!f) continue;
        snprintf(full, sizeof full, "outputs.%d.%s", i, f->path);
        return qz_recipe_fail(r, full,
                              "differs from that of outputs.0, but all outputs come from one pass: give it "
                              "once, outside of \"outputs\"");
    }
    return QZ_OK;
}

/* "./out/a/" -> "out/a" */
static size_t trim(const char **path)
{
    while (strncmp(*path, "./", 2) == 0) *path += 2;
    size_t length = strlen(*path);
    while (length > 1 && (*path)[length - 1] == '/') length--;
    return length;
}

/* Folder i is not folder j, and j does not lie inside it. */
static qz_status check_folders(reader *r, int i, int j)
{
    const char *a = r->recipe->outputs[i]->output, *b = r->recipe->outputs[j]->output;
    size_t length = trim(&a), other = trim(&b);
    bool inside = other >= length && strncmp(a, b, length) == 0 && (other == length || b[length] == '/');
    if (i == j || !inside) return QZ_OK;
    char full[QZ_RECIPE_PATH];
    snprintf(full, sizeof full, "outputs.%d.output", j);
    return qz_recipe_fail(r, full, "found \"%.128s\", which %s outputs.%d; choose another folder",
                          r->recipe->outputs[j]->output, other == length ? "is also the folder of" : "lies inside", i);
}

static qz_status check_propagation(reader *r, int i)
{
    const qz_recipe *first = r->recipe->outputs[0], *other = r->recipe->outputs[i];
    if (first->calibration.propagate != QZ_PROPAGATE_QUANTIZED) return QZ_OK;
    for (const char *const *path = schemes; *path; path++) {
        const qz_field *f;
        QZ_TRY(find_difference(&f, r, *path, first, other));
        if (f)
            return qz_recipe_fail(r, "calibration.propagate",
                                  "found \"quantized\", but outputs.0 and outputs.%d differ in %s: activations that "
                                  "passed one scheme's layers are wrong for the other; use \"original\"",
                                  i, f->path);
    }
    return QZ_OK;
}

static qz_status check_all(reader *r)
{
    for (int i = 0; i < r->recipe->output_count; i++) {
        QZ_TRY(check_shared(r, i));
        for (int j = 0; j < r->recipe->output_count; j++) QZ_TRY(check_folders(r, i, j));
        QZ_TRY(check_propagation(r, i));
    }
    return QZ_OK;
}

/* What is shared stands in all of them, so the first one's members are the whole recipe's. */
static void adopt_first(qz_recipe *recipe)
{
    qz_recipe *outputs[QZ_RECIPE_OUTPUTS];
    int count = recipe->output_count;
    memcpy(outputs, recipe->outputs, sizeof outputs);
    *recipe = *outputs[0];
    memcpy(recipe->outputs, outputs, sizeof outputs);
    recipe->output_count = count;
}

qz_status qz_recipe_read_outputs(reader *r, const qz_json_node *root)
{
    const qz_json_node *list = qz_json_get(root, "outputs");
    size_t count = qz_json_count(list);
    if (!qz_json_is(list, QZ_JSON_ARRAY) || count == 0 || count > QZ_RECIPE_OUTPUTS)
        return qz_recipe_fail_type(r, "outputs", list, "an array of 1 to 16 objects");
    QZ_TRY(check_common(r, root));
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c)) {
        QZ_TRY(read_entry(r, root, c, r->recipe->output_count));
        r->recipe->output_count++;
    }
    QZ_TRY(check_all(r));
    adopt_first(r->recipe);
    return qz_recipe_canonize(r);
}
