/* Plain weights, for every loader: a quantized matrix is written as the values that its codes stand for, rounded to the
 * type of the other tensors, and the config says nothing of quantization. Read back it is an ordinary model.
 *
 *   <module>.weight   F32, F16 or BF16 (N, K)   dequantized, one rounding to nearest even
 * Inputs and the cache cannot be rounded by a server that sees only plain weights. */
#include <math.h>

#include "checkpoints/checkpoints.h"
#include "checkpoints/plan_check.h"
#include "checkpoints/tensor_parts.h"

enum { TILE = 1 << 18 }; /* numbers that are widened and rounded at a time */

static const char *const suffixes[] = {"weight", "bias", NULL};

static bool absent(const qz_json_node *node)
{
    return qz_json_type_of(node) == QZ_JSON_NULL;
}

static bool recognise(const qz_json_node *config)
{
    return absent(qz_json_get(config, "quantization_config")) && absent(qz_json_get(config, "compression_config"));
}

static void settle(qz_export_linear *l, qz_dtype plain_type)
{
    l->plain_type = plain_type;
}

static qz_status can_express(const qz_export_plan *plan)
{
    qz_reasons r = {.container = "dense"};
    if (!qz_dtype_is_plain(plan->plain_type))
        qz_reasons_add(&r, "plain tensors are to be %s; F32, F16 or BF16 is expected", qz_dtype_name(plan->plain_type));
    qz_reasons_weights_only(&r, plan);
    return qz_reasons_status(&r);
}

static qz_status declare_linear(qz_shards *s, const qz_export_linear *l)
{
    return qz_part_declare(s, l->module, "weight", l->plain_type, 2, (int64_t[]){l->n, l->k});
}

/* Rows [first, first + rows), `wide` holds their values. */
static qz_status write_rows(qz_shards *s, const qz_export_linear *l, const float *wide, int64_t first, int64_t rows,
                            void *stored, qz_arena *scratch)
{
    const size_t width = (size_t)qz_dtype_bits(l->plain_type) / 8;
    for (int64_t i = 0; i < rows * l->k; i++)
        if (!isfinite(wide[i]) || (l->plain_type == QZ_F16 && fabsf(wide[i]) >= 65520))
            return QZ_FAIL(QZ_NUMERIC, "%s: the value %.9g at [%lld, %lld] is not a number of %s", l->module,
                           (double)wide[i], (long long)(first + i / l->k), (long long)(i % l->k),
                           qz_dtype_name(l->plain_type));
    const char *name = qz_arena_printf(scratch, "%s.weight", l->module);
    if (!name) return qz_arena_failed(scratch);
    QZ_TRY(qz_convert(stored, l->plain_type, wide, QZ_F32, rows * l->k));
    return qz_shards_write_part(s, name, (uint64_t)(first * l->k) * width, stored, (size_t)(rows * l->k) * width);
}

static qz_status write_linear(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch)
{
    (void)act;
    QZ_TRY(qz_part_check_matrix(l, q));
    const int64_t fit = TILE / l->k, most = fit < 1 ? 1 : fit;
    qz_arena_mark mark = qz_arena_save(scratch);
    float *wide = qz_arena_array(scratch, float, (size_t)(most * l->k));
    void *stored = qz_arena_array(scratch, float, (size_t)(most * l->k));
    qz_status status = wide && stored ? QZ_OK : qz_arena_failed(scratch);
    for (int64_t first = 0; first < l->n && status == QZ_OK; first += most) {
        const int64_t rows = l->n - first < most ? l->n - first : most;
        qz_qtensor_dequantize(wide, q, first, rows);
        status = write_rows(s, l, wide, first, rows, stored, scratch);
    }
    qz_arena_restore(scratch, mark);
    return status;
}

static qz_status config_block(char **out, const qz_export_plan *plan, qz_arena *arena)
{
    (void)plan, (void)arena;
    *out = NULL;
    return QZ_OK;
}

const qz_container qz_container_dense = {
    .plugin = {.name = "dense", .help = "plain fp32, fp16 or bf16 weights; quantized ones dequantized", .source = ""},
    .consumers = "everything",
    .recognise = recognise,
    .can_express = can_express,
    .suffixes = suffixes,
    .declare_linear = declare_linear,
    .write_linear = write_linear,
    .config_block = config_block,
    .settle = settle,
    .preferred_plain_type = QZ_BF16,
};
