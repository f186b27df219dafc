/* A model folder -> its config, its container and one table of all stored tensors.
 *
 * Layout as Hugging Face writes it (FORMATS.md 10.1): config.json, and either model.safetensors or
 * model.safetensors.index.json with the shards that it names. The index is only a table of contents, so it must agree
 * with the shards in both directions: every entry names a tensor that its shard holds, and every tensor of a shard is
 * named. Shards are base names inside the folder; a path in the index is refused.
 * Tensors are sorted by shard name, then by place in the file. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/map.h"
#include "checkpoints/checkpoints.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define CONFIG_LIMIT ((size_t)16 << 20)
#define INDEX_LIMIT ((size_t)100 << 20)

struct qz_ckpt {
    qz_arena *arena;
    const char *folder;
    char *config_text;
    size_t config_size;
    qz_json *config;
    const qz_container *container;
    qz_safetensors **shard;
    size_t shards;
    const qz_stored **tensor;
    size_t count;
    qz_strmap *index; /* name -> tensor */
};

qz_status qz_ckpt_missing_config(const char *folder, qz_arena *arena)
{
    const char *adapter = qz_path_join(arena, folder, "adapter_config.json");
    if (!adapter) return qz_arena_failed(arena);
    if (qz_path_exists(adapter))
        return QZ_FAIL(QZ_IO,
                       "%s: is an adapter (adapter_config.json), no model by itself; `qat merge` with the recipe that "
                       "trained it makes a checkpoint of it",
                       folder);
    return QZ_FAIL(QZ_IO, "%s: config.json is missing; a model folder as Hugging Face stores it is expected", folder);
}

static qz_status read_config(qz_ckpt *c)
{
    char *path = qz_path_join(c->arena, c->folder, "config.json");
    if (!path) return qz_arena_failed(c->arena);
    if (!qz_path_exists(path)) return qz_ckpt_missing_config(c->folder, c->arena);
    QZ_TRY(qz_file_read(&c->config_text, &c->config_size, path, CONFIG_LIMIT, c->arena));
    QZ_TRY_CTX(qz_json_parse(&c->config, c->config_text, c->config_size), "%s", path);
    const qz_json_node *root = qz_json_root(c->config);
    if (!qz_json_is(root, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "%s: found %s, expected an object", path, qz_json_type_name(qz_json_type_of(root)));
    return QZ_OK;
}

static qz_status choose_container(qz_ckpt *c)
{
    const qz_json_node *root = qz_json_root(c->config);
    for (size_t i = 0; i < qz_containers()->count && !c->container; i++)
        if (qz_container_at(i)->recognise(root)) c->container = qz_container_at(i);
    if (!c->container) {
        char found[120];
        qz_json_print(qz_json_get(qz_json_get(root, "quantization_config"), "quant_method"), found, sizeof found);
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "%s/config.json: quantization_config.quant_method %s is not a container that is read; "
                       "`qcal list containers` shows those that are",
                       c->folder, found);
    }
    qz_scheme scheme;
    if (c->container->read_scheme)
        QZ_TRY_CTX(c->container->read_scheme(&scheme, root), "%s/config.json: quantization_config", c->folder);
    return QZ_OK;
}

static qz_status open_shard(qz_ckpt *c, const char *name)
{
    char *path = qz_path_join(c->arena, c->folder, name);
    if (!path) return qz_arena_failed(c->arena);
    QZ_TRY(qz_safetensors_open(&c->shard[c->shards], path));
    c->shards++;
    return QZ_OK;
}

static qz_status add_tensors(qz_ckpt *c)
{
    for (size_t i = 0; i < c->shards; i++) c->count += qz_safetensors_count(c->shard[i]);
    c->tensor = qz_arena_array(c->arena, const qz_stored *, c->count);
    if (!c->tensor) return qz_arena_failed(c->arena);
    QZ_TRY(qz_strmap_new(&c->index, c->count));
    size_t n = 0;
    for (size_t i = 0; i < c->shards; i++)
        for (size_t j = 0; j < qz_safetensors_count(c->shard[i]); j++) {
            const qz_stored *t = qz_safetensors_at(c->shard[i], j);
            bool twice = false;
            QZ_TRY(qz_strmap_add(c->index, t->name, strlen(t->name), (int64_t)n, &twice));
            if (twice)
                return QZ_FAIL(QZ_FORMAT, "%s: tensor \"%s\" is stored twice, in %s and in %s", c->folder, t->name,
                               qz_ckpt_find(c, t->name)->file, t->file);
            c->tensor[n++] = t;
        }
    return QZ_OK;
}

