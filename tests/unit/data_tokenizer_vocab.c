#include "testing/small_tokenizer.h"

static void check_model_fails(qz_status code, const char *part, const char *vocab, const char *merges,
                              const char *options)
{
    qz_tokenizer *t;
    const char *json = small_json(vocab, merges, options, "");
    check_fails(code, part, qz_tokenizer_parse(&t, json, strlen(json), "small.json"));
}

static const char ab[] = "\"a\": 0, \"b\": 1, \"ab\": 2";

Test(data_tokenizer_vocab, missing_or_wrong_tables)
{
    qz_tokenizer *t;
    const char *json = "{\"model\": {\"type\": \"BPE\", \"merges\": []}}";
    check_fails(QZ_FORMAT, "model.vocab: found nothing", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}";
    check_fails(QZ_FORMAT, "model.merges: found nothing", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    json = "{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}";
    check_fails(QZ_FORMAT, "model.vocab", qz_tokenizer_parse(&t, json, strlen(json), "x"));
    check_model_fails(QZ_FORMAT, "model.vocab", "", "", "");
}

Test(data_tokenizer_vocab, ids_are_unique_and_sane)
{
    check_model_fails(QZ_FORMAT, "model.vocab[\"b\"]: id 0 is also the id of \"a\"", "\"a\": 0, \"b\": 0", "", "");
    check_model_fails(QZ_FORMAT, "model.vocab[\"a\"]", "\"a\": -1", "", "");
    check_model_fails(QZ_FORMAT, "model.vocab[\"a\"]", "\"a\": 4194304", "", "");
    check_model_fails(QZ_FORMAT, "model.vocab[\"a\"]", "\"a\": 1.5", "", "");
    check_model_fails(QZ_FORMAT, "a", "\"a\": 1, \"a\": 2", "", "");
}

Test(data_tokenizer_vocab, merges_name_known_tokens)
{
    check_model_fails(QZ_FORMAT, "model.merges[1]: \"z\" is not in the vocabulary", ab, "\"a b\", \"a z\"", "");
    check_model_fails(QZ_FORMAT, "model.merges[0]: \"ba\" is not in the vocabulary", ab, "\"b a\"", "");
    check_model_fails(QZ_FORMAT, "model.merges[0]: found \"ab\", expected", ab, "\"ab\"", "");
    check_model_fails(QZ_FORMAT, "model.merges[0]: found \"a b \", expected", ab, "\"a b \"", "");
    check_model_fails(QZ_FORMAT, "model.merges[0]: found an array", ab, "[\"a\"]", "");
    check_model_fails(QZ_FORMAT, "model.merges[0]: found 7, expected", ab, "7", "");
}

Test(data_tokenizer_vocab, options_that_change_ids_are_refused)
{
    check_model_fails(QZ_UNSUPPORTED, "model.dropout", ab, "", ", \"dropout\": 0.1");
    check_model_fails(QZ_UNSUPPORTED, "model.end_of_word_suffix: found \"</w>\"", ab, "",
                      ", \"end_of_word_suffix\": \"</w>\"");
    check_model_fails(QZ_UNSUPPORTED, "model.continuing_subword_prefix: found \"##\"", ab, "",
                      ", \"continuing_subword_prefix\": \"##\"");
    check_model_fails(QZ_FORMAT, "model.unk_token: \"<unk>\" is not in the vocabulary", ab, "",
                      ", \"unk_token\": \"<unk>\"");
    qz_tokenizer *t = small_open(
        small_json(ab, "\"a b\"", ", \"dropout\": 0.0, \"end_of_word_suffix\": \"\", \"unk_token\": null", ""));
    check_tokens(t, "aab", "a|ab");
    qz_tokenizer_close(t);
}

Test(data_tokenizer_vocab, merges_are_found_by_pair)
{
    qz_tokenizer *t = small_open(small_json(ab, "\"a b\"", "", ""));
    uint32_t rank;
    int32_t id;
    cr_assert(qz_merges_find(&t->model.merges, 0, 1, &rank, &id));
    cr_expect(rank == 0 && id == 2);
    cr_expect(!qz_merges_find(&t->model.merges, 1, 0, &rank, &id));
    qz_tokenizer_close(t);
}
