/* quant_state as text, in the form of Python's json.dumps, in which bitsandbytes writes it:
 *
 *     {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 256], "nested_blocksize": 256,
 *      "nested_dtype": "float32", "nested_offset": 0.0856475830078125}
 *
 * The last three only with double quantization. Readers assert that there is no other key. Spaces after the value are
 * legal JSON: they keep the text's size independent of the offset. */
#include "checkpoints/bnb_state.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "numeric/codebook.h"

enum { LONGEST_NUMBER = 24 }; /* -2.2250738585072014e-308 */

static const struct {
    const char *name;
    qz_dtype type;
} types[] = {{"bfloat16", QZ_BF16}, {"float16", QZ_F16}, {"float32", QZ_F32}};

enum { TYPES = sizeof types / sizeof *types };

static const char *name_of(qz_dtype type)
{
    for (int i = 0; i < TYPES; i++)
        if (types[i].type == type) return types[i].name;
    return NULL;
}

/* Shortest digits that read back as the same double. */
static void print_number(char out[LONGEST_NUMBER + 8], double x)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, LONGEST_NUMBER + 8, "%.*g", digits, x);
        if (strtod(out, NULL) == x) return;
    }
}

static qz_status text_of(char **out, size_t *size, const qz_bnb_state *s, qz_arena *arena)
{
    char offset[LONGEST_NUMBER + 8];
    const char *type = name_of(s->type), *quant = qz_format_of(s->format)->name;
    if (!type)
        return QZ_FAIL(QZ_UNSUPPORTED, "values in %s; bitsandbytes knows F32, F16 and BF16", qz_dtype_name(s->type));
    *out = qz_arena_printf(arena,
                           "{\"quant_type\": \"%s\", \"blocksize\": %lld, \"dtype\": \"%s\", \"shape\": [%lld, %lld]",
                           quant, (long long)s->block, type, (long long)s->n, (long long)s->k);
    if (!*out) return qz_arena_failed(arena);
    *size = strlen(*out) + 1;
    if (s->nested) {
        *out = qz_arena_printf(arena,
                               "%s, \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": ", *out,
                               QZ_DOUBLE_BLOCK);
        if (!*out) return qz_arena_failed(arena);
        *size = strlen(*out) + LONGEST_NUMBER + 1;
        print_number(offset, (double)s->offset);
    }
    *out = qz_arena_printf(arena, "%s%s}%*s", *out, s->nested ? offset : "", LONGEST_NUMBER, "");
    return *out ? QZ_OK : qz_arena_failed(arena);
}

qz_status qz_bnb_state_size(int64_t *size, const qz_bnb_state *s, qz_arena *scratch)
{
    char *text;
    size_t bytes = 0;
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status = text_of(&text, &bytes, s, scratch);
    qz_arena_restore(scratch, mark);
    *size = (int64_t)bytes;
    return status;
}

qz_status qz_bnb_state_print(char **out, const qz_bnb_state *s, qz_arena *arena)
{
    size_t bytes = 0;
    QZ_TRY(text_of(out, &bytes, s, arena));
    (*out)[bytes] = '\0';
    return QZ_OK;
}

/* ---- reading ---- */

static qz_status read_names(qz_bnb_state *out, const qz_json_node *root)
{
    const char *quant, *type;
    QZ_TRY(qz_json_string(qz_json_get(root, "quant_type"), "quant_type", &quant));
    out->format = qz_format_find(quant);
    if (out->format == QZ_FORMAT_COUNT || qz_format_of(out->format)->kind != QZ_KIND_CODEBOOK)
        return QZ_FAIL(QZ_FORMAT, "quant_type: found \"%s\", expected \"nf4\" or \"fp4\"", quant);
    QZ_TRY(qz_json_string(qz_json_get(root, "dtype"), "dtype", &type));
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, type) == 0) {
            out->type = types[i].type;
            return QZ_OK;
        }
    return QZ_FAIL(QZ_FORMAT, "dtype: found \"%s\", expected \"bfloat16\", \"float16\" or \"float32\"", type);
}

static qz_status read_shape(qz_bnb_state *out, const qz_json_node *shape)
{
    if (!qz_json_is(shape, QZ_JSON_ARRAY) || qz_json_count(shape) != 2)
        return QZ_FAIL(QZ_FORMAT, "shape: expected two numbers");
    const qz_json_node *n = qz_json_first(shape);
    QZ_TRY(qz_json_int(n, "shape[0]", 1, INT32_MAX, &out->n));
    return qz_json_int(qz_json_next(n), "shape[1]", 1, INT32_MAX, &out->k);
}

static qz_status read_nested(qz_bnb_state *out, const qz_json_node *root)
{
    int64_t block;
    double offset;
    const char *type;
    out->nested = qz_json_get(root, "nested_blocksize") != NULL;
    if (!out->nested) return QZ_OK;
    QZ_TRY(qz_json_int(qz_json_get(root, "nested_blocksize"), "nested_blocksize", QZ_DOUBLE_BLOCK, QZ_DOUBLE_BLOCK,
                       &block));
    QZ_TRY(qz_json_string(qz_json_get(root, "nested_dtype"), "nested_dtype", &type));
    if (strcmp(type, "float32") != 0)
        return QZ_FAIL(QZ_FORMAT, "nested_dtype: found \"%s\", expected \"float32\"", type);
    QZ_TRY(qz_json_number(qz_json_get(root, "nested_offset"), "nested_offset", -FLT_MAX, FLT_MAX, &offset));
    out->offset = (float)offset;
    return QZ_OK;
}

static qz_status read_all(qz_bnb_state *out, const qz_json_node *root)
{
    *out = (qz_bnb_state){0};
    if (!qz_json_is(root, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "found %s, expected an object", qz_json_type_name(qz_json_type_of(root)));
    QZ_TRY(read_names(out, root));
    QZ_TRY(qz_json_int(qz_json_get(root, "blocksize"), "blocksize", 2, 1 << 20, &out->block));
    QZ_TRY(read_shape(out, qz_json_get(root, "shape")));
    return read_nested(out, root);
}

qz_status qz_bnb_state_parse(qz_bnb_state *out, const char *text, size_t size)
{
    qz_json *doc;
    QZ_TRY(qz_json_parse(&doc, text, size));
    qz_status status = read_all(out, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}
