/* NF4 and FP4 weights of bitsandbytes <-> qz_qtensor.
 *
 *   <module>.weight                     U8 ((N K + 1) / 2, 1)   codes row by row, the even one in the high half
 *   <module>.weight.absmax              F32 (blocks), or U8 codes of scales with double quantization
 *   <module>.weight.quant_map           F32 (16)                the code table
 *   <module>.weight.nested_absmax       F32 (blocks / 256)      second scales
 *   <module>.weight.nested_quant_map    F32 (256)               the dynamic map
 *   <module>.weight.quant_state.bitsandbytes__nf4   U8 text     bnb_state.c
 * A block is a run of 64 values across row ends. The table is the format's own: kernels use theirs, whatever the file
 * says, so a file with another one is refused. Scales are restored with the map that the file holds. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/parallel.h"
#include "checkpoints/bnb_state.h"
#include "checkpoints/bnb_weights.h"
#include "checkpoints/tensor_parts.h"
#include "numeric/codebook.h"

enum { TABLE = 16, MAP = 256, CHUNK = 1 << 16 };

#define STATE "weight.quant_state.bitsandbytes__"
#define TABLE_SLACK 1e-6f /* of a table's value: another way of printing it, not another table */

void qz_bnb_cut(qz_scheme *s, int64_t block, int64_t k)
{
    const bool whole = k % block == 0;
    s->piece_rows = whole ? 1 : 0;
    s->piece_cols = whole ? block : 0;
    s->flat = whole ? 0 : block;
}

static const qz_stored *state_of(const qz_ckpt *c, const char *module)
{
    const qz_stored *t = qz_ckpt_find_part(c, module, STATE "nf4");
    return t ? t : qz_ckpt_find_part(c, module, STATE "fp4");
}

bool qz_bnb_holds_4bit(const qz_ckpt *c, const char *module)
{
    return state_of(c, module) != NULL;
}

/* ---- reading ---- */

static qz_status read_state(qz_bnb_state *out, const qz_ckpt *c, const char *module, int64_t n, int64_t k)
{
    const qz_stored *t = state_of(c, module);
    QZ_TRY(qz_part_check_type(c, t, QZ_U8));
    QZ_TRY_CTX(qz_bnb_state_parse(out, t->view.data, t->bytes), "%s/%s: tensor \"%s\"", qz_ckpt_folder(c), t->file,
               t->name);
    if (out->n == n && out->k == k) return QZ_OK;
    return QZ_FAIL(QZ_SHAPE, "%s/%s: tensor \"%s\" says the shape [%lld, %lld]; [%lld, %lld] is expected",
                   qz_ckpt_folder(c), t->file, t->name, (long long)out->n, (long long)out->k, (long long)n,
                   (long long)k);
}

static qz_status check_table(const qz_ckpt *c, const char *module, qz_format format)
{
    const qz_stored *t;
    float table[TABLE];
    QZ_TRY(qz_part_find(&t, c, module, "weight.quant_map", QZ_F32, 1, (int64_t[]){TABLE}));
    QZ_TRY(qz_part_floats(table, c, t));
    for (int i = 0; i < TABLE; i++)
        if (fabsf(table[i] - qz_codebook_value(i, format)) > TABLE_SLACK)
            return QZ_FAIL(QZ_UNSUPPORTED, "%s/%s: tensor \"%s\" has %.9g at [%d]; the table of %s has %.9g there",
                           qz_ckpt_folder(c), t->file, t->name, (double)table[i], i, qz_format_of(format)->name,
                           (double)qz_codebook_value(i, format));
    return QZ_OK;
}

