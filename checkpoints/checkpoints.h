/* Bytes on disk <-> tensors: folders as Hugging Face stores models, and the quantized containers of serving stacks.
 *
 * Reading:
 *     qz_ckpt *c;
 *     QZ_TRY(qz_ckpt_open(&c, "demo/model"));
 *     const qz_json_node *config = qz_json_root(qz_ckpt_config(c));
 *     QZ_TRY(qz_ckpt_read_weight(c, "model.layers.0.self_attn.q_proj", n, k, out, scratch));   // plain or quantized
 *     qz_ckpt_close(c);
 *
 * Writing: declare every tensor in order, begin, write each once (from any thread, in any order), finish.
 *
 * Tensors are views of mapped files; nothing is read before it is used. Every offset, length, type and overlap of a
 * header is checked when a folder is opened. */
#ifndef QZ_CHECKPOINTS_CHECKPOINTS_H
#define QZ_CHECKPOINTS_CHECKPOINTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/plugin.h"
#include "base/status.h"
#include "numeric/tensor.h"

/* ---- one safetensors file (safetensors.c) ---- */

typedef struct qz_safetensors qz_safetensors;

typedef struct qz_stored {
    const char *name;
    qz_tensor view;  /* into the map; sub-byte types: count elements, packed */
    uint64_t offset; /* of the data in the file */
    uint64_t bytes;
    const char *file; /* base name */
} qz_stored;

/* The checks of the specification and of FORMATS.md 10.1: header at most 100 MB, a JSON object, no duplicate names,
 * known types, end - begin = product(shape) * bits / 8 without overflow, contiguous from 0 to the end of the file. */
QZ_NODISCARD qz_status qz_safetensors_open(qz_safetensors **out, const char *path);
/* The same checks on bytes in memory, which must outlive it (fuzzing, tests). */
QZ_NODISCARD qz_status qz_safetensors_parse(qz_safetensors **out, const void *data, size_t size, const char *name);
void qz_safetensors_close(qz_safetensors *st);
size_t qz_safetensors_count(const qz_safetensors *st);
const qz_stored *qz_safetensors_at(const qz_safetensors *st, size_t i); /* in file order */
const qz_stored *qz_safetensors_find(const qz_safetensors *st, const char *name);
/* __metadata__: the value of a key, or NULL. */
const char *qz_safetensors_metadata(const qz_safetensors *st, const char *key);
/* The header's bytes as in the file, and the whole file's size. */
const void *qz_safetensors_header(const qz_safetensors *st, size_t *size, uint64_t *file_size);

/* ---- a model folder (ckpt.c) ---- */

typedef struct qz_ckpt qz_ckpt;
typedef struct qz_container qz_container;

/* config.json, then model.safetensors or model.safetensors.index.json with its shards. */
QZ_NODISCARD qz_status qz_ckpt_open(qz_ckpt **out, const char *folder);
/* A folder whose shards are being written and have their temporary names; config.json must be there already. Tensors
 * not yet written hold zeros, or a part of their values. */
QZ_NODISCARD qz_status qz_ckpt_open_unfinished(qz_ckpt **out, const char *folder);
void qz_ckpt_close(qz_ckpt *c);
const char *qz_ckpt_folder(const qz_ckpt *c);
const qz_json *qz_ckpt_config(const qz_ckpt *c);
const char *qz_ckpt_config_text(const qz_ckpt *c);       /* as in the file */
const qz_container *qz_ckpt_container(const qz_ckpt *c); /* never NULL: plain weights are the container `dense` */
size_t qz_ckpt_count(const qz_ckpt *c);
const qz_stored *qz_ckpt_at(const qz_ckpt *c, size_t i); /* shards in name order, then file order */
const qz_stored *qz_ckpt_find(const qz_ckpt *c, const char *name);
/* "<module>.<suffix>", or NULL. */
const qz_stored *qz_ckpt_find_part(const qz_ckpt *c, const char *module, const char *suffix);
uint64_t qz_ckpt_bytes(const qz_ckpt *c); /* of all tensors */
/* Fingerprint of the weights' headers and sizes plus config.json; cheap. */
QZ_NODISCARD qz_status qz_ckpt_hash(const qz_ckpt *c, char out[33]);

/* The linear layer `module` ("model.layers.0.mlp.up_proj") as (n, k) fp32: widened when plain, dequantized when the
 * folder is quantized. A wrong shape or type names tensor, found and expected; NaN or infinity in a plain weight is
 * QZ_NUMERIC naming tensor and index. */
QZ_NODISCARD qz_status qz_ckpt_read_weight(const qz_ckpt *c, const char *module, int64_t n, int64_t k, float *out,
                                           qz_arena *scratch);
