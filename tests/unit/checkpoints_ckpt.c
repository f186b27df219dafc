/* Model folders: config, single file, index and shards, and what is refused. */
#include "base/arena.h"
#include "checkpoints/checkpoints.h"
#include "testing/safetensors_fixture.h"

#define CONFIG "{\n  \"model_type\": \"llama\"\n}\n"
#define ONE(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}"
#define INDEX "model.safetensors.index.json"
#define FIRST "model-00001-of-00002.safetensors"
#define SECOND "model-00002-of-00002.safetensors"

static const float data[2] = {1, 2};

static qz_status opens(const char *folder)
{
    qz_ckpt *c;
    qz_status status = qz_ckpt_open(&c, folder);
    cr_assert((c == NULL) == (status != QZ_OK));
    qz_ckpt_close(c);
    return status;
}

/* Two shards holding "a" and "b", and `index` (NULL: none). */
static const char *sharded(const char *name, const char *index)
{
    const char *folder = fixture_folder(name);
    fixture_text(folder, "config.json", CONFIG);
    fixture_file(fixture_in(folder, FIRST), ONE("a"), data, 8);
    fixture_file(fixture_in(folder, SECOND), ONE("b"), data, 8);
    if (index) fixture_text(folder, INDEX, index);
    return folder;
}

Test(ckpt, single_file)
{
    const char *folder = fixture_folder("m");
    fixture_text(folder, "config.json", CONFIG);
    fixture_file(fixture_in(folder, "model.safetensors"), ONE("a"), data, 8);
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert_str_eq(qz_ckpt_folder(c), folder);
    cr_assert_str_eq(qz_ckpt_config_text(c), CONFIG);
    cr_assert_str_eq(qz_ckpt_container(c)->plugin.name, "dense");
    cr_assert(qz_json_get(qz_json_root(qz_ckpt_config(c)), "model_type") != NULL);
    cr_assert(qz_ckpt_count(c) == 1 && qz_ckpt_bytes(c) == 8);
    cr_assert(qz_ckpt_at(c, 0) == qz_ckpt_find(c, "a"));
    cr_assert(qz_ckpt_at(c, 1) == NULL && qz_ckpt_find(c, "b") == NULL);
    cr_assert(!qz_ckpt_is_quantized(c, "a"));
    qz_ckpt_close(c);
}

/* The example at the top of checkpoints.h. */
static qz_status example(const char *folder, int64_t n, int64_t k, float *out, qz_arena *scratch)
{
    qz_ckpt *c;
    QZ_TRY(qz_ckpt_open(&c, folder));
    const qz_json_node *config = qz_json_root(qz_ckpt_config(c));
    cr_assert(qz_json_get(config, "hidden_size") != NULL);
    QZ_TRY(qz_ckpt_read_weight(c, "model.layers.0.self_attn.q_proj", n, k, out, scratch));
    qz_ckpt_close(c);
    return QZ_OK;
}

Test(ckpt, example_of_the_header)
{
    static float out[128 * 128];
    qz_arena *scratch;
    check_ok(qz_arena_new(&scratch, "scratch"));
    check_ok(example("tests/golden/samples/awq_g64", 128, 128, out, scratch));
    cr_assert(out[0] != 0);
    qz_arena_free(scratch);
}

Test(ckpt, shards_in_name_order)
{
    const char *folder =
        sharded("m", "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"b\":\"" SECOND "\",\"a\":\"" FIRST "\"}}");
    qz_ckpt *c;
    check_ok(qz_ckpt_open(&c, folder));
    cr_assert(qz_ckpt_count(c) == 2 && qz_ckpt_bytes(c) == 16);
    cr_assert_str_eq(qz_ckpt_at(c, 0)->name, "a");
    cr_assert_str_eq(qz_ckpt_find(c, "b")->file, SECOND);
    qz_ckpt_close(c);
}

Test(ckpt, folder_and_config)
{
    check_fails(QZ_IO, "no such folder", opens(test_path("absent")));
    test_write_file(test_path("file"), "x", 1);
    check_fails(QZ_IO, "this is a file", opens(test_path("file")));
    const char *folder = fixture_folder("m");
    check_fails(QZ_IO, "config.json is missing", opens(folder));
    fixture_text(folder, "config.json", "{\n  \"a\": 1,\n  b\n}");
    check_fails(QZ_FORMAT, "config.json: line 3", opens(folder));
    fixture_text(folder, "config.json", "[1]");
    check_fails(QZ_FORMAT, "found an array, expected an object", opens(folder));
    fixture_text(folder, "config.json", CONFIG);
    check_fails(QZ_IO, "neither model.safetensors nor", opens(folder));
    const char *adapter = fixture_folder("adapter");
    fixture_text(adapter, "adapter_config.json", "{}");
    check_fails(QZ_IO, "is an adapter (adapter_config.json), no model by itself; `qat merge`", opens(adapter));
}

