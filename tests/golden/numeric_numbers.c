/* The safetensors files of golden/numbers: tables and casts by torch, integer and fp8 grids by compressed-tensors. Bits
 * are equal; a NaN only has to be a NaN. Shapes decide the granularity; tensors of later formats are listed as skipped.
 */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoints/checkpoints.h"
#include "numeric/codebook.h"
#include "numeric/floatgrid.h"
#include "numeric/intgrid.h"
#include "numeric/minifloat.h"
#include "testing/testing.h"
#include "testing/tolerances.h"

typedef float (*decode_fn)(uint8_t bits);
typedef uint32_t (*cast_fn)(float x);

static const qz_stored *tensor(const qz_safetensors *st, const char *prefix, const char *suffix)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    return qz_safetensors_find(st, name);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void same_float(float ours, float theirs, const char *what, int64_t i)
{
    const bool same = isnan(theirs) ? isnan(ours) : qz_float_bits(ours) == qz_float_bits(theirs);
    cr_assert(same, "%s[%ld]: ours %.9g (%08x), expected %.9g (%08x)", what, (long)i, ours, qz_float_bits(ours), theirs,
              qz_float_bits(theirs));
}

/* ---- decode ---- */

static float to_nf4(uint8_t code)
{
    return qz_codebook_value(code, QZ_FORMAT_NF4);
}
static float to_fp4(uint8_t code)
{
    return qz_codebook_value(code, QZ_FORMAT_FP4);
}
static float to_dynamic(uint8_t code)
{
    return qz_dynamic_decode(code);
}

static int check_decode(const qz_safetensors *st, const char *file)
{
    static const struct {
        const char *name;
        decode_fn decode;
    } known[] = {{"e4m3fn", qz_e4m3_decode},
                 {"e5m2", qz_e5m2_decode},
                 {"nf4", to_nf4},
                 {"fp4_bnb", to_fp4},
                 {"dynamic_map_bnb", to_dynamic}};
    enum { KNOWN = sizeof known / sizeof *known };
    int checked = 0;
    for (size_t t = 0; t < qz_safetensors_count(st); t++) {
        const qz_stored *s = qz_safetensors_at(st, t);
        size_t k = 0;
        while (k < KNOWN && strcmp(known[k].name, s->name) != 0) k++;
        if (k == KNOWN) {
            printf("skipped: %s of %s (a later format)\n", s->name, file);
            continue;
        }
        const int64_t count = qz_tensor_count(&s->view);
        for (int64_t i = 0; i < count; i++) same_float(known[k].decode((uint8_t)i), qz_f32(&s->view)[i], s->name, i);
        checked++;
    }
    return checked;
}

/* ---- casts ---- */

static uint32_t to_bf16(float x)
{
    return qz_bf16_encode(x);
}
static uint32_t to_f16(float x)
{
    return qz_f16_encode(x);
}
static uint32_t to_e4m3(float x)
{
    return qz_e4m3_encode(x);
}
static uint32_t to_e4m3_ieee(float x)
{
    return qz_e4m3_encode_ieee(x);
}
static uint32_t to_e5m2(float x)
{
    return qz_e5m2_encode(x);
}
static uint32_t to_e5m2_ieee(float x)
{
    return qz_e5m2_encode_ieee(x);
}
static bool bf16_nan(uint32_t u)
{
    return (u & 0x7FFF) > 0x7F80;
}
static bool f16_nan(uint32_t u)
{
    return (u & 0x7FFF) > 0x7C00;
}
static bool e4m3_nan(uint32_t u)
{
    return (u & 0x7F) == 0x7F;
}
static bool e5m2_nan(uint32_t u)
{
    return (u & 0x7F) > 0x7C;
}

static const struct {
    const char *name;
    cast_fn cast;
    bool (*is_nan)(uint32_t);
} casts[] = {
    {"bf16", to_bf16, bf16_nan},       {"fp16", to_f16, f16_nan},
    {"e4m3fn.sat", to_e4m3, e4m3_nan}, {"e4m3fn.torch", to_e4m3_ieee, e4m3_nan},
    {"e5m2.sat", to_e5m2, e5m2_nan},   {"e5m2.torch", to_e5m2_ieee, e5m2_nan},
};
enum { CASTS = sizeof casts / sizeof casts[0] };

static float cast_input(const qz_safetensors *st, const char *file, int64_t i)
{
    const qz_stored *bits = qz_safetensors_find(st, "bits");
    if (bits) return qz_bits_float(((const uint32_t *)bits->view.data)[i]);
    return strstr(file, "bf16") ? qz_bf16_decode((uint16_t)i) : qz_f16_decode((uint16_t)i);
}

