/* Each serving rule on a small folder that breaks it and on one that does not. The folders are made here, tensor by
 * tensor, without our exporters. */
#include "programs/serving.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "programs/cli.h"
#include "testing/safetensors_fixture.h"
#include "testing/testing.h"

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

static folder *new_folder(const char *quant)
{
    box = (folder){.quant = quant, .type = "float16", .tied = "true"};
    box.heads = 8;
    box.kv_heads = 4;
    box.hidden = 512;
    box.ffn = 1024;
    return &box;
}

static size_t width_of(const char *type)
{
    return strchr(type, '8') ? 1 : strstr(type, "64") ? 8 : strstr(type, "32") ? 4 : 2;
}

static stored *add(const char *module, const char *suffix, const char *type, int64_t a, int64_t b)
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

static stored *find(const char *name)
{
    for (int i = 0; i < box.tensors; i++)
        if (strcmp(box.tensor[i].name, name) == 0) return &box.tensor[i];
    cr_assert(false, "%s", name);
    return NULL;
}

static void drop(const char *name)
{
    stored *t = find(name), *last = &box.tensor[--box.tensors];
    if (t != last) *t = *last;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Calls `make` for each linear. */
static void each_linear(void (*make)(const char *module, int64_t n, int64_t k))
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

static void make_plain(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F16", n, k);
}

static void make_awq(const char *module, int64_t n, int64_t k)
{
    add(module, "qweight", "I32", k, n / 8);
    add(module, "qzeros", "I32", k / 128, n / 8);
    add(module, "scales", "F16", k / 128, n);
}

static void make_gptq(const char *module, int64_t n, int64_t k)
{
    add(module, "qweight", "I32", k / 8, n);
    add(module, "qzeros", "I32", k / 128, n / 8)->word = 0x77777777;
    add(module, "scales", "F16", k / 128, n);
    add(module, "g_idx", "I32", k, 0);
}

static void make_packed(const char *module, int64_t n, int64_t k)
{
    add(module, "weight_packed", "I32", n, k / 8);
    add(module, "weight_scale", "F16", n, k / 128);
    add(module, "weight_shape", "I64", 2, 0);
}

static void make_int8(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "I8", n, k);
    add(module, "weight_scale", "F32", n, 1);
    add(module, "input_scale", "F32", 1, 0);
}

static void make_fp8(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F8_E4M3", n, k);
    add(module, "weight_scale", "F32", 1, 0);
    add(module, "input_scale", "F32", 1, 0);
}

static void make_blocks(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "F8_E4M3", n, k);
    add(module, "weight_scale_inv", "F32", (n + 127) / 128, (k + 127) / 128);
}

static void make_nf4(const char *module, int64_t n, int64_t k)
{
    add(module, "weight", "U8", n * k / 2, 1);
    add(module, "weight.absmax", "F32", n * k / 64, 0);
    add(module, "weight.quant_map", "F32", 16, 0);
    add(module, "weight.quant_state.bitsandbytes__nf4", "U8", 90, 0);
}

/* ---- writing ---- */

static void write_tensors(const char *path)
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

static const char *write_folder(void)
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

static qz_arena *arena;
static qz_findings findings;

static void check_for(qz_consumer consumer)
{
    if (!arena) check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_serving_check(&findings, write_folder(), consumer, arena));
}

static const qz_finding *finding(const char *rule)
{
    for (const qz_finding *x = findings.first; x; x = x->next)
        if (strcmp(x->rule, rule) == 0) return x;
    return NULL;
}

#define check_finds(consumer, harm_, rule, part, place)                                                                \
    do {                                                                                                               \
        check_for(consumer);                                                                                           \
        const qz_finding *x_ = finding(rule);                                                                          \
        cr_assert(x_ && x_->harm == (harm_), "%s: %s", rule, x_ ? qz_harm_name(x_->harm) : "nothing found");           \
        cr_assert(strstr(x_->what, part) && strstr(x_->where, place), "%s: %s", x_->where, x_->what);                  \
    } while (0)

#define check_silent(consumer, rule)                                                                                   \
    do {                                                                                                               \
        check_for(consumer);                                                                                           \
        cr_assert(!finding(rule), "%s: %s", finding(rule)->where, finding(rule)->what);                                \
    } while (0)

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

static const char first_q[] = "model.layers.0.self_attn.q_proj";

