/* See stats_file.h; docs/statistics-file.md has the layout, stats_gram.c how a Gram matrix is stored. */
#include "calib/stats_file.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/h5.h"
#include "calib/stats_gram.h"

#define FORMAT "qcal statistics"

enum { VERSION = 1, TEXT = 512, FOLDER = 64, NAME = 96, ROWS_BYTES = 1 << 20 };

struct qz_stats_file {
    qz_h5 *h5;
    qz_arena *arena;
    const char *path;
    qz_stats_source source;
};

/* ---- provenance ---- */

/* The texts of a source, under the names of their attributes. */
typedef struct text_row {
    const char *name;
    size_t offset;
    const char *noun; /* in messages; NULL: not compared */
} text_row;

static const text_row texts[] = {
    {"program", offsetof(qz_stats_source, program), NULL},
    {"family", offsetof(qz_stats_source, family), NULL},
    {"backend", offsetof(qz_stats_source, backend), NULL},
    {"model_hash", offsetof(qz_stats_source, model_hash), "model"},
    {"tokenizer_hash", offsetof(qz_stats_source, tokenizer_hash), "tokenizer"},
    {"data_hash", offsetof(qz_stats_source, data_hash), "calibration data"},
};

typedef struct number_row {
    const char *name;
    size_t offset;
    const char *noun;
} number_row;

static const number_row numbers[] = {
    {"seed", offsetof(qz_stats_source, seed), NULL},
    {"samples", offsetof(qz_stats_source, samples), "number of samples"},
    {"sequence_length", offsetof(qz_stats_source, sequence_length), "sequence length"},
    {"layers", offsetof(qz_stats_source, layers), "number of layers"},
    {"experts", offsetof(qz_stats_source, experts), "number of experts"},
};

enum { TEXTS = sizeof texts / sizeof *texts, NUMBERS = sizeof numbers / sizeof *numbers };

static const char **text_of(const qz_stats_source *s, int i)
{
    return (const char **)((uintptr_t)s + texts[i].offset);
}

static int64_t *number_of(const qz_stats_source *s, int i)
{
    return (int64_t *)((uintptr_t)s + numbers[i].offset);
}

static qz_status write_source(qz_stats_file *f, const qz_stats_source *s)
{
    QZ_TRY(qz_h5_write_text(f->h5, "format", FORMAT));
    QZ_TRY(qz_h5_write_int(f->h5, "/", "version", VERSION));
    QZ_TRY(qz_h5_write_text(f->h5, "gram_type", qz_dtype_name(s->type)));
    for (int i = 0; i < TEXTS; i++) {
        const char *text = *text_of(s, i);
        QZ_TRY(qz_h5_write_text(f->h5, texts[i].name, text ? text : ""));
    }
    for (int i = 0; i < NUMBERS; i++) QZ_TRY(qz_h5_write_int(f->h5, "/", numbers[i].name, *number_of(s, i)));
    return QZ_OK;
}

static qz_status check_version(qz_stats_file *f)
{
    char text[TEXT];
    int64_t version;
    if (qz_h5_read_text(f->h5, "format", text, sizeof text) != QZ_OK || strcmp(text, FORMAT) != 0)
        return QZ_FAIL(QZ_FORMAT, "%s: is an HDF5 file, but not one that `qcal calibrate` wrote", f->path);
    QZ_TRY(qz_h5_read_int(f->h5, "/", "version", &version));
    if (version == VERSION) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s: is a statistics file of version %" PRId64 ", and this program reads version %d; run `qcal "
                   "calibrate` again",
                   f->path, version, VERSION);
}

static qz_status read_source(qz_stats_file *f)
{
    char text[TEXT];
    QZ_TRY(check_version(f));
    QZ_TRY(qz_h5_read_text(f->h5, "gram_type", text, sizeof text));
    bool half = strcmp(text, qz_dtype_name(QZ_F16)) == 0;
    if (!half && strcmp(text, qz_dtype_name(QZ_F32)) != 0)
        return QZ_FAIL(QZ_FORMAT, "%s: gram_type is \"%.32s\"; F32 and F16 are known", f->path, text);
    f->source.type = half ? QZ_F16 : QZ_F32;
    for (int i = 0; i < TEXTS; i++) {
        QZ_TRY(qz_h5_read_text(f->h5, texts[i].name, text, sizeof text));
        if (!(*text_of(&f->source, i) = qz_arena_strdup(f->arena, text))) return qz_arena_failed(f->arena);
    }
    for (int i = 0; i < NUMBERS; i++) QZ_TRY(qz_h5_read_int(f->h5, "/", numbers[i].name, number_of(&f->source, i)));
    return QZ_OK;
}

