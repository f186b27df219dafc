/* Stored tensors -> fp32: plain ones widened, quantized ones decoded through their container.
 *
 * Every plain value is looked at once on its way: a NaN or an infinity stops here with its tensor and index, so nothing
 * behind this file has to check weights. Work is cut into pieces of fixed size; the first bad index is the smallest
 * one, so the message does not depend on the number of threads. */
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/parallel.h"
#include "checkpoints/checkpoints.h"

enum { CHUNK = 4096, PIECE = 64 * CHUNK }; /* a chunk stays in the first-level cache between widening and the check */

const qz_stored *qz_ckpt_find_part(const qz_ckpt *c, const char *module, const char *suffix)
{
    char name[1024];
    int n = snprintf(name, sizeof name, "%s.%s", module, suffix);
    return n > 0 && (size_t)n < sizeof name ? qz_ckpt_find(c, name) : NULL;
}

/* Index of the first NaN or infinity, or `count`. */
static int64_t first_bad(const float *x, int64_t count)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    if (!bad) return count;
    int64_t i = 0;
    while (isfinite(x[i])) i++;
    return i;
}

/* Elements [first, first + count) of the tensor; the index of the first bad one, or INT64_MAX. */
static int64_t widen_piece(float *out, const qz_stored *t, int64_t first, int64_t count)
{
    size_t width = (size_t)qz_dtype_bits(t->view.dtype) / 8;
    const uint8_t *data = (const uint8_t *)t->view.data + (size_t)first * width;
    _Alignas(64) uint8_t aligned[CHUNK * sizeof(float)];
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        const void *in = data + (size_t)i * width;
        if ((uintptr_t)in % width) in = memcpy(aligned, in, (size_t)n * width);
        qz_status status = qz_convert(out + first + i, QZ_F32, in, t->view.dtype, n);
        assert(status == QZ_OK && "plain types convert");
        (void)status;
        int64_t bad = first_bad(out + first + i, n);
        if (bad < n) return first + i + bad;
    }
    return INT64_MAX;
}

static void keep_least(_Atomic int64_t *least, int64_t i)
{
    int64_t seen = atomic_load(least);
    while (i < seen && !atomic_compare_exchange_weak(least, &seen, i)) {
    }
}

static qz_status bad_value(const qz_ckpt *c, const qz_stored *t, int64_t flat, float value)
{
    char index[QZ_MAX_DIMS * 22] = "";
    for (int i = 0, n = 0; i < t->view.ndim; i++)
        n += snprintf(index + n, sizeof index - (size_t)n, "%s%lld", i ? ", " : "",
                      (long long)(flat / t->view.stride[i] % t->view.shape[i]));
    return QZ_FAIL(QZ_NUMERIC, "%s/%s: tensor \"%s\" holds %s at [%s]; weights must be finite", qz_ckpt_folder(c),
                   t->file, t->name, isnan(value) ? "NaN" : "an infinity", index);
}

static qz_status widen(float *out, const qz_ckpt *c, const qz_stored *t)
{
    int64_t count = qz_tensor_count(&t->view), pieces = (count + PIECE - 1) / PIECE;
    _Atomic int64_t bad = INT64_MAX;
    qz_map_will_need(t->view.data, t->bytes);
    QZ_PARALLEL_FOR
    for (int64_t i = 0; i < pieces; i++) {
        int64_t first = i * PIECE;
        keep_least(&bad, widen_piece(out, t, first, count - first < PIECE ? count - first : PIECE));
    }
    int64_t at = atomic_load(&bad);
    return at == INT64_MAX ? QZ_OK : bad_value(c, t, at, out[at]);
}

static void print_shape(char *out, size_t size, int ndim, const int64_t *shape)
{
    size_t n = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < ndim && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n < size) snprintf(out + n, size - n, "]");
}

qz_status qz_ckpt_check_shape(const qz_ckpt *c, const qz_stored *t, int ndim, const int64_t *shape)
{
    bool same = t->view.ndim == ndim;
    for (int i = 0; i < ndim && same; i++) same = t->view.shape[i] == shape[i];
    if (same) return QZ_OK;
    char found[200], wanted[200];
    print_shape(found, sizeof found, t->view.ndim, t->view.shape);
    print_shape(wanted, sizeof wanted, ndim, shape);
    return QZ_FAIL(QZ_SHAPE, "%s/%s: tensor \"%s\" has the shape %s; %s is expected", qz_ckpt_folder(c), t->file,
                   t->name, found, wanted);
}