/* Folders as their formats want them: nothing is refused or wrong. */
Test(serving, sound_folders_pass)
{
    static const struct {
        const char *quant;
        void (*make)(const char *, int64_t, int64_t);
        unsigned consumers;
    } sound[] = {{NULL, make_plain, QZ_FOR_ALL},
                 {AWQ(""), make_awq, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {GPTQ("4", "true", "false", ""), make_gptq, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {COMPRESSED("pack-quantized", INT4, "null", IGNORE), make_packed, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {COMPRESSED("int-quantized", INT8, STATIC, IGNORE), make_int8, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {FP8("static", ""), make_fp8, QZ_FOR_VLLM},
                 {FP8("dynamic", BLOCKS), make_blocks, QZ_FOR_ALL},
                 {NF4, make_nf4, QZ_FOR_TRANSFORMERS}};
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++)
        for (int c = 1; c <= 4; c *= 2) {
            if (!(sound[i].consumers & (unsigned)c)) continue;
            new_folder(sound[i].quant);
            each_linear(sound[i].make);
            check_for((qz_consumer)c);
            cr_assert(!qz_serving_spoils(&findings), "case %zu, %s: %s: %s", i, qz_consumer_name((qz_consumer)c),
                      findings.first->where, findings.first->what);
        }
}

Test(serving, methods)
{
    new_folder(NF4);
    each_linear(make_nf4);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "method", "bitsandbytes moved out", "quant_method");
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "method", "bitsandbytes", "quant_method");
    new_folder("{\"quant_method\": \"quip\"}");
    each_linear(make_plain);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "method", "\"quip\"", "quant_method");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "method", "\"quip\"", "quant_method");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "method", "without weight_block_size", "quant_method");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "fp8-form", "blocks of 128", "weight_block_size");
}

Test(serving, keys)
{
    new_folder("{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"sym\": true}");
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "config-keys", "\"desc_act\" is missing", "quantization_config");
    new_folder(COMPRESSED("pack-quantized", INT4 ", \"clip\": 1", "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "config-keys", "\"clip\" is not known", "weights");
    new_folder("{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": true}");
    each_linear(make_nf4);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "config-keys", "both true", "quantization_config");
}

Test(serving, awq)
{
    new_folder("{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 128, \"zero_point\": false, \"version\": "
               "\"gemv\"}");
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "awq-layout", "\"gemv\"", "version");
    cr_assert_eq(findings.count[QZ_HARM_REFUSED], 1);
    new_folder(AWQ(""));
    box.type = "float32";
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "stored-type", "float32", "torch_dtype");
    cr_assert(!qz_serving_spoils(&findings));
}

Test(serving, gptq)
{
    static const char *const refused[] = {GPTQ("3", "true", "false", ""), GPTQ("4", "false", "false", ""),
                                          GPTQ("2", "true", "false", ""), GPTQ("4", "true", "true", "")};
    for (int i = 0; i < 4; i++) {
        new_folder(refused[i]);
        each_linear(make_gptq);
        check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "gptq-kind", i < 3 ? "4 and 8 bits" : "desc_act", first_q);
        cr_assert_eq(finding("gptq-kind")->more, 7 * LAYERS - 1);
        check_silent(QZ_FOR_TRANSFORMERS, "gptq-kind");
    }
    new_folder(GPTQ("4", "true", "false", ""));
    each_linear(make_gptq);
    find("model.layers.1.mlp.up_proj.qzeros")->word = 0x77777767;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "gptq-zeros", "not all zeros", "model.layers.1.mlp.up_proj.qzeros");
    new_folder(GPTQ("4", "true", "false", ", \"checkpoint_format\": \"gptq_v2\""));
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "gptq-zeros", "not all zeros", first_q);
    cr_assert_eq(finding("gptq-zeros")->more, 7 * LAYERS - 1);
}

/* A rule of `dynamic` that leaves o_proj plain is followed by vLLM, not by transformers. */
Test(serving, gptq_dynamic)
{
    new_folder(GPTQ("4", "true", "false", ", \"dynamic\": {\"-:.*o_proj\": {}}"));
    each_linear(make_gptq);
    for (int layer = 0; layer < LAYERS; layer++) {
        static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx"};
        char name[128];
        for (int i = 0; i < 4; i++) {
            snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj.%s", layer, parts[i]);
            drop(name);
        }
        snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj", layer);
        add(name, "weight", "F16", 512, 512);
    }
    check_for(QZ_FOR_VLLM);
    cr_assert(!qz_serving_spoils(&findings), "%s: %s", findings.first->where, findings.first->what);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "gptq-kind", "did not follow", "dynamic");
}