const qz_stats_source *qz_stats_file_source(const qz_stats_file *f)
{
    return &f->source;
}

static qz_status differs(char **list, const char *noun, const char *found, const char *mine, qz_arena *arena)
{
    *list = qz_arena_printf(arena, "%s\nthe %s is another one: the file says %s, this run %s", *list, noun,
                            *found ? found : "nothing", mine);
    return *list ? QZ_OK : qz_arena_failed(arena);
}

static qz_status list_differences(char **list, const qz_stats_source *found, const qz_stats_source *mine,
                                  qz_arena *arena)
{
    if (!(*list = qz_arena_strdup(arena, ""))) return qz_arena_failed(arena);
    for (int i = 0; i < TEXTS; i++) {
        const char *x = *text_of(found, i), *y = *text_of(mine, i);
        if (texts[i].noun && y && strcmp(x ? x : "", y) != 0)
            QZ_TRY(differs(list, texts[i].noun, x ? x : "", y, arena));
    }
    for (int i = 0; i < NUMBERS; i++) {
        char x[32], y[32];
        snprintf(x, sizeof x, "%" PRId64, *number_of(found, i));
        snprintf(y, sizeof y, "%" PRId64, *number_of(mine, i));
        bool compared = numbers[i].noun && *number_of(mine, i) >= 1;
        if (compared && strcmp(x, y) != 0) QZ_TRY(differs(list, numbers[i].noun, x, y, arena));
    }
    return QZ_OK;
}

qz_status qz_stats_file_check(const qz_stats_file *f, const qz_stats_source *mine)
{
    qz_arena *arena;
    char *list;
    QZ_TRY(qz_arena_new(&arena, "statistics file"));
    qz_status status = list_differences(&list, &f->source, mine, arena);
    if (status == QZ_OK && *list)
        status = QZ_FAIL(QZ_ARG, "%s: does not belong to this run; run `qcal calibrate` again%s", f->path, list);
    qz_arena_free(arena);
    return status;
}

/* ---- the file ---- */

static qz_status file_new(qz_stats_file **out, const char *path)
{
    *out = NULL;
    qz_stats_file *f = qz_calloc(1, sizeof *f);
    if (!f) return QZ_FAIL(QZ_MEMORY, "out of memory: opening %s", path);
    qz_status status = qz_arena_new(&f->arena, "statistics file");
    if (status == QZ_OK && !(f->path = qz_arena_strdup(f->arena, path))) status = qz_arena_failed(f->arena);
    if (status != QZ_OK) {
        qz_stats_file_abandon(f);
        return status;
    }
    *out = f;
    return QZ_OK;
}

static void release(qz_stats_file *f)
{
    qz_arena_free(f->arena);
    qz_free(f);
}

qz_status qz_stats_file_create(qz_stats_file **out, const char *path, const qz_stats_source *source)
{
    qz_stats_file *f;
    *out = NULL;
    QZ_TRY(file_new(&f, path));
    qz_status status = qz_h5_create(&f->h5, path);
    if (status == QZ_OK) status = write_source(f, source);
    if (status == QZ_OK) status = read_source(f); /* so that the texts are ours */
    if (status != QZ_OK) {
        qz_stats_file_abandon(f);
        return status;
    }
    *out = f;
    return QZ_OK;
}

qz_status qz_stats_file_open(qz_stats_file **out, const char *path)
{
    qz_stats_file *f;
    *out = NULL;
    QZ_TRY(file_new(&f, path));
    qz_status status = qz_h5_open(&f->h5, path);
    if (status == QZ_OK) status = read_source(f);
    if (status != QZ_OK) {
        qz_stats_file_abandon(f);
        return status;
    }
    *out = f;
    return QZ_OK;
}

qz_status qz_stats_file_close(qz_stats_file *f)
{
    qz_status status = qz_h5_close(f->h5);
    release(f);
    return status;
}

