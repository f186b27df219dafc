/* qat train: recipes that are sound by themselves, but not with what their paths lead to, or with what is measured.
 * They are refused with the key to change, and before anything is computed. */
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
