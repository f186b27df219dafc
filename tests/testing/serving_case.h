/* Small model folders for the rules of `qcal check`, made tensor by tensor, without our exporters: one at a time, in
 * `box`, which is changed before it is written. */
#ifndef QZ_TESTING_SERVING_CASE_H
#define QZ_TESTING_SERVING_CASE_H

#include <stdlib.h>

#include "programs/serving.h"
#include "testing/safetensors_fixture.h"

enum { MOST_TENSORS = 400, LAYERS = 2 };

typedef struct stored {
    char name[160];
    const char *type;
    int ndim;
    int64_t shape[2];
    size_t bytes;
    uint32_t word; /* fills it */
} stored;

typedef struct folder {
    const char *quant; /* JSON of quantization_config; NULL: none */
    const char *type, *tied;
    int heads, kv_heads, hidden, ffn;
    stored tensor[MOST_TENSORS];
    int tensors;
} folder;

static folder box;

static inline folder *new_folder(const char *quant)
{
    box = (folder){.quant = quant, .type = "float16", .tied = "true"};
    box.heads = 8;
    box.kv_heads = 4;
    box.hidden = 512;
    box.ffn = 1024;
    return &box;
}

static inline size_t width_of(const char *type)
{
    return strchr(type, '8') ? 1 : strstr(type, "64") ? 8 : strstr(type, "32") ? 4 : 2;
}

static inline stored *add(const char *module, const char *suffix, const char *type, int64_t a, int64_t b)
{
    stored *t = &box.tensor[box.tensors++];
    cr_assert(box.tensors < MOST_TENSORS);
    snprintf(t->name, sizeof t->name, "%s.%s", module, suffix);
    t->type = type;
    t->ndim = b ? 2 : 1;
    t->shape[0] = a;
    t->shape[1] = b;
    t->bytes = (size_t)(a * (b ? b : 1)) * width_of(type);
    t->word = strcmp(type, "F32") == 0 ? 0x3f000000 /* 0.5 */ : 0;
    return t;
}

/* Calls `make` for each linear. */
static inline void each_linear(void (*make)(const char *module, int64_t n, int64_t k))
{
    const int64_t q = box.hidden, kv = box.hidden / box.heads * box.kv_heads;
    const struct {
        const char *name;
        int64_t n, k;
    } linears[] = {{"self_attn.q_proj", q, box.hidden},    {"self_attn.k_proj", kv, box.hidden},
                   {"self_attn.v_proj", kv, box.hidden},   {"self_attn.o_proj", box.hidden, q},
                   {"mlp.gate_proj", box.ffn, box.hidden}, {"mlp.up_proj", box.ffn, box.hidden},
                   {"mlp.down_proj", box.hidden, box.ffn}};
    for (int layer = 0; layer < LAYERS; layer++)
        for (int i = 0; i < 7; i++) {
            char module[128];
            snprintf(module, sizeof module, "model.layers.%d.%s", layer, linears[i].name);
            make(module, linears[i].n, linears[i].k);
        }
}

static inline void make_plain(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F16", n, k);
}

static inline void make_awq(const char *module, int64_t n, int64_t k)
{
    add(module, "qweight", "I32", k, n / 8);
    add(module, "qzeros", "I32", k / 128, n / 8);
    add(module, "scales", "F16", k / 128, n);
}

static inline void make_gptq(const char *module, int64_t n, int64_t k)
{
    add(module, "qweight", "I32", k / 8, n);
    add(module, "qzeros", "I32", k / 128, n / 8)->word = 0x77777777;
    add(module, "scales", "F16", k / 128, n);
    add(module, "g_idx", "I32", k, 0);
}

static inline void make_packed(const char *module, int64_t n, int64_t k)
{
    add(module, "weight_packed", "I32", n, k / 8);
    add(module, "weight_scale", "F16", n, k / 128);
    add(module, "weight_shape", "I64", 2, 0);
}

static inline void make_int8(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "I8", n, k);
    add(module, "weight_scale", "F32", n, 1);
    add(module, "input_scale", "F32", 1, 0);
}