void qz_stats_file_abandon(qz_stats_file *f)
{
    if (!f) return;
    qz_h5_abandon(f->h5);
    release(f);
}

/* ---- one record ---- */

static void input_folder(char out[FOLDER], const qz_stats_file *f, int layer, int input)
{
    const char *stage = qz_stage_name(qz_input_stage(input));
    if (f->source.experts > 0 && input >= QZ_STAGE_GATE_UP)
        snprintf(out, FOLDER, "layers/%d/experts/%d/%s", layer, qz_input_expert(input), stage);
    else
        snprintf(out, FOLDER, "layers/%d/%s", layer, stage);
}

static void kv_folder(char out[FOLDER], int layer, bool value)
{
    snprintf(out, FOLDER, "layers/%d/%s", layer, value ? "value" : "key");
}

static const char *in(char out[NAME], const char *folder, const char *name)
{
    snprintf(out, NAME, "%s/%s", folder, name);
    return out;
}

static qz_status write_rows(qz_h5 *h5, const char *folder, const qz_stats *s)
{
    char name[NAME];
    const uint64_t k = (uint64_t)s->k, rows = (uint64_t)s->reservoir_rows, bytes = k * sizeof(float);
    const uint64_t shape[2] = {rows, k}, chunk[2] = {ROWS_BYTES / bytes ? ROWS_BYTES / bytes : 1, k};
    const uint64_t start[2] = {0, 0};
    if (!s->reservoir) return QZ_OK;
    in(name, folder, "reservoir");
    QZ_TRY(qz_h5_make(h5, name, QZ_H5_F32, 2, shape, chunk));
    if (rows) QZ_TRY(qz_h5_write_part(h5, name, QZ_H5_F32, s->reservoir, 2, start, shape));
    QZ_TRY(qz_h5_write_int(h5, name, "capacity", s->reservoir_capacity));
    return qz_h5_write(h5, in(name, folder, "reservoir_state"), QZ_H5_U64, s->rng.s, 1, &(uint64_t){4});
}

static qz_status write_histogram(qz_h5 *h5, const char *folder, const qz_stats *s)
{
    char name[NAME];
    const uint64_t bins = QZ_HISTOGRAM_BINS, start = 0;
    if (!s->histogram) return QZ_OK;
    in(name, folder, "histogram");
    QZ_TRY(qz_h5_make(h5, name, QZ_H5_U64, 1, &bins, &bins));
    return qz_h5_write_part(h5, name, QZ_H5_U64, s->histogram, 1, &start, &bins);
}

static qz_status write_record(qz_stats_file *f, const char *folder, const qz_stats *s)
{
    char name[NAME];
    const uint64_t k = (uint64_t)s->k;
    assert(!s->rescaled && !s->divisor); /* the file describes the model as it is */
    QZ_TRY(qz_h5_write(f->h5, in(name, folder, "absmax"), QZ_H5_F32, s->absmax, 1, &k));
    QZ_TRY(qz_h5_write(f->h5, in(name, folder, "abssum"), QZ_H5_F64, s->abssum, 1, &k));
    QZ_TRY(qz_h5_write_int(f->h5, folder, "tokens", s->tokens));
    QZ_TRY(qz_h5_write_int(f->h5, folder, "channels", s->k));
    if (s->gram) QZ_TRY(qz_stats_gram_write(f->h5, folder, s->gram, s->k, f->source.type));
    QZ_TRY(write_histogram(f->h5, folder, s));
    return write_rows(f->h5, folder, s);
}

