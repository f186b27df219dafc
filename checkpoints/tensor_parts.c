/* Names, types, shapes and exact values of a module's tensors. */
#include "checkpoints/tensor_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "numeric/minifloat.h"

enum { NAME = 1024 };

qz_status qz_part_check_type(const qz_ckpt *c, const qz_stored *t, qz_dtype type)
{
    bool plain = type == QZ_DTYPE_COUNT;
    if (plain ? qz_dtype_is_plain(t->view.dtype) : t->view.dtype == type) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT, "%s/%s: tensor \"%s\" has the type %s; %s is expected", qz_ckpt_folder(c), t->file,
                   t->name, qz_dtype_name(t->view.dtype), plain ? "F32, F16 or BF16" : qz_dtype_name(type));
}

qz_status qz_part_find(const qz_stored **out, const qz_ckpt *c, const char *module, const char *suffix, qz_dtype type,
                       int ndim, const int64_t *shape)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, suffix);
    if (!t) return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s.%s\" is missing", qz_ckpt_folder(c), module, suffix);
    QZ_TRY(qz_part_check_type(c, t, type));
    QZ_TRY(qz_ckpt_check_shape(c, t, ndim, shape));
    *out = t;
    return QZ_OK;
}

static float decode_at(const uint8_t *data, qz_dtype type, int64_t i)
{
    float wide;
    uint16_t half;
    if (type == QZ_F32) {
        memcpy(&wide, data + i * (int64_t)sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&half, data + i * (int64_t)sizeof half, sizeof half);
    return type == QZ_F16 ? qz_f16_decode(half) : qz_bf16_decode(half);
}

qz_status qz_part_floats(float *out, const qz_ckpt *c, const qz_stored *t)
{
    QZ_TRY(qz_part_check_type(c, t, QZ_DTYPE_COUNT));
    for (int64_t i = 0; i < qz_tensor_count(&t->view); i++) {
        out[i] = decode_at(t->view.data, t->view.dtype, i);
        if (!isfinite(out[i]))
            return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds %s at element %lld; scales must be finite",
                           qz_ckpt_folder(c), t->file, t->name, isnan(out[i]) ? "NaN" : "an infinity", (long long)i);
    }
    return QZ_OK;
}

static qz_status name_of(char *out, const char *module, const char *suffix)
{
    int n = snprintf(out, NAME, "%s.%s", module, suffix);
    return n > 0 && n < NAME ? QZ_OK : QZ_FAIL(QZ_ARG, "%s: the name is too long", module);
}

qz_status qz_part_declare(qz_shards *s, const char *module, const char *suffix, qz_dtype type, int ndim,
                          const int64_t *shape)
{
    char name[NAME];
    QZ_TRY(name_of(name, module, suffix));
    return qz_shards_declare(s, module, name, type, ndim, shape);
}

qz_status qz_part_write(qz_shards *s, const char *module, const char *suffix, const void *data, size_t bytes)
{
    char name[NAME];
    QZ_TRY(name_of(name, module, suffix));
    return qz_shards_write(s, name, data, bytes);
}

static qz_status check_exact(const char *module, const char *suffix, const float *x, const float *stored, int64_t count,
                             qz_dtype type)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(x[i]) || x[i] != stored[i])
            return QZ_FAIL(QZ_NUMERIC, "%s.%s: %.9g at element %lld is not a number of %s", module, suffix,
                           (double)x[i], (long long)i, qz_dtype_name(type));
    return QZ_OK;
}

qz_status qz_part_write_floats(qz_shards *s, const char *module, const char *suffix, qz_dtype type, const float *x,
                               int64_t count, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    size_t width = (size_t)qz_dtype_bits(type) / 8;
    void *out = qz_arena_alloc(scratch, (size_t)count * width);
    float *back = qz_arena_array(scratch, float, (size_t)count);
    qz_status status = out && back ? qz_convert(out, type, x, QZ_F32, count) : qz_arena_failed(scratch);
    if (status == QZ_OK) status = qz_convert(back, QZ_F32, out, type, count);
    if (status == QZ_OK) status = check_exact(module, suffix, x, back, count, type);
    if (status == QZ_OK) status = qz_part_write(s, module, suffix, out, (size_t)count * width);
    qz_arena_restore(scratch, mark);
    return status;
}

qz_status qz_part_write_words(qz_shards *s, const char *module, const char *suffix, const uint8_t *codes,
                              const qz_packing *p, qz_arena *scratch)
{
    const size_t words = (size_t)(p->lines * qz_packing_words(p->count, p->bits));
    uint32_t *out = qz_arena_array(scratch, uint32_t, words);
    if (!out) return qz_arena_failed(scratch);
    qz_packing_pack(out, codes, p);
    return qz_part_write(s, module, suffix, out, words * sizeof *out);
}

qz_format qz_part_int_format(int bits)
{
    int f = 0;
    while (f < QZ_FORMAT_COUNT) {
        const qz_format_info *info = qz_format_of((qz_format)f);
        if (info->kind == QZ_KIND_INTEGER && info->bits == bits) break;
        f++;
    }
    return (qz_format)f;
}

qz_status qz_part_check_matrix(const qz_export_linear *l, const qz_qtensor *q)
{
    if (q->rows == l->n && q->cols == l->k && qz_scheme_same(&q->scheme, &l->scheme)) return QZ_OK;
    return QZ_FAIL(QZ_SHAPE,
                   "%s: the quantized matrix (%lld, %lld) is not the declared (%lld, %lld), or has another scheme",
                   l->module, (long long)q->rows, (long long)q->cols, (long long)l->n, (long long)l->k);
}

qz_status qz_part_finish_text(char **out, qz_json_writer *w, qz_arena *arena)
{
    const char *text;
    size_t size = 0;
    qz_status status = qz_json_writer_finish(w, &text, &size);
    while (status == QZ_OK && size > 0 && text[size - 1] == '\n') size--;
    if (status == QZ_OK && !(*out = qz_arena_printf(arena, "%.*s", (int)size, text))) status = qz_arena_failed(arena);
    qz_json_writer_free(w);
    return status;
}