static qz_status read_double(qz_qtensor *q, const qz_ckpt *c, const char *module, int64_t pieces, float offset)
{
    const qz_stored *codes, *second, *map;
    float value[MAP];
    const int64_t blocks = (pieces + QZ_DOUBLE_BLOCK - 1) / QZ_DOUBLE_BLOCK;
    QZ_TRY(qz_part_find(&codes, c, module, "weight.absmax", QZ_U8, 1, &pieces));
    QZ_TRY(qz_part_find(&second, c, module, "weight.nested_absmax", QZ_F32, 1, &blocks));
    QZ_TRY(qz_part_find(&map, c, module, "weight.nested_quant_map", QZ_F32, 1, (int64_t[]){MAP}));
    QZ_TRY(qz_part_floats(q->second_scales, c, second));
    QZ_TRY(qz_part_floats(value, c, map));
    memcpy(q->scale_codes, codes->view.data, (size_t)pieces);
    q->scale_offset = offset;
    for (int64_t i = 0; i < pieces; i++)
        q->scales[i] = value[q->scale_codes[i]] * q->second_scales[i / QZ_DOUBLE_BLOCK] + offset;
    return QZ_OK;
}

static qz_status read_scales(qz_qtensor *q, const qz_ckpt *c, const char *module, float offset)
{
    const qz_stored *t;
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    if (q->scheme.double_quant) return read_double(q, c, module, pieces, offset);
    QZ_TRY(qz_part_find(&t, c, module, "weight.absmax", QZ_F32, 1, &pieces));
    return qz_part_floats(q->scales, c, t);
}

static void unpack(uint8_t *codes, const uint8_t *bytes, int64_t count)
{
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < count / 2; first += CHUNK) {
        const int64_t end = first + CHUNK < count / 2 ? first + CHUNK : count / 2;
        for (int64_t i = first; i < end; i++) {
            codes[2 * i] = bytes[i] >> 4;
            codes[2 * i + 1] = bytes[i] & 15;
        }
    }
    if (count % 2) codes[count - 1] = bytes[count / 2] >> 4;
}

qz_status qz_bnb_read_4bit(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out, qz_arena *arena)
{
    qz_bnb_state state;
    const qz_stored *weight;
    QZ_TRY(read_state(&state, c, module, n, k));
    QZ_TRY(check_table(c, module, state.format));
    QZ_TRY(qz_part_find(&weight, c, module, "weight", QZ_U8, 2, (int64_t[]){(n * k + 1) / 2, 1}));
    qz_scheme scheme = {.format = state.format, .symmetric = true, .scale_type = QZ_F32, .double_quant = state.nested};
    qz_bnb_cut(&scheme, state.block, k);
    QZ_TRY(qz_qtensor_alloc(out, &scheme, n, k, arena));
    unpack(out->codes, weight->view.data, n * k);
    return read_scales(out, c, module, state.offset);
}

/* ---- writing ---- */

static qz_bnb_state state_for(const qz_export_linear *l, float offset)
{
    return (qz_bnb_state){.format = l->scheme.format,
                          .block = QZ_BNB_BLOCK,
                          .type = l->plain_type,
                          .n = l->n,
                          .k = l->k,
                          .nested = l->scheme.double_quant,
                          .offset = offset};
}

static void state_name(char out[64], qz_format format)
{
    snprintf(out, 64, STATE "%s", qz_format_of(format)->name);
}

static qz_status state_size(int64_t *size, const qz_export_linear *l)
{
    qz_arena *arena;
    const qz_bnb_state state = state_for(l, 0);
    QZ_TRY(qz_arena_new(&arena, "quant_state"));
    qz_status status = qz_bnb_state_size(size, &state, arena);
    qz_arena_free(arena);
    return status;
}

qz_status qz_bnb_declare_4bit(qz_shards *s, const qz_export_linear *l)
{
    char name[64];
    int64_t size;
    const int64_t pieces = qz_scheme_pieces(&l->scheme, l->n, l->k), table = TABLE, map = MAP,
                  blocks = (pieces + QZ_DOUBLE_BLOCK - 1) / QZ_DOUBLE_BLOCK;
    const bool twice = l->scheme.double_quant;
    state_name(name, l->scheme.format);
    QZ_TRY(state_size(&size, l));
    QZ_TRY(qz_part_declare(s, l->module, "weight", QZ_U8, 2, (int64_t[]){(l->n * l->k + 1) / 2, 1}));
    QZ_TRY(qz_part_declare(s, l->module, "weight.absmax", twice ? QZ_U8 : QZ_F32, 1, &pieces));
    QZ_TRY(qz_part_declare(s, l->module, "weight.quant_map", QZ_F32, 1, &table));
    QZ_TRY(qz_part_declare(s, l->module, name, QZ_U8, 1, &size));
    if (!twice) return QZ_OK;
    QZ_TRY(qz_part_declare(s, l->module, "weight.nested_absmax", QZ_F32, 1, &blocks));
    return qz_part_declare(s, l->module, "weight.nested_quant_map", QZ_F32, 1, &map);
}

