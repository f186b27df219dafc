/* adapter_logits RECIPE ADAPTER OUT: logits (TOKENS, V) of a base with an adapter beside it, as training computes them,
 * as raw fp32; for tests/interop/adapter.sh. The ids are (37 i + 11) mod V. */
#include <stdio.h>

#include "base/file.h"
#include "programs/adapter_folder.h"
#include "programs/catalog.h"
#include "programs/session.h"
#include "train/train.h"

enum { TOKENS = 96 };

static qz_status write_logits(const char *path, qz_student *s, qz_tape *t, qz_arena *arena)
{
    const int64_t vocabulary = qz_model_config_of(qz_student_model(s))->vocabulary;
    int32_t ids[TOKENS];
    qz_var *hidden, *head;
    float *data = qz_arena_array(arena, float, (size_t)(TOKENS * vocabulary));
    if (!data) return qz_arena_failed(arena);
    const qz_tensor logits = qz_tensor_2d(data, QZ_F32, TOKENS, vocabulary);
    for (int i = 0; i < TOKENS; i++) ids[i] = (int32_t)((37 * i + 11) % vocabulary);
    const qz_tape_batch batch = {.sequences = 1, .length = TOKENS, .ids = ids};
    qz_tape_record(t, false);
    QZ_TRY(qz_student_begin_step(s, false));
    QZ_TRY(qz_student_forward(s, t, batch, QZ_STUDENT_JUDGED, &hidden, &head, arena));
    QZ_TRY(qz_op_linear(qz_tape_backend(t), &logits, qz_var_value(hidden), qz_var_value(head), NULL, false));
    return qz_file_write(path, (const char *)data, (size_t)(TOKENS * vocabulary) * sizeof *data);
}

static qz_status with_student(const qz_recipe *recipe, qz_student *s, char **argv, qz_arena *arena)
{
    qz_tape *t;
    qz_student_round(s, false);
    QZ_TRY(qz_adapter_read(s, argv[2], recipe));
    QZ_TRY(qz_tape_new(&t, qz_model_backend(qz_student_model(s)), false));
    qz_status status = write_logits(argv[3], s, t, arena);
    qz_tape_free(t);
    return status;
}

static qz_status run(char **argv, qz_arena *arena)
{
    const qz_recipe_catalog catalog = qz_catalog();
    qz_recipe *recipe;
    qz_session session;
    qz_student *s;
    QZ_TRY(qz_recipe_read(&recipe, argv[1], &catalog, NULL, 0, arena));
    QZ_TRY(qz_session_open_weights(&session, recipe->model, recipe->backend, NULL, arena));
    const qz_train_args args = {.recipe = recipe, .model = session.model};
    qz_status status = qz_train_student(&s, &args, arena);
    if (status == QZ_OK) {
        status = with_student(recipe, s, argv, arena);
        qz_student_free(s);
    }
    qz_session_close(&session);
    return status;
}

int main(int argc, char **argv)
{
    qz_arena *arena;
    if (argc != 4) {
        fprintf(stderr, "usage: adapter_logits RECIPE ADAPTER OUT\n");
        return 2;
    }
    qz_status status = qz_arena_new(&arena, "adapter_logits");
    if (status == QZ_OK) {
        status = run(argv, arena);
        qz_arena_free(arena);
    }
    if (status == QZ_OK) return 0;
    fprintf(stderr, "adapter_logits: %s\n", qz_error_message());
    return 1;
}
