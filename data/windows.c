/* Ids of documents -> windows of one length, as llm-compressor's, vLLM's and our own figures share them: pieces of
 * length - 1 ids in file order with BOS in front (length ids where a model has no BOS); a short last piece is dropped.
 */
#include <string.h>

#include "base/rng.h"
#include "data/data_impl.h"
#include "data/tokenizer_impl.h"

static const uint64_t SHUFFLE_STREAM = 0x77696e646f7773; /* keeps this use of the seed apart from others */

int64_t qz_windows_step(const qz_windows_rule *rule)
{
    return rule->bos < 0 ? rule->length : rule->length - 1;
}

qz_status qz_windows_check_rule(const qz_windows_rule *rule)
{
    if (qz_windows_step(rule) < 1 || rule->length > INT32_MAX)
        return QZ_FAIL(QZ_ARG, "windows of %lld ids: expected at least %d", (long long)rule->length,
                       rule->bos < 0 ? 1 : 2);
    if (rule->count < 0 || rule->count > INT64_MAX / 16 / rule->length)
        return QZ_FAIL(QZ_ARG, "%lld windows of %lld ids: expected 0 (all) or more, and fewer than memory could hold",
                       (long long)rule->count, (long long)rule->length);
    if (rule->vocabulary > 0 && rule->bos >= rule->vocabulary)
        return QZ_FAIL(QZ_ARG, "BOS id %d is not below the vocabulary's size %lld", (int)rule->bos,
                       (long long)rule->vocabulary);
    return QZ_OK;
}

qz_status qz_ids_check(const qz_windows_rule *rule, const qz_tokenizer *tokenizer, size_t first, const int32_t *ids,
                       size_t count)
{
    for (size_t i = 0; i < count && rule->vocabulary > 0; i++) {
        int32_t id = ids[i];
        if (id < rule->vocabulary) continue;
        bool named = tokenizer && id < tokenizer->size && tokenizer->token[id].text;
        return QZ_FAIL(QZ_FORMAT, "%s: token %zu has id %d%s%.60s%s, but the model's vocabulary has only %lld ids: %s",
                       rule->path, first + i, (int)id, named ? " (\"" : "", named ? tokenizer->token[id].text : "",
                       named ? "\")" : "", (long long)rule->vocabulary,
                       named ? "the tokenizer is not this model's" : "the ids are not this model's");
    }
    return QZ_OK;
}

static qz_status too_short(const qz_windows_rule *rule, size_t tokens, int64_t windows)
{
    if (windows == 0 && (rule->allow_fewer || rule->count == 0))
        return QZ_FAIL(QZ_FORMAT, "%s has %zu tokens, less than one window of %lld: give more text", rule->path, tokens,
                       (long long)rule->length);
    return QZ_FAIL(QZ_FORMAT,
                   "%s has %zu tokens, that is %lld windows of %lld; %lld are wanted: give more text or lower "
                   "calibration.samples",
                   rule->path, tokens, (long long)windows, (long long)rule->length, (long long)rule->count);
}

/* Which pieces become windows: the first ones, or those at the front of a seeded permutation of all. */
static qz_status choose(size_t **out, const qz_windows_rule *rule, size_t windows, qz_arena *arena)
{
    *out = qz_arena_array(arena, size_t, windows);
    if (!*out) return qz_arena_failed(arena);
    for (size_t i = 0; i < windows; i++) (*out)[i] = i;
    if (!rule->shuffle) return QZ_OK;
    qz_rng rng;
    qz_rng_seed(&rng, rule->seed, SHUFFLE_STREAM);
    qz_rng_permutation(&rng, *out, windows);
    return QZ_OK;
}

static qz_status cut(qz_windows *out, const qz_ids *ids, const qz_windows_rule *rule, qz_arena *scratch,
                     qz_arena *arena)
{
    int64_t step = qz_windows_step(rule), all = (int64_t)ids->count / step;
    bool enough = all > 0 && (all >= rule->count || rule->allow_fewer);
    if (!enough) return too_short(rule, ids->count, all);
    size_t *chosen;
    QZ_TRY(choose(&chosen, rule, (size_t)all, scratch));
    out->count = rule->count > 0 && rule->count < all ? rule->count : all;
    out->length = rule->length;
    out->tokens = (int64_t)ids->count;
    out->has_bos = rule->bos >= 0;
    out->ids = qz_arena_array(arena, int32_t, qz_array_bytes((size_t)out->count, (size_t)out->length));
    if (!out->ids) return qz_arena_failed(arena);
    for (int64_t w = 0; w < out->count; w++) {
        int32_t *row = out->ids + w * out->length;
        if (out->has_bos) *row++ = rule->bos;
        memcpy(row, ids->id + chosen[w] * (size_t)step, (size_t)step * sizeof *row);
    }
    return QZ_OK;
}

static qz_status load(qz_windows *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer, qz_arena *scratch,
                      qz_arena *arena)
{
    qz_ids ids = {0};
    size_t limit = rule->count > 0 && !rule->shuffle ? (size_t)(rule->count * qz_windows_step(rule)) : SIZE_MAX;
    QZ_TRY(qz_documents_read(&ids, rule, tokenizer, limit, scratch));
    QZ_TRY(qz_ids_check(rule, tokenizer, 0, ids.id, ids.count));
    QZ_TRY(cut(out, &ids, rule, scratch, arena));
    return qz_hash_file(out->hash, rule->path);
}

qz_status qz_windows_load(qz_windows *out, const qz_windows_rule *rule, const qz_tokenizer *tokenizer, qz_arena *arena)
{
    qz_arena *scratch;
    *out = (qz_windows){0};
    QZ_TRY(qz_windows_check_rule(rule));
    QZ_TRY(qz_arena_new(&scratch, "text"));
    qz_status status = load(out, rule, tokenizer, scratch, arena);
    qz_arena_free(scratch);
    return status;
}