static bool is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(name), m = sizeof suffix - 1;
    return n > m && strcmp(name + n - m, suffix) == 0 && !strchr(name, '/') && !strchr(name, '\\') && name[0] != '.';
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct values of the weight map, sorted. */
static qz_status shard_names(const char ***out, size_t *count, const qz_ckpt *c, const qz_json_node *map)
{
    const char **name = qz_arena_array(c->arena, const char *, qz_json_count(map));
    if (!name) return qz_arena_failed(c->arena);
    size_t n = 0, kept = 0;
    for (const qz_json_node *m = qz_json_first(map); m; m = qz_json_next(m)) {
        QZ_TRY_CTX(qz_json_string(m, qz_json_key(m), &name[n]), "%s/" INDEX ": weight_map", c->folder);
        if (!is_shard_name(name[n]))
            return QZ_FAIL(QZ_FORMAT,
                           "%s/" INDEX ": tensor \"%s\" is said to be in \"%s\"; a shard is the name of a "
                           ".safetensors file in the same folder",
                           c->folder, qz_json_key(m), name[n]);
        n++;
    }
    qsort(name, n, sizeof *name, by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(name[i], name[kept - 1]) != 0) name[kept++] = name[i];
    *out = name;
    *count = kept;
    return QZ_OK;
}

/* Both directions: see the head of this file. */
static qz_status check_index(const qz_ckpt *c, const qz_json_node *map)
{
    for (size_t i = 0; i < c->count; i++)
        if (!qz_json_get(map, c->tensor[i]->name))
            return QZ_FAIL(QZ_FORMAT, "%s: %s holds tensor \"%s\", which " INDEX " does not name", c->folder,
                           c->tensor[i]->file, c->tensor[i]->name);
    for (const qz_json_node *m = qz_json_first(map); m; m = qz_json_next(m)) {
        const qz_stored *t = qz_ckpt_find(c, qz_json_key(m));
        if (!t || strcmp(t->file, qz_json_text(m)) != 0)
            return QZ_FAIL(QZ_FORMAT, "%s/" INDEX ": tensor \"%s\" is said to be in %s, which does not hold it",
                           c->folder, qz_json_key(m), qz_json_text(m));
    }
    return QZ_OK;
}

static qz_status open_indexed(qz_ckpt *c, const qz_json_node *root)
{
    const qz_json_node *map = qz_json_get(root, "weight_map");
    if (!qz_json_is(map, QZ_JSON_OBJECT))
        return QZ_FAIL(QZ_FORMAT, "%s/" INDEX ": weight_map: found %s, expected an object", c->folder,
                       qz_json_type_name(qz_json_type_of(map)));
    const char **name;
    size_t count = 0;
    QZ_TRY(shard_names(&name, &count, c, map));
    c->shard = qz_arena_calloc(c->arena, qz_array_bytes(count, sizeof *c->shard));
    if (!c->shard) return qz_arena_failed(c->arena);
    for (size_t i = 0; i < count; i++) {
        char *path = qz_path_join(c->arena, c->folder, name[i]);
        if (!path) return qz_arena_failed(c->arena);
        if (!qz_path_exists(path))
            return QZ_FAIL(QZ_IO, "%s: " INDEX " names the shard %s, which is not there; is the download complete?",
                           c->folder, name[i]);
        QZ_TRY(open_shard(c, name[i]));
    }
    QZ_TRY(add_tensors(c));
    return check_index(c, map);
}

static qz_status open_sharded(qz_ckpt *c, const char *path)
{
    char *text;
    size_t size = 0;
    QZ_TRY(qz_file_read(&text, &size, path, INDEX_LIMIT, c->arena));
    qz_json *doc = NULL;
    QZ_TRY_CTX(qz_json_parse(&doc, text, size), "%s", path);
    qz_status status = open_indexed(c, qz_json_root(doc));
    qz_json_close(doc);
    return status;
}

static qz_status open_single(qz_ckpt *c)
{
    c->shard = qz_arena_calloc(c->arena, sizeof *c->shard);
    if (!c->shard) return qz_arena_failed(c->arena);
    QZ_TRY(open_shard(c, SINGLE));
    return add_tensors(c);
}

static qz_status open_weights(qz_ckpt *c)
{
    char *single = qz_path_join(c->arena, c->folder, SINGLE);
    char *index = qz_path_join(c->arena, c->folder, INDEX);
    if (!single || !index) return qz_arena_failed(c->arena);
    bool has_index = qz_path_exists(index);
    if (!qz_path_exists(single)) {
        if (has_index) return open_sharded(c, index);
        return QZ_FAIL(QZ_IO,
                       "%s: neither " SINGLE " nor " INDEX
                       " is there; weights in other forms (pytorch_model.bin, GGUF) "
                       "must be saved as safetensors first",
                       c->folder);
    }
    if (has_index)
        qz_warn("%s holds both " SINGLE " and " INDEX "; " SINGLE " is read, as transformers does", c->folder);
    return open_single(c);
}