/* What the record must have for this run. */
static qz_status check_record(int64_t *capacity, qz_stats_file *f, const char *folder, int64_t k, qz_stats_wants wants)
{
    char name[NAME];
    int64_t channels;
    *capacity = 0;
    if (!qz_h5_has(f->h5, folder))
        return QZ_FAIL(QZ_ARG, "%s: has no statistics of %s; it was made for other layers: run `qcal calibrate` again",
                       f->path, folder);
    QZ_TRY(qz_h5_read_int(f->h5, folder, "channels", &channels));
    if (channels != k)
        return QZ_FAIL(QZ_SHAPE, "%s: %s: has %" PRId64 " channels, expected %" PRId64, f->path, folder, channels, k);
    if (wants.histogram && !qz_h5_has(f->h5, in(name, folder, "histogram")))
        return QZ_FAIL(QZ_ARG, "%s: %s: has no histogram, which this recipe needs; run `qcal calibrate` again", f->path,
                       folder);
    if (wants.reservoir == 0) return QZ_OK;
    if (!qz_h5_has(f->h5, in(name, folder, "reservoir")))
        return QZ_FAIL(QZ_ARG, "%s: %s: has no token rows, which this recipe needs; run `qcal calibrate` again",
                       f->path, folder);
    QZ_TRY(qz_h5_read_int(f->h5, name, "capacity", capacity));
    if (*capacity < 1 || *capacity > 1 << 16)
        return QZ_FAIL(QZ_FORMAT, "%s: %s: a capacity of %" PRId64 " rows cannot be", f->path, name, *capacity);
    return QZ_OK;
}

static qz_status read_rows(qz_stats *s, qz_stats_file *f, const char *folder)
{
    char name[NAME];
    int rank;
    uint64_t shape[8];
    QZ_TRY(qz_h5_shape(f->h5, in(name, folder, "reservoir"), &rank, shape, NULL));
    if (rank != 2 || shape[0] > (uint64_t)s->reservoir_capacity || shape[1] != (uint64_t)s->k)
        return QZ_FAIL(QZ_FORMAT, "%s: %s: is not at most %" PRId64 " rows of %" PRId64 " channels", f->path, name,
                       s->reservoir_capacity, s->k);
    s->reservoir_rows = (int64_t)shape[0];
    if (shape[0]) QZ_TRY(qz_h5_read(f->h5, name, QZ_H5_F32, s->reservoir, shape[0] * shape[1]));
    return qz_h5_read(f->h5, in(name, folder, "reservoir_state"), QZ_H5_U64, s->rng.s, 4);
}

/* As qz_stats_new, but without a Gram matrix when there is none in the file. */
static qz_status room(qz_stats *s, int64_t k, qz_stats_wants wants, bool gram, qz_arena *arena)
{
    if (gram) return qz_stats_new(s, k, wants, 0, 0, arena);
    *s = (qz_stats){.k = k, .reservoir_capacity = wants.reservoir};
    s->absmax = qz_arena_array(arena, float, (size_t)k);
    s->abssum = qz_arena_array(arena, double, (size_t)k);
    s->reservoir = qz_arena_array(arena, float, (size_t)(wants.reservoir * k));
    s->histogram = qz_arena_array(arena, uint64_t, QZ_HISTOGRAM_BINS);
    if (!s->absmax || !s->abssum || !s->reservoir || !s->histogram) return qz_arena_failed(arena);
    if (wants.reservoir == 0) s->reservoir = NULL;
    if (!wants.histogram) s->histogram = NULL;
    return QZ_OK;
}

static qz_status read_record(qz_stats *s, qz_stats_file *f, const char *folder, int64_t k, qz_stats_wants wants,
                             bool gram, qz_arena *arena)
{
    char name[NAME];
    QZ_TRY(check_record(&wants.reservoir, f, folder, k, wants));
    QZ_TRY(room(s, k, wants, gram, arena));
    QZ_TRY(qz_h5_read_int(f->h5, folder, "tokens", &s->tokens));
    if (s->tokens < 0) return QZ_FAIL(QZ_FORMAT, "%s: %s: %" PRId64 " tokens cannot be", f->path, folder, s->tokens);
    QZ_TRY(qz_h5_read(f->h5, in(name, folder, "absmax"), QZ_H5_F32, s->absmax, (size_t)k));
    QZ_TRY(qz_h5_read(f->h5, in(name, folder, "abssum"), QZ_H5_F64, s->abssum, (size_t)k));
    if (s->histogram)
        QZ_TRY(qz_h5_read(f->h5, in(name, folder, "histogram"), QZ_H5_U64, s->histogram, QZ_HISTOGRAM_BINS));
    if (s->reservoir) QZ_TRY(read_rows(s, f, folder));
    if (!gram) return QZ_OK;
    QZ_TRY_CTX(qz_stats_gram_read(s->gram, f->h5, folder, k, f->source.type), "%s", f->path);
    QZ_TRY_CTX(qz_stats_finish(s), "%s: %s", f->path, folder);
    return QZ_OK;
}