Test(serving, formats)
{
    new_folder(COMPRESSED("int-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ct-format", "plain inputs in the format \"int-quantized\"", first_q);
    new_folder(COMPRESSED("marlin-24", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ct-format", "sparse", "format");
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_WRONG, "ct-format", "takes all 8-bit weights for fp8", first_q);
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_TRT_LLM, QZ_HARM_REFUSED, "ct-format", "input_activations is null", first_q);
}

Test(serving, fp8)
{
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    stored *t = find("model.layers.0.mlp.down_proj.weight_scale");
    t->shape[0] = 512;
    t->bytes = 2048;
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fp8-form", "several scales", "down_proj.weight_scale");
    new_folder(FP8("static", BLOCKS));
    each_linear(make_blocks);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fp8-form", "\"static\" with weight_block_size", "activation_scheme");
}

Test(serving, fused_schemes)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"lm_head\", \"re:.*k_proj\"]"));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fused-schemes", "q_proj is int4 group 128, k_proj is plain",
                "model.layers.0.self_attn.k_proj");
    cr_assert_eq(finding("fused-schemes")->more, LAYERS - 1);
    new_folder(GPTQ("4", "true", "false", ", \"dynamic\": {\".*gate_proj\": {\"bits\": 8}}"));
    each_linear(make_gptq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "fused-schemes", "gate_proj is int8 group 128, up_proj is int4",
                "model.layers.0.mlp.up_proj");
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"lm_head\", \"re:.*o_proj\"]"));
    each_linear(make_packed);
    check_silent(QZ_FOR_VLLM, "fused-schemes");
}

Test(serving, fused_scales)
{
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    find("model.layers.1.self_attn.v_proj.input_scale")->word = bits_of(0.25f);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-scales", "the one it loads last", "layers.1.self_attn.v_proj.input");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    find("model.layers.0.mlp.up_proj.weight_scale")->word = bits_of(0.25f);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-scales", "a second time", "layers.0.mlp.up_proj.weight_scale");
    find("model.layers.0.mlp.up_proj.weight_scale")->word = bits_of(0.5f);
    find("model.layers.0.mlp.down_proj.weight_scale")->word = bits_of(0.25f);
    check_silent(QZ_FOR_VLLM, "fused-scales");
}

Test(serving, fused_order)
{
    new_folder(GPTQ("4", "true", "true", ""));
    each_linear(make_gptq);
    find("model.layers.0.self_attn.k_proj.g_idx")->word = 1;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "fused-order", "g_idx differs", "model.layers.0.self_attn.k_proj");
}

Test(serving, group_size)
{
    static const char awq48[] = "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 256, \"zero_point\": true}";
    new_folder(awq48);
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "group-size", "groups of 256", first_q);
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "group-size", "gptqmodel", first_q);
    new_folder(COMPRESSED("pack-quantized",
                          "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"group\", "
                          "\"group_size\": 256",
                          "null", IGNORE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "group-size", "Exllama", first_q);
    box.type = "bfloat16";
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "group-size", "no kernel", first_q);
}

Test(serving, shapes)
{
    new_folder(AWQ(""));
    box.ffn = 1056; /* 8 1/4 groups */
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kernel-shapes", "1056 inputs do not divide into groups of 128",
                "mlp.down_proj");
    new_folder(FP8("dynamic", BLOCKS));
    box.ffn = 1056;
    each_linear(make_blocks);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kernel-shapes", "1056 outputs are no whole blocks", "mlp.gate_proj");
    cr_assert_eq(finding("kernel-shapes")->more, LAYERS - 1); /* up_proj is the last of its set */
    new_folder(COMPRESSED("pack-quantized",
                          "\"num_bits\": 4, \"type\": \"int\", \"symmetric\": true, \"strategy\": \"channel\"", "null",
                          IGNORE));
    box.ffn = 1032;
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "kernel-shapes", "multiples of 32", "mlp.gate_proj");
}

Test(serving, tensor_parallel)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "tensor-parallel", "over 8 devices: 64 inputs a device", "o_proj");
    cr_assert_eq(findings.count[QZ_HARM_LIMITED], 1);
    check_silent(QZ_FOR_TRANSFORMERS, "tensor-parallel");
    new_folder(NULL);
    box.kv_heads = 8;
    each_linear(make_plain);
    check_silent(QZ_FOR_VLLM, "tensor-parallel");
    box.heads = box.kv_heads = 6;
    box.hidden = 384;
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "tensor-parallel", "over 4 devices: 6 attention heads", "heads");
}

