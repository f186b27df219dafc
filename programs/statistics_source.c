/* See statistics_source.h. */
#include "programs/statistics_source.h"

#include <stdio.h>

#include "base/file.h"
#include "base/hash.h"

/* "" for a folder without a tokenizer, whose text is token ids. */
static qz_status hash_tokenizer(char out[QZ_HASH_TEXT], const qz_session *s, qz_arena *arena)
{
    *out = '\0';
    if (!s->tokenizer) return QZ_OK;
    char *path = qz_path_join(arena, qz_ckpt_folder(s->ckpt), "tokenizer.json");
    return path ? qz_hash_file(out, path) : qz_arena_failed(arena);
}

qz_status qz_statistics_source(qz_stats_source *out, const qz_session *s, const qz_recipe *recipe, qz_arena *arena)
{
    const qz_model_config *c = qz_model_config_of(s->model);
    char(*hash)[QZ_HASH_TEXT] = qz_arena_alloc(arena, 3 * sizeof *hash);
    if (!hash) return qz_arena_failed(arena);
    QZ_TRY(qz_ckpt_hash(s->ckpt, hash[0]));
    QZ_TRY(hash_tokenizer(hash[1], s, arena));
    *out = (qz_stats_source){.program = "qcal " QZ_VERSION,
                             .family = qz_model_family(s->model)->plugin.name,
                             .backend = s->backend->describe(),
                             .model_hash = hash[0],
                             .tokenizer_hash = hash[1],
                             .seed = recipe->calibration.seed,
                             .layers = c->layers,
                             .experts = c->experts,
                             .type = recipe->statistics.type};
    if (!recipe->calibration.data) return QZ_OK;
    QZ_TRY_CTX(qz_hash_file(hash[2], recipe->calibration.data), "calibration.data");
    out->data_hash = hash[2];
    out->samples = recipe->calibration.samples;
    out->sequence_length = recipe->calibration.sequence_length;
    return QZ_OK;
}

qz_status qz_statistics_bytes(uint64_t *out, const qz_session *s, const qz_recipe *recipe, qz_arena *arena)
{
    const int layers = (int)qz_model_config_of(s->model)->layers;
    const qz_patterns *kept = &recipe->statistics.layers;
    bool *keeps = qz_arena_array(arena, bool, (size_t)layers);
    if (!keeps) return qz_arena_failed(arena);
    for (int i = 0; i < layers; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s.%d", qz_model_family(s->model)->names->layer, i);
        keeps[i] = kept->count == 0 || qz_patterns_match(kept, name);
    }
    const qz_stats_wants wants = {.reservoir = 1024, .histogram = true};
    const char *head = qz_model_end_name(s->model, QZ_END_HEAD);
    const bool keeps_head = head && (kept->count == 0 || qz_patterns_match(kept, head));
    *out = qz_stats_file_bytes(s->model, recipe->statistics.type, wants, keeps, keeps_head);
    return QZ_OK;
}
