/* qat train: recipes that are sound by themselves, but not with what their paths lead to, or with what is measured.
 * They are refused with the key to change, and before anything is computed. */
#include <stdlib.h>
#include <unistd.h>

#include "testing/qat_runs.h"

TestSuite(train_refused, .init = setup, .fini = teardown);

/* An adapter in memory has no distributions to compare; merged it has. */
Test(train_refused, figures_that_training_an_adapter_does_not_measure)
{
    const char *out = place("adapter"), *merged = place("merged");
    const char *adapter = qz_arena_printf(arena, "--adapter=%s", out);
    check_refused(2, "evaluate.accept.kl: training an adapter measures perplexity only", "train", "recipes/qlora.json",
                  output(out), "evaluate.accept={\"kl\": 5}");
    check_refused(2, "evaluate.accept.top1_agreement: training an adapter", "plan", "recipes/qlora.json", output(out),
                  "evaluate.accept={\"top1_agreement\": 0.1}");
    check_qat("train", "recipes/qlora.json", output(out), "evaluate.accept={\"perplexity_ratio\": 100}");
    check_qat("merge", "recipes/qlora.json", adapter, output(merged), "evaluate.accept={\"kl\": 50}");
    cr_assert(strstr(process.out, "accepted (limit 50)") != NULL, "%s", process.out);
    check_qat("plan", "recipes/qat-w3.json", FROM_ROUNDED, "evaluate.accept={\"kl\": 5}");
}

/* The demo model has a context of 512 tokens. */
Test(train_refused, windows_longer_than_the_model_reads)
{
    const char *const w3 = "recipes/qat-w3.json", *out = output(place("long"));
    check_refused(2, "evaluate.sequence_length: found 1024, but max_position_embeddings of demo/model is 512", "train",
                  w3, out, FROM_ROUNDED, "evaluate.sequence_length=1024");
    check_refused(2, "train.sequence_length: found 1024, but max_position_embeddings", "plan", w3, out, FROM_ROUNDED,
                  "train.sequence_length=1024");
    check_refused(2, "train.validation.sequence_length: found 513, but", "train", w3, out, FROM_ROUNDED,
                  "train.validation={\"data\": \"demo/text/valid.txt\", \"sequence_length\": 513}");
    check_refused(2, "calibration.sequence_length: found 513, but", "train", w3, out,
                  "calibration={\"data\": \"demo/text/calib.txt\", \"sequence_length\": 513}");
    check_refused(
        2, "train.sequence_length: found 300, but max_position_embeddings of tests/golden/models/llama is 256", "train",
        "recipes/pretrain-demo.json", out, "train.sequence_length=300", "model=tests/golden/models/llama");
    check_qat("plan", w3, FROM_ROUNDED, "train.init=null", "train.quantizer=null",
              "calibration={\"data\": \"none\", \"sequence_length\": 513}");
    check_qat("plan", w3, FROM_ROUNDED, "evaluate.sequence_length=512", "train.sequence_length=512");
}

/* demo/model with another context. */
static const char *shorter_model(const char *context)
{
    static const char key[] = "\"max_position_embeddings\": 512";
    const char *folder = place("teacher");
    char *text;
    size_t size;
    check_ok(qz_folder_make(folder));
    check_ok(qz_file_copy(below(folder, "model.safetensors"), "demo/model/model.safetensors"));
    check_ok(qz_file_copy(below(folder, "tokenizer.json"), "demo/model/tokenizer.json"));
    check_ok(qz_file_read(&text, &size, "demo/model/config.json", 1 << 20, arena));
    char *at = strstr(text, key);
    cr_assert(at != NULL);
    memcpy(at + strlen(key) - 3, context, 3);
    check_ok(qz_file_write(below(folder, "config.json"), text, size));
    return folder;
}

Test(train_refused, sequences_longer_than_the_teacher_reads)
{
    const char *loss =
        qz_arena_printf(arena, "train.loss={\"divergence\": 1, \"teacher\": \"%s\"}", shorter_model("256"));
    check_refused(2, "train.sequence_length: found 300, but max_position_embeddings of ", "train", "recipes/qlora.json",
                  output(place("never")), loss, "train.sequence_length=300");
    check_qat("plan", "recipes/qlora.json", loss, "train.sequence_length=256");
}

/* The text of evaluate.data under other names. */
Test(train_refused, validation_on_the_text_that_is_reported)
{
    const char *const w3 = "recipes/qat-w3.json", *out = output(place("same")), *link = place("link.txt");
    const char *linked = qz_arena_printf(arena, "train.validation={\"data\": \"%s\"}", link);
    char *here = getcwd(NULL, 0);
    unlink(link);
    cr_assert(here && symlink(qz_arena_printf(arena, "%s/demo/text/test.txt", here), link) == 0);
    free(here);
    check_refused(2, "train.validation.data: demo/../demo/text/test.txt is the file of evaluate.data", "train", w3, out,
                  FROM_ROUNDED, "train.validation={\"data\": \"demo/../demo/text/test.txt\"}");
    check_refused(2, "train.validation.data: ", "plan", w3, out, FROM_ROUNDED, linked);
    check_qat("plan", w3, FROM_ROUNDED, "train.validation={\"data\": \"demo/text/valid.txt\"}");
    check_qat("plan", w3, FROM_ROUNDED, linked, "evaluate=null");
}