static int check_casts(const qz_safetensors *st, const char *file)
{
    int checked = 0;
    for (size_t t = 0; t < qz_safetensors_count(st); t++) {
        const qz_stored *s = qz_safetensors_at(st, t);
        int k = 0;
        while (k < CASTS && strcmp(casts[k].name, s->name) != 0) k++;
        if (k == CASTS) {
            if (strcmp(s->name, "bits") != 0) printf("skipped: %s of %s (a later format)\n", s->name, file);
            continue;
        }
        const int64_t count = qz_tensor_count(&s->view);
        const bool narrow = qz_dtype_bits(s->view.dtype) == 8;
        for (int64_t i = 0; i < count; i++) {
            const float x = cast_input(st, file, i);
            const uint32_t ours = casts[k].cast(x);
            const uint32_t theirs = narrow ? ((const uint8_t *)s->view.data)[i] : ((const uint16_t *)s->view.data)[i];
            cr_assert(casts[k].is_nan(theirs) ? casts[k].is_nan(ours) : ours == theirs,
                      "%s %s[%ld]: %.9g gives %04x, expected %04x", file, s->name, (long)i, x, ours, theirs);
        }
        checked++;
    }
    return checked;
}

/* ---- grids ---- */

typedef struct pieces {
    int64_t n, k, rows, cols, piece_rows, piece_cols;
} pieces;

/* The shape of the scales says how the matrix was cut. */
static pieces pieces_of(const qz_tensor *w, const qz_tensor *scale)
{
    pieces p = {.n = w->shape[0], .k = w->shape[1], .rows = 1, .cols = 1};
    if (scale->ndim == 2) {
        p.rows = scale->shape[0];
        p.cols = scale->shape[1];
    }
    p.piece_rows = p.n / p.rows;
    p.piece_cols = p.k / p.cols;
    return p;
}

static void piece_range(float *lo, float *hi, const float *w, const pieces *p, int64_t r, int64_t c)
{
    *lo = *hi = 0;
    for (int64_t n = r * p->piece_rows; n < (r + 1) * p->piece_rows; n++) {
        float l, h;
        qz_range_of(&l, &h, w + n * p->k + c * p->piece_cols, p->piece_cols);
        *lo = fminf(*lo, l);
        *hi = fmaxf(*hi, h);
    }
}

static void check_int_piece(const qz_safetensors *st, const char *key, int bits, const pieces *p, int64_t piece)
{
    const float *w = qz_f32(&qz_safetensors_find(st, "w")->view), *scale = qz_f32(&tensor(st, key, ".scale")->view);
    const float *dequant = qz_f32(&tensor(st, key, ".dequant")->view);
    const int8_t *codes = tensor(st, key, ".codes")->view.data;
    const qz_stored *zero = tensor(st, key, ".zero");
    const int64_t r = piece / p->cols, c = piece % p->cols;
    const int half = 1 << (bits - 1);
    float lo, hi;
    piece_range(&lo, &hi, w, p, r, c);
    const qz_grid g = qz_grid_of(lo, hi, bits, zero == NULL, QZ_F32, QZ_ROUND_SUM);
    const bool all_zero = lo == 0 && hi == 0; /* the library's zero point of such a slice is not portable */
    same_float(g.scale, scale[piece], key, piece);
    if (zero && !all_zero)
        cr_assert(g.zero - half == ((const int8_t *)zero->view.data)[piece], "%s zero[%ld]: ours %d, expected %d", key,
                  (long)piece, g.zero - half, ((const int8_t *)zero->view.data)[piece]);
    for (int64_t e = 0; e < p->piece_rows * p->piece_cols; e++) {
        const int64_t i = (r * p->piece_rows + e / p->piece_cols) * p->k + c * p->piece_cols + e % p->piece_cols;
        const int code = qz_grid_encode(w[i], g, QZ_ROUND_SUM);
        if (!all_zero)
            cr_assert(code - half == codes[i], "%s codes[%ld]: %.9g gives %d, expected %d", key, (long)i, w[i],
                      code - half, codes[i]);
        same_float(qz_grid_decode(code, g), dequant[i], key, i);
    }
}