static inline void make_fp8(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F8_E4M3", n, k);
    add(module, "weight_scale", "F32", 1, 0);
    add(module, "input_scale", "F32", 1, 0);
}

static inline void make_blocks(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F8_E4M3", n, k);
    add(module, "weight_scale_inv", "F32", (n + 127) / 128, (k + 127) / 128);
}

static inline void make_nf4(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "U8", n * k / 2, 1);
    add(module, "weight.absmax", "F32", n * k / 64, 0);
    add(module, "weight.quant_map", "F32", 16, 0);
    add(module, "weight.quant_state.bitsandbytes__nf4", "U8", 90, 0);
}

/* ---- writing ---- */

static inline void write_tensors(const char *path)
{
    char *header;
    size_t size, bytes = 0;
    FILE *out = open_memstream(&header, &size);
    fprintf(out, "{");
    for (int i = 0; i < box.tensors; i++) {
        const stored *t = &box.tensor[i];
        fprintf(out, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", i ? "," : "", t->name, t->type,
                (long long)t->shape[0]);
        if (t->ndim == 2) fprintf(out, ",%lld", (long long)t->shape[1]);
        fprintf(out, "],\"data_offsets\":[%zu,%zu]}", bytes, bytes + t->bytes);
        bytes += t->bytes;
    }
    fprintf(out, "}");
    fclose(out);
    uint8_t *data = calloc(1, bytes), *at = data;
    for (int i = 0; i < box.tensors; at += box.tensor[i++].bytes)
        for (size_t j = 0; j + 4 <= box.tensor[i].bytes; j += 4) memcpy(at + j, &box.tensor[i].word, 4);
    fixture_file(path, header, data, bytes);
    free(data);
    free(header);
}

static inline const char *write_folder(void)
{
    static int number;
    char name[32], text[4096];
    snprintf(name, sizeof name, "folder%d", number++);
    const char *path = fixture_folder(name);
    snprintf(text, sizeof text,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d, "
             "\"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
             "\"num_key_value_heads\": %d, \"vocab_size\": 256, \"max_position_embeddings\": 256, "
             "\"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": %s, \"torch_dtype\": \"%s\"%s%s}",
             box.hidden, box.ffn, LAYERS, box.heads, box.kv_heads, box.tied, box.type,
             box.quant ? ", \"quantization_config\": " : "", box.quant ? box.quant : "");
    fixture_text(path, "config.json", text);
    write_tensors(fixture_in(path, "model.safetensors"));
    return path;
}

/* ---- checking ---- */

static qz_arena *arena;
static qz_findings findings;

static inline void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static inline void teardown(void)
{
    qz_arena_free(arena);
}

static inline void check_for(qz_consumer consumer)
{
    check_ok(qz_serving_check(&findings, write_folder(), consumer, arena));
}

/* ---- configs ---- */

#define AWQ(more)                                                                                                      \
    "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"zero_point\": true, \"version\": \"gemm\"" more "}"
#define GPTQ(bits, sym, desc, more)                                                                                    \
    "{\"quant_method\": \"gptq\", \"bits\": " bits ", \"group_size\": 128, \"desc_act\": " desc ", \"sym\": " sym more \
    "}"
#define COMPRESSED(format, weights, inputs, more)                                                                      \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"" format                                                 \
    "\", \"quantization_status\": \"compressed\", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], "       \
    "\"weights\": {" weights "}, \"input_activations\": " inputs "}}" more "}"
#define INT4 "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\", \"group_size\": 128"
#define INT8 "\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"channel\""
#define IGNORE ", \"ignore\": [\"lm_head\"]"
#define STATIC "{\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"tensor\", \"dynamic\": false}"
#define FP8(scheme, more) "{\"quant_method\": \"fp8\", \"activation_scheme\": \"" scheme "\"" more "}"
#define BLOCKS ", \"weight_block_size\": [128, 128]"
#define NF4                                                                                                            \
    "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": false, "                           \
    "\"bnb_4bit_quant_type\": \"nf4\", \"llm_int8_skip_modules\": [\"lm_head\"]}"

#endif
