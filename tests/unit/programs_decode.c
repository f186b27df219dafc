/* qcal decode: plain folders come out as they are, quantized ones as what their codes mean; nothing is overwritten. */
#include <stdio.h>

#include "base/file.h"
#include "checkpoints/checkpoints.h"
#include "programs/cli.h"
#include "testing/testing.h"

static int decode(const char *folder, const char *output, char *message, size_t size)
{
    char *argv[] = {(char *)"qcal", (char *)"decode", (char *)folder, (char *)"--output", (char *)output, NULL};
    FILE *out = tmpfile(), *err = tmpfile();
    int code = qz_cli_main(&qz_qcal, 5, argv, out, err);
    rewind(err);
    message[fread(message, 1, size - 1, err)] = '\0';
    fclose(out);
    fclose(err);
    return code;
}

Test(decode, a_plain_folder_comes_out_as_it_is)
{
    char message[512];
    const char *output = test_path("plain.safetensors"), *folder = "tests/golden/models/llama";
    qz_safetensors *made;
    qz_ckpt *source;
    cr_assert_eq(decode(folder, output, message, sizeof message), 0, "%s", message);
    check_ok(qz_safetensors_open(&made, output));
    check_ok(qz_ckpt_open(&source, folder));
    cr_assert_eq(qz_safetensors_count(made), qz_ckpt_count(source));
    for (size_t i = 0; i < qz_ckpt_count(source); i++) {
        const qz_stored *a = qz_ckpt_at(source, i), *b = qz_safetensors_find(made, a->name);
        cr_assert(b && b->view.dtype == QZ_F32 && b->bytes == a->bytes, "%s", a->name);
        cr_assert(memcmp(a->view.data, b->view.data, a->bytes) == 0, "%s", a->name);
    }
    qz_ckpt_close(source);
    qz_safetensors_close(made);
    cr_assert(!qz_path_exists(test_path("plain.safetensors.partial")));
}

Test(decode, a_quantized_folder_comes_out_dequantized)
{
    char message[512];
    const char *output = test_path("awq.safetensors"), *module = "model.layers.1.mlp.down_proj";
    qz_safetensors *made;
    qz_ckpt *source;
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    cr_assert_eq(decode("tests/golden/samples/awq_g64", output, message, sizeof message), 0, "%s", message);
    check_ok(qz_safetensors_open(&made, output));
    check_ok(qz_ckpt_open(&source, "tests/golden/samples/awq_g64"));
    const qz_stored *b = qz_safetensors_find(made, "model.layers.1.mlp.down_proj.weight");
    cr_assert(b != NULL);
    float *expected = qz_arena_array(arena, float, (size_t)(b->view.shape[0] * b->view.shape[1]));
    check_ok(qz_ckpt_read_weight(source, module, b->view.shape[0], b->view.shape[1], expected, arena));
    cr_assert(memcmp(expected, b->view.data, b->bytes) == 0);
    cr_assert(qz_safetensors_find(made, "model.layers.1.mlp.down_proj.qweight") == NULL);
    qz_ckpt_close(source);
    qz_safetensors_close(made);
    qz_arena_free(arena);
}

Test(decode, refuses_what_exists_and_what_is_missing)
{
    char message[512];
    const char *output = test_path("there");
    test_write_file(output, "mine", 4);
    cr_assert_eq(decode("tests/golden/models/llama", output, message, sizeof message), 1);
    cr_assert(strstr(message, "exists") != NULL, "%s", message);
    cr_assert_eq(decode("tests/golden/none", test_path("new"), message, sizeof message), 1);
    cr_assert(!qz_path_exists(test_path("new")) && !qz_path_exists(test_path("new.partial")));
}
