/* Any bytes as config.json: an error, or a configuration whose sizes the arithmetic can hold. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "models/rope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds) abort();
}

static void check(const qz_model_config *c)
{
    static float inv_freq[1 << 12];
    require(c->hidden > 0 && c->ffn > 0 && c->layers > 0 && c->vocabulary > 0 && c->context > 0);
    require(c->heads > 0 && c->kv_heads > 0 && c->heads % c->kv_heads == 0);
    require(c->head_dim > 0 && c->head_dim % 2 == 0 && c->head_dim / 2 <= 1 << 12);
    require(c->bos >= -1 && c->bos < c->vocabulary && c->window >= 0 && c->norm_eps > 0);
    for (int64_t i = 0; i < c->layers; i++) require(!c->layer_slides[i] || c->window > 0);
    require(c->rope.dims >= 2 && c->rope.dims <= c->head_dim && c->rope.dims % 2 == 0);
    qz_rope_frequencies(inv_freq, &c->rope, c->rope.dims);
    for (int64_t i = 0; i < c->rope.dims / 2; i++) require(isfinite(inv_freq[i]));
    require(isfinite(c->rope.attention_factor));
    require(c->active_experts <= c->experts && (c->experts == 0 || c->expert_ffn > 0));
    for (int64_t i = 0; i < c->layers; i++) require(!c->layer_routes[i] || c->active_experts > 0);
    require(c->embedding_scale > 0 && isfinite(c->embedding_scale) && isfinite(c->attention_scale));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qz_arena *arena;
    qz_json *doc;
    qz_model_config config;
    if (qz_arena_new(&arena, "fuzz") != QZ_OK) return 0;
    if (qz_json_parse(&doc, (const char *)data, size) == QZ_OK) {
        if (qz_model_config_read(&config, qz_json_root(doc), arena) == QZ_OK) check(&config);
        qz_json_close(doc);
    }
    qz_arena_free(arena);
    return 0;
}