Test(serving, ignore_list)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", ""));
    box.tied = "false";
    each_linear(make_packed);
    add("lm_head", "weight", "F16", 256, 512);
    check_silent(QZ_FOR_VLLM, "ignore-list");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_WRONG, "ignore-list", "made anew with random weights", "lm_head");
    box.quant = COMPRESSED("pack-quantized", INT4, "null", IGNORE);
    check_silent(QZ_FOR_TRANSFORMERS, "ignore-list");
    box.quant = COMPRESSED("pack-quantized", INT4, "null", ", \"ignore\": [\"model.layers.1.mlp.down_proj\"]");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "ignore-list", "is stored quantized", "model.layers.1.mlp.down_proj");
}

Test(serving, missing_tensors)
{
    new_folder(COMPRESSED("int-quantized", INT8, STATIC, IGNORE));
    each_linear(make_int8);
    drop("model.layers.1.mlp.down_proj.input_scale");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "\"input_scale\" is missing",
                "layers.1.mlp.down_proj");
    new_folder(AWQ(""));
    each_linear(make_awq);
    drop("model.layers.0.mlp.up_proj.scales");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "\"scales\" is missing", "layers.0.mlp.up_proj");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    find("model.layers.0.mlp.down_proj.input_scale")->word = 0;
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "missing-tensors", "the scale is 0", "down_proj.input_scale");
    new_folder(NULL);
    each_linear(make_plain);
    drop("model.layers.0.mlp.up_proj.weight");
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "missing-tensors", "no weight is stored", "layers.0.mlp.up_proj");
}

Test(serving, tied_head)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    add("lm_head", "qweight", "I32", 512, 32);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "tied-head", "tie_word_embeddings", "lm_head.qweight");
}

Test(serving, embeddings)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE));
    each_linear(make_packed);
    add("model.embed_tokens", "weight_packed", "I32", 512, 32);
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "embeddings", "does not load", "embed_tokens.weight_packed");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_REFUSED, "embeddings", "does not load", "embed_tokens.weight_packed");
}

#define CACHE                                                                                                          \
    ", \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, \"strategy\": "                \
    "\"tensor\", \"dynamic\": false}"

static void add_cache(void)
{
    for (int layer = 0; layer < LAYERS; layer++) {
        char module[64];
        snprintf(module, sizeof module, "model.layers.%d.self_attn", layer);
        add(module, "k_scale", "F32", 1, 0);
        add(module, "v_scale", "F32", 1, 0);
    }
}

Test(serving, cache)
{
    new_folder(COMPRESSED("pack-quantized", INT4, "null", IGNORE CACHE));
    each_linear(make_packed);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "missing: the server takes 1.0", "layers.0.self_attn");
    add_cache();
    check_for(QZ_FOR_VLLM);
    cr_assert(!qz_serving_spoils(&findings) && !finding("kv-scheme"));
    check_for(QZ_FOR_TRANSFORMERS);
    cr_assert(!finding("kv-scheme"));
    find("model.layers.1.self_attn.v_scale")->word = bits_of(1);
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "exactly 1.0", "model.layers.1.self_attn.v_scale");
    drop("model.layers.1.self_attn.v_scale");
    check_finds(QZ_FOR_VLLM, QZ_HARM_WRONG, "kv-scales", "only one of", "model.layers.1.self_attn");
    new_folder(COMPRESSED("pack-quantized", INT4, "null",
                          IGNORE ", \"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"int\", \"symmetric\": true}"));
    each_linear(make_packed);
    add_cache();
    check_finds(QZ_FOR_VLLM, QZ_HARM_REFUSED, "kv-scheme", "vllm does not read", "kv_cache_scheme");
    new_folder(FP8("static", ""));
    each_linear(make_fp8);
    add_cache();
    check_finds(QZ_FOR_VLLM, QZ_HARM_LIMITED, "kv-scheme", "does not switch the cache", "kv_cache_scheme");
    check_finds(QZ_FOR_TRANSFORMERS, QZ_HARM_LIMITED, "kv-scheme", "scales lie unused", "kv_cache_scheme");
}

/* Plain models of every family: the names that the rules look for are those that are stored. */
Test(serving, every_family)
{
    char **names, folder[512];
    size_t count, seen = 0;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_folder_list(&names, &count, "tests/golden/models", arena));
    for (size_t i = 0; i < count; i++, seen++) {
        snprintf(folder, sizeof folder, "tests/golden/models/%s", names[i]);
        check_ok(qz_serving_check(&findings, folder, QZ_FOR_VLLM, arena));
        cr_assert(!qz_serving_spoils(&findings), "%s: %s: %s", names[i], findings.first->where, findings.first->what);
    }
    cr_assert(seen >= 5);
}