/* Any plain tensor by full name as fp32, with the same checks. `ndim` <= 4. */
QZ_NODISCARD qz_status qz_ckpt_read_plain(const qz_ckpt *c, const char *name, int ndim, const int64_t *shape,
                                          float *out);
/* The stored shape is `shape`, else QZ_SHAPE naming tensor, found and expected. For containers. */
QZ_NODISCARD qz_status qz_ckpt_check_shape(const qz_ckpt *c, const qz_stored *t, int ndim, const int64_t *shape);
/* Fails, saying what a folder without config.json is: an adapter, or no model at all. */
QZ_NODISCARD qz_status qz_ckpt_missing_config(const char *folder, qz_arena *arena);
bool qz_ckpt_is_quantized(const qz_ckpt *c, const char *module);
/* The names under which the container stores `module`'s tensors are all known to it (for the unknown-tensor check). */
bool qz_ckpt_is_part_of(const qz_ckpt *c, const char *tensor, const char *module);
/* So are scales of the cache of the attention module (qz_container.kv_suffixes). */
bool qz_ckpt_is_cache_scale(const qz_ckpt *c, const char *tensor, const char *attention);
/* How the module's input is rounded when served, and the cache; mode NONE and wanted false where nothing says so. */
QZ_NODISCARD qz_status qz_ckpt_read_activation(const qz_ckpt *c, const char *module, qz_act_scheme *scheme,
                                               qz_act_values *values);
QZ_NODISCARD qz_status qz_ckpt_read_kv(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme,
                                       float *key, float *value);
/* The quantized form, from `arena`. */
QZ_NODISCARD qz_status qz_ckpt_read_qtensor(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                                            qz_arena *arena);

/* ---- writing shards (shards.c) ---- */

typedef struct qz_shards qz_shards;

/* Files model.safetensors, or model-0000i-of-0000n.safetensors and the index, in `folder`, each at most `limit` bytes
 * of tensors (a larger unit gets a file of its own; 0: no limit). The folder must exist. */
QZ_NODISCARD qz_status qz_shards_new(qz_shards **out, const char *folder, uint64_t limit);
/* Tensors declared with the same `unit` (a linear's module name, or the tensor's own name) share a shard. */
QZ_NODISCARD qz_status qz_shards_declare(qz_shards *s, const char *unit, const char *name, qz_dtype t, int ndim,
                                         const int64_t *shape);
QZ_NODISCARD qz_status qz_shards_begin(qz_shards *s); /* lays out, writes the headers */
QZ_NODISCARD qz_status qz_shards_write(qz_shards *s, const char *name, const void *data, size_t bytes);
/* Bytes [offset, offset + bytes) of a tensor; the parts of a tensor must not overlap. */
QZ_NODISCARD qz_status qz_shards_write_part(qz_shards *s, const char *name, uint64_t offset, const void *data,
                                            size_t bytes);
/* Every declared tensor must have been written once. Syncs, renames, writes the index. */
QZ_NODISCARD qz_status qz_shards_finish(qz_shards *s);
void qz_shards_free(qz_shards *s);            /* removes unfinished files unless kept; NULL allowed */
uint64_t qz_shards_bytes(const qz_shards *s); /* headers included; after begin */

/* Going on after an interruption. Declare as in the first run, then qz_shards_resume in place of begin: it adopts the
 * unfinished files of the folder, whose sizes and headers must be what this layout gives (QZ_FORMAT naming the file and
 * what differs). Every tensor counts as not written until it is written or marked; what such a tensor's bytes hold is
 * of no account. */
QZ_NODISCARD qz_status qz_shards_resume(qz_shards *s);
QZ_NODISCARD qz_status qz_shards_mark(qz_shards *s, const char *name); /* the file holds this tensor already */
bool qz_shards_has(const qz_shards *s, const char *name);              /* it was declared */
void qz_shards_keep(qz_shards *s); /* from now on no failure, nor qz_shards_free, removes unfinished files */
QZ_NODISCARD qz_status qz_shards_sync(qz_shards *s); /* what was written so far is on the disk */

/* ---- containers (containers.def, container_<name>.c) ---- */

/* What an export is to contain, neutral: filled by the pipeline from the family's tables. */
typedef struct qz_export_linear {
    const char *module; /* "model.layers.0.self_attn.q_proj" */
    int64_t n, k;
    bool has_bias;
    bool quantized; /* false: stored plain */
    qz_scheme scheme;
    int fused;            /* linears of one layer that servers fuse share a number within `layer`; -1: none */
    int layer;            /* -1: outside the decoder layers (the output head, the embeddings) */
    bool embedding;       /* rows are looked up, not multiplied */
    const char *fused_as; /* module path that servers give the fused set ("...self_attn.qkv_proj"); NULL: not known */
    qz_act_scheme activation; /* how its input is rounded when it is served */
    bool ordered;             /* the recipe insists on a permutation (GPTQ's desc_act and g_idx) */
    qz_dtype plain_type;      /* filled by `settle` of containers whose stored form says the type of the values */
} qz_export_linear;

