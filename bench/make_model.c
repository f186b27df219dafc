/* make_model OUT [--hidden N] ...: writes a Llama-shaped folder with reproducible random weights (bf16), for measuring
 * speed and memory. Its text means nothing.
 *
 * Weights are normal with a standard deviation of 1/sqrt(K); norms are 1 + 0.1 n, with one channel in 256 made 20 times
 * larger, as trained models have them. Every row has a generator of its own, seeded by tensor and row, so the bytes do
 * not depend on the number of threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "checkpoints/checkpoints.h"
#include "numeric/minifloat.h"

typedef struct shape {
    int64_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
    const char *tokenizer, *out;
} shape;

enum { TENSORS_PER_LAYER = 9, NAME_SIZE = 96 };

typedef struct tensor {
    char name[NAME_SIZE];
    int64_t rows, cols; /* cols 0: a norm of `rows` channels */
} tensor;

static tensor named(const char *name, int64_t rows, int64_t cols)
{
    tensor t = {.rows = rows, .cols = cols};
    snprintf(t.name, sizeof t.name, "%s.weight", name);
    return t;
}

static tensor in_layer(int64_t layer, const char *name, int64_t rows, int64_t cols)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "model.layers.%lld.%s", (long long)layer, name);
    return named(full, rows, cols);
}

static int64_t list_tensors(tensor *t, const shape *s)
{
    int64_t n = 0, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    t[n++] = named("model.embed_tokens", s->vocab, s->hidden);
    for (int64_t i = 0; i < s->layers; i++) {
        t[n++] = in_layer(i, "input_layernorm", s->hidden, 0);
        t[n++] = in_layer(i, "post_attention_layernorm", s->hidden, 0);
        t[n++] = in_layer(i, "self_attn.q_proj", q, s->hidden);
        t[n++] = in_layer(i, "self_attn.k_proj", kv, s->hidden);
        t[n++] = in_layer(i, "self_attn.v_proj", kv, s->hidden);
        t[n++] = in_layer(i, "self_attn.o_proj", s->hidden, q);
        t[n++] = in_layer(i, "mlp.gate_proj", s->ffn, s->hidden);
        t[n++] = in_layer(i, "mlp.up_proj", s->ffn, s->hidden);
        t[n++] = in_layer(i, "mlp.down_proj", s->hidden, s->ffn);
    }
    t[n++] = named("model.norm", s->hidden, 0);
    t[n++] = named("lm_head", s->vocab, s->hidden);
    return n;
}

/* out (rows) */
static void fill_norm(uint16_t *out, int64_t rows, uint64_t key)
{
    qz_rng r;
    qz_rng_seed(&r, key, 0);
    for (int64_t i = 0; i < rows; i++) out[i] = qz_bf16_encode((float)(1 + 0.1 * qz_rng_normal(&r)));
    int64_t large = rows / 256 > 0 ? rows / 256 : 1;
    for (int64_t i = 0; i < large; i++) {
        uint64_t at = qz_rng_below(&r, (uint64_t)rows);
        out[at] = qz_bf16_encode(20 * qz_bf16_decode(out[at]));
    }
}

/* out (rows, cols) */
static void fill_matrix(uint16_t *out, int64_t rows, int64_t cols, uint64_t key)
{
    double deviation = 1 / sqrt((double)cols);
    QZ_PARALLEL_FOR
    for (int64_t n = 0; n < rows; n++) {
        qz_rng r;
        qz_rng_seed(&r, key, (uint64_t)n);
        for (int64_t k = 0; k < cols; k++) out[n * cols + k] = qz_bf16_encode((float)(deviation * qz_rng_normal(&r)));
    }
}

static qz_status declare(qz_shards *shards, const tensor *t)
{
    int64_t dims[2] = {t->rows, t->cols};
    return qz_shards_declare(shards, t->name, t->name, QZ_BF16, t->cols ? 2 : 1, dims);
}

static qz_status write_tensor(qz_shards *shards, const tensor *t, uint64_t key, qz_arena *arena)
{
    size_t count = (size_t)(t->rows * (t->cols ? t->cols : 1));
    uint16_t *data = qz_arena_array(arena, uint16_t, count);
    if (!data) return qz_arena_failed(arena);
    if (t->cols)
        fill_matrix(data, t->rows, t->cols, key);
    else
        fill_norm(data, t->rows, key);
    QZ_TRY(qz_shards_write(shards, t->name, data, count * sizeof *data));
    qz_arena_reset(arena);
    return QZ_OK;
}

static qz_status write_shards(qz_shards *shards, const tensor *t, int64_t count, qz_arena *arena)
{
    for (int64_t i = 0; i < count; i++) QZ_TRY(declare(shards, &t[i]));
    QZ_TRY(qz_shards_begin(shards));
    for (int64_t i = 0; i < count; i++) QZ_TRY(write_tensor(shards, &t[i], (uint64_t)i, arena));
    QZ_TRY(qz_shards_finish(shards));
    printf("%.0f MB written\n", (double)qz_shards_bytes(shards) / 1e6);
    return QZ_OK;
}