/* ---- the table and the command ---- */

/* docs/serving.md has a heading for each rule, with what it looks at and whom it is for. */
Test(serving, every_rule_is_documented)
{
    FILE *in = fopen("docs/serving.md", "r");
    char page[32768];
    cr_assert(in != NULL);
    page[fread(page, 1, sizeof page - 1, in)] = '\0';
    fclose(in);
    const qz_serving_rule *r;
    size_t i = 0;
    for (; (r = qz_serving_rule_at(i)) != NULL; i++) {
        char heading[64];
        snprintf(heading, sizeof heading, "\n### %s\n", qz_serving_rule_name(r));
        const char *at = strstr(page, heading), *next = at ? strstr(at + 4, "\n### ") : NULL;
        cr_assert(at != NULL, "docs/serving.md has no section %s", qz_serving_rule_name(r));
        for (int c = 1; c <= 4; c *= 2) {
            const char *named = strstr(at, qz_consumer_name((qz_consumer)c));
            const bool here = named && (!next || named < next);
            cr_assert(here || !(qz_serving_rule_consumers(r) & (unsigned)c), "section %s does not name %s",
                      qz_serving_rule_name(r), qz_consumer_name((qz_consumer)c));
        }
        cr_assert(*qz_serving_rule_help(r));
    }
    size_t headings = 0;
    for (const char *at = page; (at = strstr(at, "\n### ")) != NULL; at++) headings++;
    cr_assert_eq(headings, i, "docs/serving.md has %zu sections, there are %zu rules", headings, i);
}

static char *out, *err;

static void forget(void)
{
    free(out);
    free(err);
    out = err = NULL;
    qz_arena_free(arena);
    arena = NULL;
}

TestSuite(serving, .fini = forget);

static int qcal(const char *folder, const char *consumer, const char *more)
{
    const char *argv[] = {"qcal", "check", folder, "--for", consumer, more, NULL};
    size_t out_size, err_size;
    free(out);
    free(err);
    FILE *o = open_memstream(&out, &out_size), *e = open_memstream(&err, &err_size);
    const int code = qz_cli_main(&qz_qcal, more ? 6 : 5, (char **)argv, o, e);
    fclose(o);
    fclose(e);
    return code;
}

Test(serving, command)
{
    new_folder(GPTQ("3", "true", "false", ""));
    each_linear(make_gptq);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", write_folder());
    cr_assert_eq(qcal(folder, "vllm", NULL), QZ_EXIT_NOT_ACCEPTED);
    cr_assert(strstr(out, "refused (vllm, gptq-kind): model.layers.0.self_attn.q_proj: 3 bits") &&
                  strstr(out, "(and at 13 more)") && strstr(out, "1 refused, 0 silently wrong"),
              "%s", out);
    cr_assert_eq(qcal(folder, "transformers", NULL), QZ_EXIT_DONE);
    cr_assert(strstr(out, "0 refused, 0 silently wrong"), "%s", out);
    cr_assert_eq(qcal(folder, "vllm", "--json"), QZ_EXIT_NOT_ACCEPTED);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, out, strlen(out)));
    const qz_json_node *first = qz_json_first(qz_json_get(qz_json_root(doc), "findings"));
    cr_assert(!qz_json_true(qz_json_get(qz_json_root(doc), "loads_as_written")));
    cr_assert_str_eq(qz_json_text(qz_json_get(first, "rule")), "gptq-kind");
    qz_json_close(doc);
    cr_assert_eq(qcal(folder, "ollama", NULL), QZ_EXIT_USAGE);
    cr_assert(strstr(err, "known are vllm, transformers and trt-llm"), "%s", err);
    cr_assert_eq(qcal("/nowhere", "vllm", NULL), QZ_EXIT_FAILED);
}

Test(serving, every_allocation_may_fail)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", write_folder());
    int n = 0;
    for (;;) {
        qz_arena *a;
        qz_findings f;
        check_ok(qz_arena_new(&a, "test"));
        qz_alloc_fail_at(++n);
        qz_status status = qz_serving_check(&f, folder, QZ_FOR_VLLM, a);
        qz_alloc_fail_at(0);
        qz_arena_free(a);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && n < 1000, "allocation %d: %s", n, qz_error_message());
    }
    cr_assert(n > 5);
}