static void check_fp8_piece(const qz_safetensors *st, const char *key, const pieces *p, int64_t piece)
{
    const float *w = qz_f32(&qz_safetensors_find(st, "w")->view), *scale = qz_f32(&tensor(st, key, ".scale")->view);
    const float *dequant = qz_f32(&tensor(st, key, ".dequant")->view);
    const uint8_t *codes = tensor(st, key, ".codes")->view.data;
    const int64_t r = piece / p->cols, c = piece % p->cols;
    float lo, hi;
    piece_range(&lo, &hi, w, p, r, c);
    const float ours = qz_float_scale(fmaxf(-lo, hi), QZ_FORMAT_FP8_E4M3, QZ_F32);
    same_float(ours, scale[piece], key, piece);
    for (int64_t e = 0; e < p->piece_rows * p->piece_cols; e++) {
        const int64_t i = (r * p->piece_rows + e / p->piece_cols) * p->k + c * p->piece_cols + e % p->piece_cols;
        const uint8_t code = qz_float_encode(w[i], ours, QZ_FORMAT_FP8_E4M3);
        cr_assert(code == codes[i], "%s codes[%ld]: %.9g gives %02x, expected %02x", key, (long)i, w[i], code,
                  codes[i]);
        same_float(qz_float_decode(code, ours, QZ_FORMAT_FP8_E4M3), dequant[i], key, i);
    }
}

/* Every tensor NAME.scale with its NAME.codes, NAME.dequant and perhaps NAME.zero is a case. */
static int check_grids(const qz_safetensors *st, const char *file)
{
    int checked = 0;
    for (size_t t = 0; t < qz_safetensors_count(st); t++) {
        const qz_stored *s = qz_safetensors_at(st, t);
        char key[128];
        int bits = 0;
        if (!ends_with(s->name, ".scale")) continue;
        snprintf(key, sizeof key, "%.*s", (int)(strlen(s->name) - strlen(".scale")), s->name);
        const bool integer = sscanf(key, "int%d.", &bits) == 1;
        if (!integer && strncmp(key, "fp8.", 4) != 0) {
            printf("skipped: %s of %s (a later format)\n", key, file);
            continue;
        }
        const pieces p = pieces_of(&qz_safetensors_find(st, "w")->view, &s->view);
        for (int64_t i = 0; i < p.rows * p.cols; i++) {
            if (integer)
                check_int_piece(st, key, bits, &p, i);
            else
                check_fp8_piece(st, key, &p, i);
        }
        checked++;
    }
    return checked;
}

/* ---- bitsandbytes' 4-bit blocks ---- */

typedef struct blocks {
    qz_format format;
    const float *w;
    int64_t count, blocks; /* numbers, blocks of 64 of them */
    float *absmax;         /* (blocks), ours */
} blocks;

/* The two decode alike, or the weight lies at the middle of two values. */
static void check_block_codes(const blocks *b, const uint8_t *packed, const char *key)
{
    for (int64_t i = 0; i < b->count; i++) {
        const float scale = b->absmax[i / 64], x = scale > 0 ? b->w[i] / scale : 0;
        const uint8_t theirs = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
        const float ours = qz_codebook_value(qz_codebook_encode(b->w[i], scale, b->format), b->format),
                    other = qz_codebook_value(theirs, b->format);
        const float off = fabsf(x - ours) - fabsf(x - other);
        cr_assert(ours == other || fabsf(off) <= TOL_MIDPOINT, "%s code %ld: %.9g gives %.9g, expected %.9g", key,
                  (long)i, (double)x, (double)ours, (double)other);
    }
}

/* Their codes with our order of operations give their values. */
static void check_restored(const qz_safetensors *st, const char *key, const blocks *b)
{
    const uint8_t *codes = tensor(st, key, ".absmax")->view.data;
    const float *second = qz_f32(&tensor(st, key, ".nested_absmax")->view),
                *offset = qz_f32(&tensor(st, key, ".offset")->view),
                *restored = qz_f32(&tensor(st, key, ".restored_absmax")->view);
    for (int64_t i = 0; i < b->blocks; i++) {
        const float ours = qz_double_decode(codes[i], second[i / QZ_DOUBLE_BLOCK], *offset);
        cr_assert(fabsf(ours - restored[i]) <= TOL_SCALE_RESTORED * fabsf(*offset), "%s scale %ld", key, (long)i);
    }
}