static qz_status write_weights(const shape *s, qz_arena *arena)
{
    tensor *t = qz_malloc(sizeof *t * (size_t)(3 + TENSORS_PER_LAYER * s->layers));
    if (!t) return QZ_FAIL(QZ_MEMORY, "out of memory: no room for the list of tensors");
    int64_t count = list_tensors(t, s);
    qz_shards *shards = NULL;
    qz_status status = qz_shards_new(&shards, s->out, UINT64_MAX);
    if (status == QZ_OK) status = write_shards(shards, t, count, arena);
    qz_shards_free(shards);
    qz_free(t);
    return status;
}

static void put_shape(qz_json_writer *w, const shape *s)
{
    qz_json_put_int(w, "hidden_size", s->hidden);
    qz_json_put_int(w, "intermediate_size", s->ffn);
    qz_json_put_int(w, "num_hidden_layers", s->layers);
    qz_json_put_int(w, "num_attention_heads", s->heads);
    qz_json_put_int(w, "num_key_value_heads", s->kv_heads);
    qz_json_put_int(w, "head_dim", s->head_dim);
    qz_json_put_int(w, "vocab_size", s->vocab);
}

static qz_status write_config(const shape *s, const char *path)
{
    qz_json_writer *w;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_object(w, NULL);
    qz_json_begin_array(w, "architectures");
    qz_json_put_string(w, NULL, "LlamaForCausalLM");
    qz_json_end(w);
    qz_json_put_string(w, "model_type", "llama");
    put_shape(w, s);
    qz_json_put_int(w, "max_position_embeddings", 4096);
    qz_json_put_double(w, "rms_norm_eps", 1e-5);
    qz_json_put_double(w, "rope_theta", 10000);
    qz_json_put_string(w, "hidden_act", "silu");
    qz_json_put_bool(w, "attention_bias", false);
    qz_json_put_bool(w, "mlp_bias", false);
    qz_json_put_bool(w, "tie_word_embeddings", false);
    qz_json_put_int(w, "bos_token_id", 0);
    qz_json_put_int(w, "eos_token_id", 1);
    qz_json_put_string(w, "torch_dtype", "bfloat16");
    qz_json_end(w);
    const char *text;
    size_t size;
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) status = qz_file_write(path, text, size);
    qz_json_writer_free(w);
    return status;
}

/* tokenizer.json, and what lies beside it. */
static qz_status copy_tokenizer(const shape *s, qz_arena *arena)
{
    const char *beside[] = {"tokenizer_config.json", "generation_config.json"};
    QZ_TRY(qz_file_copy(qz_path_join(arena, s->out, "tokenizer.json"), s->tokenizer));
    size_t folder = (size_t)(qz_path_base(s->tokenizer) - s->tokenizer);
    for (int i = 0; i < 2; i++) {
        const char *from = qz_arena_printf(arena, "%.*s%s", (int)folder, s->tokenizer, beside[i]);
        if (qz_path_exists(from)) QZ_TRY(qz_file_copy(qz_path_join(arena, s->out, beside[i]), from));
    }
    return QZ_OK;
}

static qz_status make(const shape *s, qz_arena *arena)
{
    QZ_TRY(qz_folder_make(s->out));
    QZ_TRY(copy_tokenizer(s, arena));
    QZ_TRY(write_config(s, qz_path_join(arena, s->out, "config.json")));
    return write_weights(s, arena);
}

static int usage(void)
{
    fprintf(stderr, "usage: make_model OUT [--hidden 2048] [--ffn 8192] [--layers 4] [--heads 32] [--kv-heads 8] "
                    "[--head-dim 64] [--vocab 32000] [--tokenizer demo/model/tokenizer.json]\n");
    return 2;
}

static int64_t *number_option(shape *s, const char *name)
{
    const struct {
        const char *name;
        int64_t *value;
    } options[] = {{"--hidden", &s->hidden}, {"--ffn", &s->ffn},           {"--layers", &s->layers},
                   {"--heads", &s->heads},   {"--kv-heads", &s->kv_heads}, {"--head-dim", &s->head_dim},
                   {"--vocab", &s->vocab}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (strcmp(options[i].name, name) == 0) return options[i].value;
    return NULL;
}

int main(int argc, char **argv)
{
    shape s = {.hidden = 2048, .ffn = 8192, .layers = 4, .heads = 32, .kv_heads = 8, .head_dim = 64, .vocab = 32000};
    s.tokenizer = "demo/model/tokenizer.json";
    if (argc < 2 || argc % 2 != 0 || argv[1][0] == '-') return usage();
    s.out = argv[1];
    for (int i = 2; i < argc; i += 2) {
        int64_t *number = number_option(&s, argv[i]);
        if (number)
            *number = atoll(argv[i + 1]);
        else if (strcmp(argv[i], "--tokenizer") == 0)
            s.tokenizer = argv[i + 1];
        else
            return usage();
        if (number && (*number < 1 || *number > 1 << 24)) return usage();
    }
    qz_arena *arena;
    qz_status status = qz_arena_new(&arena, "make_model");
    if (status == QZ_OK) status = make(&s, arena);
    if (status != QZ_OK) fprintf(stderr, "make_model: %s\n", qz_error_message());
    qz_arena_free(arena);
    return status != QZ_OK;
}