/* An odd last code has a partner: that of 0, as the library pads. */
static void pack(uint8_t *bytes, const uint8_t *codes, int64_t count, qz_format format)
{
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < count / 2; first += CHUNK) {
        const int64_t end = first + CHUNK < count / 2 ? first + CHUNK : count / 2;
        for (int64_t i = first; i < end; i++) bytes[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
    }
    if (count % 2) bytes[count / 2] = (uint8_t)(codes[count - 1] << 4 | qz_codebook_encode(0, 1, format));
}

static qz_status write_codes(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const int64_t count = l->n * l->k;
    uint8_t *bytes = qz_arena_alloc(scratch, (size_t)(count + 1) / 2);
    if (!bytes) return qz_arena_failed(scratch);
    pack(bytes, q->codes, count, q->scheme.format);
    return qz_part_write(s, l->module, "weight", bytes, (size_t)(count + 1) / 2);
}

static qz_status write_table(qz_shards *s, const qz_export_linear *l, qz_arena *scratch)
{
    float table[TABLE];
    for (int i = 0; i < TABLE; i++) table[i] = qz_codebook_value(i, l->scheme.format);
    return qz_part_write_floats(s, l->module, "weight.quant_map", QZ_F32, table, TABLE, scratch);
}

/* What a reader will restore is what the codes were decoded with. */
static qz_status check_restored(const qz_export_linear *l, const qz_qtensor *q, int64_t pieces)
{
    for (int64_t i = 0; i < pieces; i++) {
        const float scale = qz_double_decode(q->scale_codes[i], q->second_scales[i / QZ_DOUBLE_BLOCK], q->scale_offset);
        if (scale != q->scales[i])
            return QZ_FAIL(QZ_NUMERIC, "%s: scale %lld is %.9g, but its code gives %.9g", l->module, (long long)i,
                           (double)q->scales[i], (double)scale);
    }
    return QZ_OK;
}

static qz_status write_scales(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    const int64_t pieces = qz_scheme_pieces(&l->scheme, l->n, l->k);
    float map[MAP];
    if (!l->scheme.double_quant)
        return qz_part_write_floats(s, l->module, "weight.absmax", QZ_F32, q->scales, pieces, scratch);
    QZ_TRY(check_restored(l, q, pieces));
    for (int i = 0; i < MAP; i++) map[i] = qz_dynamic_decode(i);
    QZ_TRY(qz_part_write(s, l->module, "weight.absmax", q->scale_codes, (size_t)pieces));
    QZ_TRY(qz_part_write_floats(s, l->module, "weight.nested_quant_map", QZ_F32, map, MAP, scratch));
    return qz_part_write_floats(s, l->module, "weight.nested_absmax", QZ_F32, q->second_scales,
                                (pieces + QZ_DOUBLE_BLOCK - 1) / QZ_DOUBLE_BLOCK, scratch);
}

static qz_status write_state(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    char name[64], *text;
    const qz_bnb_state state = state_for(l, q->scale_offset);
    state_name(name, l->scheme.format);
    QZ_TRY(qz_bnb_state_print(&text, &state, scratch));
    return qz_part_write(s, l->module, name, text, strlen(text));
}

qz_status qz_bnb_write_4bit(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, qz_arena *scratch)
{
    QZ_TRY(write_codes(s, l, q, scratch));
    QZ_TRY(write_table(s, l, scratch));
    QZ_TRY(write_scales(s, l, q, scratch));
    return write_state(s, l, q, scratch);
}