/* The scales quantized by us: mean, largest rest, and codes as near as theirs. */
static void check_double(const qz_safetensors *st, const char *key, const blocks *b)
{
    const qz_scheme s = {.format = b->format, .flat = 64, .double_quant = true};
    const uint8_t *theirs = tensor(st, key, ".absmax")->view.data;
    const float offset = *qz_f32(&tensor(st, key, ".offset")->view),
                *second = qz_f32(&tensor(st, key, ".nested_absmax")->view);
    qz_arena *arena;
    qz_qtensor q;
    check_ok(qz_arena_new(&arena, "blocks"));
    check_ok(qz_qtensor_alloc(&q, &s, 1, b->count, arena));
    memcpy(q.scales, b->absmax, (size_t)b->blocks * sizeof(float));
    qz_qtensor_quantize_scales(&q);
    cr_assert(fabsf(q.scale_offset - offset) <= TOL_SCALE_RESTORED * offset, "%s: offset %.9g, expected %.9g", key,
              (double)q.scale_offset, (double)offset);
    for (int64_t i = 0; i < b->blocks; i++) {
        const float most = second[i / QZ_DOUBLE_BLOCK], x = (b->absmax[i] - offset) / most;
        cr_assert(fabsf(q.second_scales[i / QZ_DOUBLE_BLOCK] - most) <= TOL_SCALE_RESTORED * most, "%s", key);
        const float ours = fabsf(x - qz_dynamic_decode(q.scale_codes[i])),
                    other = fabsf(x - qz_dynamic_decode(theirs[i]));
        cr_assert(fabsf(ours - other) <= TOL_DYNAMIC_MAP, "%s scale code %ld: %d, expected %d", key, (long)i,
                  q.scale_codes[i], theirs[i]);
    }
    check_restored(st, key, b);
    qz_arena_free(arena);
}

static void check_values(const qz_safetensors *st, const char *key, const blocks *b, const uint8_t *packed)
{
    const float *absmax = qz_f32(&tensor(st, key, ".absmax")->view),
                *dequant = qz_f32(&tensor(st, key, ".dequant")->view);
    for (int64_t i = 0; i < b->blocks; i++) same_float(b->absmax[i], absmax[i], key, i);
    for (int64_t i = 0; i < b->count; i++) {
        const uint8_t code = i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
        cr_assert(qz_codebook_decode(code, absmax[i / 64], b->format) == dequant[i], "%s value %ld", key, (long)i);
    }
}

static int check_blocks(const qz_safetensors *st, const char *file)
{
    static const char *const keys[] = {"nf4", "nf4.double", "fp4", "fp4.double"};
    const qz_tensor *w = &qz_safetensors_find(st, "w")->view;
    blocks b = {.w = qz_f32(w), .count = qz_tensor_count(w)};
    b.blocks = (b.count + 63) / 64;
    b.absmax = calloc((size_t)b.blocks, sizeof(float));
    for (int64_t i = 0; i < b.count; i++) b.absmax[i / 64] = fmaxf(b.absmax[i / 64], fabsf(b.w[i]));
    for (int i = 0; i < 4; i++) {
        const qz_stored *packed = tensor(st, keys[i], ".packed");
        cr_assert(packed != NULL, "%s: %s.packed is missing", file, keys[i]);
        b.format = i < 2 ? QZ_FORMAT_NF4 : QZ_FORMAT_FP4;
        check_block_codes(&b, packed->view.data, keys[i]);
        if (i % 2)
            check_double(st, keys[i], &b);
        else
            check_values(st, keys[i], &b, packed->view.data);
    }
    free(b.absmax);
    return 4;
}

static const struct {
    const char *prefix;
    int (*check)(const qz_safetensors *st, const char *file);
} kinds[] = {{"decode", check_decode},
             {"cast_from_", check_casts},
             {"ct_int", check_grids},
             {"ct_fp8", check_grids},
             {"bnb_4bit", check_blocks}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* Tensors or cases that were compared. */
static int check_file(const char *file)
{
    char path[512];
    qz_safetensors *st;
    int k = 0, checked;
    snprintf(path, sizeof path, "%s/%s", golden_path("numbers"), file);
    while (k < KINDS && strncmp(file, kinds[k].prefix, strlen(kinds[k].prefix)) != 0) k++;
    if (k == KINDS) {
        printf("skipped: %s (a later format)\n", file);
        return 0;
    }
    check_ok(qz_safetensors_open(&st, path));
    checked = kinds[k].check(st, file);
    cr_assert(checked > 0, "%s: nothing in it was compared", path);
    qz_safetensors_close(st);
    return checked;
}

Test(golden_numbers, every_file)
{
    DIR *folder = opendir(golden_path("numbers"));
    int checked = 0;
    cr_assert(folder != NULL, "%s cannot be opened", golden_path("numbers"));
    for (struct dirent *e = readdir(folder); e; e = readdir(folder)) {
        if (ends_with(e->d_name, ".safetensors")) checked += check_file(e->d_name);
    }
    closedir(folder);
    cr_assert(checked > 0, "no numbers in %s", golden_path("numbers"));
    printf("compared: %d tensors and grids of %s\n", checked, golden_path("numbers"));
}