typedef struct qz_export_plan {
    const qz_export_linear *linear; /* layer by layer, then those outside that are quantized, or were */
    size_t linears;
    const size_t *first;          /* [layers + 1] number of a layer's first linear; the last: of those outside */
    qz_dtype plain_type;          /* F16 or BF16 (or F32): every tensor that is not quantized, and biases */
    qz_kv_scheme kv;              /* of the key-value cache */
    const char *const *attention; /* [layers] modules "model.layers.0.self_attn", where cache scales belong */
    int layers;
    int64_t kv_heads;
    const char *const *router; /* [routers] modules of matrices that are no linears here, stay plain, and that loaders
                                * take for linears: the routers of layers with experts */
    size_t routers;
} qz_export_plan;

/* Scales of one layer's cache, (kv_heads) each when per head, else one. */
typedef struct qz_kv_values {
    const float *key, *value;
} qz_kv_values;

struct qz_container {
    qz_plugin plugin;
    const char *consumers; /* which programs and versions load it, for `qcal list containers` */
    bool (*recognise)(const qz_json_node *config);
    /* QZ_OK, or QZ_UNSUPPORTED with one reason a line. NULL: it cannot be written. */
    qz_status (*can_express)(const qz_export_plan *plan);
    /* The scheme that a quantized folder's config states. NULL: plain. */
    qz_status (*read_scheme)(qz_scheme *out, const qz_json_node *config);
    /* Suffixes of a linear's tensors after "<module>.", NULL-terminated: "qweight", "qzeros", ... "bias". */
    const char *const *suffixes;
    const char *const *kv_suffixes; /* the same after "<attention>.", of the cache's scales; NULL: none */
    bool (*holds)(const qz_ckpt *c, const char *module); /* the linear is stored quantized */
    qz_status (*read_linear)(const qz_ckpt *c, const char *module, int64_t n, int64_t k, qz_qtensor *out,
                             qz_arena *arena);
    /* The quantized tensors of one linear. Its bias is a plain tensor: the caller declares "<module>.bias" under the
     * same unit and writes it. */
    qz_status (*declare_linear)(qz_shards *s, const qz_export_linear *l);
    qz_status (*write_linear)(qz_shards *s, const qz_export_linear *l, const qz_qtensor *q, const qz_act_values *act,
                              qz_arena *scratch);
    /* Scales of a layer's cache; NULL: cannot be stored (can_express says so). */
    qz_status (*declare_kv)(qz_shards *s, const qz_export_plan *plan, int layer);
    qz_status (*write_kv)(qz_shards *s, const qz_export_plan *plan, int layer, const qz_kv_values *values);
    /* How inputs of `module` are rounded by a server of this folder; values only for QZ_ACT_TENSOR. NULL: never. */
    qz_status (*read_activation)(const qz_ckpt *c, const char *module, qz_act_scheme *scheme, qz_act_values *values);
    /* Scheme of the cache, and scales (kv_heads, all equal unless per head) of one attention module. NULL: none. */
    qz_status (*read_kv)(const qz_ckpt *c, const char *attention, int64_t kv_heads, qz_kv_scheme *scheme, float *key,
                         float *value);
    /* Value of config.json's "quantization_config" as JSON text in `arena`; NULL text: the key is removed. */
    qz_status (*config_block)(char **out, const qz_export_plan *plan, qz_arena *arena);
    /* NULL: none. Further files beside the weights (GPTQ's quantize_config.json). */
    qz_status (*extra_files)(const char *folder, const qz_export_plan *plan, qz_arena *arena);
    /* What the stored form asks of schemes: the pipeline sets these before anything is chosen. NULL: nothing. */
    void (*settle)(qz_export_linear *l, qz_dtype plain_type);
    qz_dtype preferred_plain_type; /* what `torch_dtype` should say unless the recipe insists */
    float int8_divisor;            /* of activations: 127 or 127.5; 0: it holds none */
    const char *consumer;          /* of `qcal check`: "vllm", "transformers"; NULL: none in particular */
};

const qz_plugins *qz_containers(void);
const qz_container *qz_container_at(size_t i);
QZ_NODISCARD qz_status qz_container_find(const qz_container **out, const char *name);

/* Writes config.json for the export (the source's text with only quantization_config and the stored type changed) and
 * copies every other file of the source folder that is not weights, index or config (tokenizer, chat template, ...). */
QZ_NODISCARD qz_status qz_export_side_files(const char *folder, const qz_ckpt *source, const qz_container *container,
                                            const qz_export_plan *plan);

#endif