/* "model*.safetensors" or, as long as it is being written, "model*.safetensors.tmp". */
static bool is_unfinished_name(const char *name)
{
    static const char *const suffix[] = {".safetensors", ".safetensors.tmp"};
    size_t n = strlen(name);
    for (size_t i = 0; i < 2; i++) {
        size_t m = strlen(suffix[i]);
        if (n > m && strcmp(name + n - m, suffix[i]) == 0) return strncmp(name, "model", 5) == 0;
    }
    return false;
}

static qz_status open_unfinished(qz_ckpt *c)
{
    char **name;
    size_t count = 0;
    QZ_TRY(qz_folder_list(&name, &count, c->folder, c->arena));
    c->shard = qz_arena_calloc(c->arena, qz_array_bytes(count, sizeof *c->shard));
    if (!c->shard) return qz_arena_failed(c->arena);
    for (size_t i = 0; i < count; i++)
        if (is_unfinished_name(name[i])) QZ_TRY(open_shard(c, name[i]));
    if (c->shards == 0) return QZ_FAIL(QZ_IO, "%s: holds no file of weights, finished or not", c->folder);
    return add_tensors(c);
}

static qz_status open_folder(qz_ckpt *c, const char *folder, bool unfinished)
{
    QZ_TRY(qz_arena_new(&c->arena, "checkpoint"));
    if (!(c->folder = qz_arena_strdup(c->arena, folder))) return qz_arena_failed(c->arena);
    if (!qz_path_is_folder(folder))
        return QZ_FAIL(QZ_IO, "%s: %s; a model folder is expected", folder,
                       qz_path_exists(folder) ? "this is a file" : "there is no such folder");
    QZ_TRY(read_config(c));
    QZ_TRY(choose_container(c));
    return unfinished ? open_unfinished(c) : open_weights(c);
}

static qz_status open_new(qz_ckpt **out, const char *folder, bool unfinished)
{
    *out = NULL;
    qz_ckpt *c = qz_calloc(1, sizeof *c);
    if (!c) return QZ_FAIL(QZ_MEMORY, "%s: no memory", folder);
    qz_status status = open_folder(c, folder, unfinished);
    if (status != QZ_OK) {
        qz_ckpt_close(c);
        return status;
    }
    *out = c;
    return QZ_OK;
}

qz_status qz_ckpt_open(qz_ckpt **out, const char *folder)
{
    return open_new(out, folder, false);
}

qz_status qz_ckpt_open_unfinished(qz_ckpt **out, const char *folder)
{
    return open_new(out, folder, true);
}

void qz_ckpt_close(qz_ckpt *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->shards; i++) qz_safetensors_close(c->shard[i]);
    qz_strmap_free(c->index);
    qz_json_close(c->config);
    qz_arena_free(c->arena);
    qz_free(c);
}

const char *qz_ckpt_folder(const qz_ckpt *c)
{
    return c->folder;
}

const qz_json *qz_ckpt_config(const qz_ckpt *c)
{
    return c->config;
}

const char *qz_ckpt_config_text(const qz_ckpt *c)
{
    return c->config_text;
}

const qz_container *qz_ckpt_container(const qz_ckpt *c)
{
    return c->container;
}

size_t qz_ckpt_count(const qz_ckpt *c)
{
    return c->count;
}

const qz_stored *qz_ckpt_at(const qz_ckpt *c, size_t i)
{
    return i < c->count ? c->tensor[i] : NULL;
}

const qz_stored *qz_ckpt_find(const qz_ckpt *c, const char *name)
{
    int64_t i = qz_strmap_get(c->index, name, strlen(name));
    return i < 0 ? NULL : c->tensor[i];
}

uint64_t qz_ckpt_bytes(const qz_ckpt *c)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->count; i++) sum += c->tensor[i]->bytes;
    return sum;
}

qz_status qz_ckpt_hash(const qz_ckpt *c, char out[33])
{
    qz_hasher *h;
    QZ_TRY(qz_hasher_new(&h));
    qz_hasher_add(h, c->config_text, c->config_size);
    for (size_t i = 0; i < c->shards; i++) {
        size_t size = 0;
        uint64_t file_size = 0;
        const void *header = qz_safetensors_header(c->shard[i], &size, &file_size);
        qz_hasher_add(h, header, size);
        qz_hasher_add(h, &file_size, sizeof file_size);
    }
    qz_hasher_finish(h, out);
    return QZ_OK;
}
