/* Whole runs of the trainer on the small model of train_case.h: text, a recipe to start from, the run, its files. */
#ifndef QZ_TESTING_TRAIN_RUN_H
#define QZ_TESTING_TRAIN_RUN_H

#include "base/file.h"
#include "base/h5.h"
#include "testing/train_case.h"
#include "train/train.h"

enum { TRAIN_RUN_MOST_IDS = 2000 };

/* Ids that mostly follow from the one before. */
static inline void train_run_ids(const char *path, uint64_t count)
{
    qz_h5 *file;
    int64_t ids[TRAIN_RUN_MOST_IDS];
    cr_assert(count <= TRAIN_RUN_MOST_IDS);
    for (int64_t i = 0; i < (int64_t)count; i++) ids[i] = i % 7 ? (ids[i - 1] * 5 + 11) % 160 : i * 13 % 160;
    check_ok(qz_h5_create(&file, path));
    check_ok(qz_h5_write(file, "ids", QZ_H5_I64, ids, 1, &count));
    check_ok(qz_h5_close(file));
}

/* All weights, cross entropy, batches of the case; rates, rounding, saves and evaluations are the test's. */
static inline qz_recipe train_run_recipe(int64_t steps)
{
    qz_recipe r = {.version = 1, .text = "{}"};
    r.train = (qz_recipe_train){.wanted = true,
                                .parameters = QZ_TRAIN_ALL,
                                .steps = steps,
                                .batch = TRAIN_SEQUENCES,
                                .micro_batch = TRAIN_SEQUENCES,
                                .sequence_length = TRAIN_LENGTH,
                                .schedule = QZ_TRAIN_CONSTANT,
                                .final_rate = 1,
                                .beta1 = 0.9,
                                .beta2 = 0.95,
                                .epsilon = 1e-8,
                                .clip_norm = 1,
                                .compute = QZ_F32,
                                .loss = {.cross_entropy = 1, .temperature = 1},
                                .keep = 2};
    return r;
}

/* Goes on from what is in `folder`; judged by the ids that the case holds. */
static inline qz_status train_run(qz_trained **out, const qz_recipe *recipe, const train_case *c, const char *data,
                                  const char *folder, qz_progress *progress)
{
    const qz_loader_rule rule = {.path = data,
                                 .length = TRAIN_LENGTH,
                                 .bos = -1,
                                 .eos = -1,
                                 .shuffle = recipe->train.shuffle,
                                 .vocabulary = 160,
                                 .batch = TRAIN_SEQUENCES,
                                 .folder = folder};
    const qz_windows windows = {.ids = (int32_t *)(uintptr_t)c->ids, .count = TRAIN_SEQUENCES, .length = TRAIN_LENGTH};
    qz_train_text judged = {0};
    qz_loader *loader;
    QZ_TRY(qz_step_batch_of(&judged.batch, &windows, c->arena));
    QZ_TRY(qz_loader_open(&loader, &rule, NULL));
    const qz_train_args args = {.recipe = recipe,
                                .model = c->model,
                                .plan = &c->plan,
                                .loader = loader,
                                .judged = &judged,
                                .folder = folder,
                                .resume = true,
                                .progress = progress};
    const qz_status status = qz_train_run(out, &args);
    qz_loader_close(loader);
    return status;
}

/* `name` in both folders, byte by byte. */
static inline void train_run_same(const char *a, const char *b, const char *name)
{
    char *text[2];
    size_t size[2];
    qz_arena *arena;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&text[0], &size[0], qz_path_join(arena, a, name), 1 << 28, arena));
    check_ok(qz_file_read(&text[1], &size[1], qz_path_join(arena, b, name), 1 << 28, arena));
    cr_assert(size[0] == size[1] && memcmp(text[0], text[1], size[0]) == 0, "%s of %s and %s differ", name, a, b);
    qz_arena_free(arena);
}

#endif