Test(ckpt, unknown_quantization)
{
    const char *folder = fixture_folder("m");
    fixture_text(folder, "config.json", "{\"quantization_config\": {\"quant_method\": \"other\"}}");
    check_fails(QZ_UNSUPPORTED, "quant_method \"other\"", opens(folder));
    fixture_text(folder, "config.json", "{\"quantization_config\": {\"quant_method\": 3}}");
    check_fails(QZ_UNSUPPORTED, "quant_method 3", opens(folder));
    fixture_text(folder, "config.json", "{\"quantization_config\": []}");
    check_fails(QZ_UNSUPPORTED, "quant_method", opens(folder));
}

Test(ckpt, index_is_malformed)
{
    check_fails(QZ_FORMAT, INDEX, opens(sharded("a", "{\"weight_map\":")));
    check_fails(QZ_FORMAT, "weight_map", opens(sharded("b", "{}")));
    check_fails(QZ_FORMAT, "weight_map", opens(sharded("c", "{\"weight_map\":[]}")));
    check_fails(QZ_FORMAT, "weight_map", opens(sharded("d", "[]")));
    check_fails(QZ_FORMAT, "weight_map", opens(sharded("e", "{\"weight_map\":{\"a\":1}}")));
}

Test(ckpt, index_leads_out_of_the_folder)
{
#define MAP(file) "{\"weight_map\":{\"a\":\"" file "\",\"b\":\"" SECOND "\"}}"
    const char *words = "a shard is the name of a .safetensors file in the same folder";
    check_fails(QZ_FORMAT, words, opens(sharded("a", MAP("../x.safetensors"))));
    check_fails(QZ_FORMAT, words, opens(sharded("b", MAP("/etc/x.safetensors"))));
    check_fails(QZ_FORMAT, words, opens(sharded("c", MAP("sub/" FIRST))));
    check_fails(QZ_FORMAT, words, opens(sharded("d", MAP(".."))));
    check_fails(QZ_FORMAT, words, opens(sharded("e", MAP(""))));
    check_fails(QZ_FORMAT, words, opens(sharded("f", MAP("config.json"))));
    check_fails(QZ_FORMAT, words, opens(sharded("g", MAP("..\\\\x.safetensors"))));
}

Test(ckpt, index_and_shards_disagree)
{
    check_fails(QZ_IO, "names the shard absent.safetensors, which is not there",
                opens(sharded("a", MAP("absent.safetensors"))));
    check_fails(QZ_FORMAT, "tensor \"a\" is said to be in " SECOND, opens(sharded("b", MAP(SECOND))));
    check_fails(QZ_FORMAT, "tensor \"c\" is said to be in " FIRST,
                opens(sharded("c", "{\"weight_map\":{\"a\":\"" FIRST "\",\"b\":\"" SECOND "\",\"c\":\"" FIRST "\"}}")));
    const char *folder = sharded("d", MAP(FIRST));
    fixture_file(fixture_in(folder, SECOND),
                 "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                 "\"extra\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
                 data, 8);
    check_fails(QZ_FORMAT, SECOND " holds tensor \"extra\"", opens(folder));
    folder = sharded("e", MAP(FIRST));
    fixture_file(fixture_in(folder, SECOND), ONE("a"), data, 8);
    check_fails(QZ_FORMAT, "tensor \"a\" is stored twice, in " FIRST " and in " SECOND, opens(folder));
    folder = sharded("f", MAP(FIRST));
    fixture_text(folder, SECOND, "12345678{");
    check_fails(QZ_FORMAT, SECOND, opens(folder));
}

Test(ckpt, hash_tells_configs_and_headers_apart)
{
    char first[33], again[33], other[33];
    const char *folder = fixture_folder("m");
    qz_ckpt *c;
    fixture_text(folder, "config.json", CONFIG);
    fixture_file(fixture_in(folder, "model.safetensors"), ONE("a"), data, 8);
    check_ok(qz_ckpt_open(&c, folder));
    check_ok(qz_ckpt_hash(c, first));
    check_ok(qz_ckpt_hash(c, again));
    qz_ckpt_close(c);
    cr_assert(strlen(first) == 32 && strcmp(first, again) == 0);
    fixture_file(fixture_in(folder, "model.safetensors"), ONE("b"), data, 8);
    check_ok(qz_ckpt_open(&c, folder));
    check_ok(qz_ckpt_hash(c, other));
    qz_ckpt_close(c);
    cr_assert_str_neq(first, other);
    fixture_text(folder, "config.json", "{}");
    check_ok(qz_ckpt_open(&c, folder));
    check_ok(qz_ckpt_hash(c, first));
    qz_ckpt_close(c);
    cr_assert_str_neq(first, other);
}

Test(ckpt, every_allocation_may_fail)
{
    const char *folder = sharded("m", MAP(FIRST));
    qz_status status = QZ_MEMORY;
    long n = 1;
    for (; status != QZ_OK && n < 1000; n++) {
        qz_alloc_fail_at(n);
        status = opens(folder);
        qz_alloc_fail_at(0);
        cr_assert(status == QZ_OK || status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 5 && n < 1000);
}