qz_status qz_stats_file_write(qz_stats_file *f, int layer, int input, const qz_stats *s)
{
    char folder[FOLDER];
    input_folder(folder, f, layer, input);
    return write_record(f, folder, s);
}

bool qz_stats_file_has(const qz_stats_file *f, int layer, int input)
{
    char folder[FOLDER];
    input_folder(folder, f, layer, input);
    return qz_h5_has(f->h5, folder);
}

qz_status qz_stats_file_read(qz_stats *out, qz_stats_file *f, int layer, int input, int64_t k, qz_stats_wants wants,
                             qz_arena *arena)
{
    char folder[FOLDER];
    input_folder(folder, f, layer, input);
    return read_record(out, f, folder, k, wants, true, arena);
}

qz_status qz_stats_file_write_head(qz_stats_file *f, const qz_stats *s)
{
    return write_record(f, "head", s);
}

bool qz_stats_file_has_head(const qz_stats_file *f)
{
    return qz_h5_has(f->h5, "head");
}

qz_status qz_stats_file_read_head(qz_stats *out, qz_stats_file *f, int64_t k, qz_stats_wants wants, qz_arena *arena)
{
    if (!qz_stats_file_has_head(f))
        return QZ_FAIL(QZ_ARG,
                       "%s: has no statistics of the output head, which is to be quantized; run `qcal calibrate` again "
                       "(without statistics.layers, or with \"lm_head\" in it), or skip the head",
                       f->path);
    return read_record(out, f, "head", k, wants, true, arena);
}

qz_status qz_stats_file_write_kv(qz_stats_file *f, int layer, bool value, const qz_stats *s)
{
    char folder[FOLDER];
    kv_folder(folder, layer, value);
    return write_record(f, folder, s);
}

bool qz_stats_file_has_kv(const qz_stats_file *f, int layer, bool value)
{
    char folder[FOLDER];
    kv_folder(folder, layer, value);
    return qz_h5_has(f->h5, folder);
}

qz_status qz_stats_file_read_kv(qz_stats *out, qz_stats_file *f, int layer, bool value, int64_t k, qz_stats_wants wants,
                                qz_arena *arena)
{
    char folder[FOLDER], name[NAME];
    kv_folder(folder, layer, value);
    return read_record(out, f, folder, k, wants, qz_h5_has(f->h5, in(name, folder, "gram")), arena);
}

qz_status qz_stats_file_write_number(qz_stats_file *f, const char *name, double value)
{
    return qz_h5_write_double(f->h5, "/", name, value);
}

qz_status qz_stats_file_read_number(qz_stats_file *f, const char *name, double *value)
{
    return qz_h5_read_double(f->h5, "/", name, value);
}

/* ---- its size ---- */

static uint64_t record_bytes(int64_t k, qz_stats_wants wants)
{
    const uint64_t c = (uint64_t)k, overhead = 4096; /* headers and chunk tables of HDF5 */
    return overhead + c * (sizeof(float) + sizeof(double)) + (uint64_t)wants.reservoir * c * sizeof(float) +
           (wants.histogram ? QZ_HISTOGRAM_BINS * sizeof(uint64_t) : 0);
}

uint64_t qz_stats_file_input_bytes(int64_t k, qz_dtype type, qz_stats_wants wants)
{
    const uint64_t c = (uint64_t)k, gram = c * (c + 1) / 2;
    return record_bytes(k, wants) + (type == QZ_F16 ? gram * 2 + c * sizeof(float) : gram * sizeof(float));
}

uint64_t qz_stats_file_bytes(const qz_model *m, qz_dtype type, qz_stats_wants wants, const bool *kept, bool head)
{
    const qz_model_config *c = qz_model_config_of(m);
    uint64_t sum = head ? qz_stats_file_input_bytes(c->hidden, type, wants) : 0;
    for (int l = 0; l < (int)c->layers; l++) {
        if (kept && !kept[l]) continue;
        for (int i = 0; i < qz_model_inputs(m, l); i++)
            sum += qz_stats_file_input_bytes(qz_model_input_width(m, l, i), type, wants);
        sum += 2 * record_bytes(c->kv_heads * c->head_dim, wants);
    }
    return sum;
}