qz_status qz_ckpt_read_plain(const qz_ckpt *c, const char *name, int ndim, const int64_t *shape, float *out)
{
    const qz_stored *t = qz_ckpt_find(c, name);
    if (!t) return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s\" is missing", qz_ckpt_folder(c), name);
    if (!qz_dtype_is_plain(t->view.dtype))
        return QZ_FAIL(QZ_FORMAT, "%s/%s: tensor \"%s\" has the type %s; F32, F16 or BF16 is expected",
                       qz_ckpt_folder(c), t->file, name, qz_dtype_name(t->view.dtype));
    QZ_TRY(qz_ckpt_check_shape(c, t, ndim, shape));
    return widen(out, c, t);
}

static qz_status read_quantized(const qz_ckpt *c, const char *module, int64_t n, int64_t k, float *out,
                                qz_arena *scratch)
{
    enum { ROWS = 16 };
    qz_qtensor q;
    QZ_TRY(qz_ckpt_read_qtensor(c, module, n, k, &q, scratch));
    QZ_PARALLEL_FOR
    for (int64_t first = 0; first < n; first += ROWS)
        qz_qtensor_dequantize(out + first * k, &q, first, n - first < ROWS ? n - first : ROWS);
    return QZ_OK;
}

qz_status qz_ckpt_read_weight(const qz_ckpt *c, const char *module, int64_t n, int64_t k, float *out, qz_arena *scratch)
{
    qz_arena_mark mark = qz_arena_save(scratch);
    qz_status status;
    if (qz_ckpt_is_quantized(c, module)) {
        status = read_quantized(c, module, n, k, out, scratch);
    } else {
        const char *name = qz_arena_printf(scratch, "%s.weight", module);
        status = name ? qz_ckpt_read_plain(c, name, 2, (int64_t[]){n, k}, out) : qz_arena_failed(scratch);
    }
    qz_arena_restore(scratch, mark);
    return status;
}

bool qz_ckpt_is_quantized(const qz_ckpt *c, const char *module)
{
    const qz_container *container = qz_ckpt_container(c);
    return container->holds && container->holds(c, module);
}

/* tensor = "<module>.<one of the suffixes>" */
static bool has_suffix(const char *tensor, const char *module, const char *const *suffix)
{
    const size_t n = strlen(module);
    if (strncmp(tensor, module, n) != 0 || tensor[n] != '.') return false;
    for (; suffix && *suffix; suffix++)
        if (strcmp(tensor + n + 1, *suffix) == 0) return true;
    return false;
}

bool qz_ckpt_is_part_of(const qz_ckpt *c, const char *tensor, const char *module)
{
    static const char *const plain[] = {"weight", "bias", NULL};
    return has_suffix(tensor, module, qz_ckpt_is_quantized(c, module) ? qz_ckpt_container(c)->suffixes : plain);
}

bool qz_ckpt_is_cache_scale(const qz_ckpt *c, const char *tensor, const char *attention)
{
    return has_suffix(tensor, attention, qz_ckpt_container(c)->kv_suffixes);
}

qz_status qz_ckpt_read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme, qz_act_values *values)
{
    *scheme = (qz_act_scheme){0};
    *values = (qz_act_values){0};
    const qz_container *container = qz_ckpt_container(c);
    if (!container->read_activation || !qz_ckpt_is_quantized(c, module)) return QZ_OK;
    return container->read_activation(c, module, scheme, values);
}

qz_status qz_ckpt_read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme, float *key,
                          float *value)
{
    *scheme = (qz_kv_scheme){0};
    const qz_container *container = qz_ckpt_container(c);
    return container->read_kv ? container->read_kv(c, attention, kv_heads, scheme, key, value) : QZ_OK;
}

qz_status qz_ckpt_read_qtensor(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                               qz_arena *arena)
{
    if (!qz_ckpt_is_quantized(c, module))
        return QZ_FAIL(QZ_ARG, "%s: \"%s\" is not stored quantized", qz_ckpt_folder(c), module);
    return qz_ckpt_container(c)->read_linear(c, module, n, k, out, arena);
}
