/* The fingerprints of demo_text.c are those of demo/. */
#include "programs/demo_text.h"

#include <stdio.h>

#include "base/file.h"
#include "base/log.h"
#include "testing/testing.h"

static char warned[512];

static void on_warning(void *context, const char *message)
{
    (void)context;
    snprintf(warned, sizeof warned, "%s", message);
}

static const char *warning_for(const char *model, const char *path, const char *hash)
{
    qz_session s = {0};
    warned[0] = '\0';
    qz_log_to(on_warning, NULL);
    check_ok(qz_ckpt_open(&s.ckpt, model));
    check_ok(qz_demo_text_warn(&s, path, hash));
    qz_ckpt_close(s.ckpt);
    qz_log_to(NULL, NULL);
    return warned;
}

/* The demo's model with another context length, that is, another model. */
static const char *other_model(void)
{
    const char *folder = test_path("other");
    qz_arena *arena;
    char *text, *changed, path[512], here[512];
    size_t size;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_folder_make(folder));
    check_ok(qz_file_read(&text, &size, "demo/model/config.json", 1 << 20, arena));
    check_ok(qz_json_text_set(&changed, text, "max_position_embeddings", "4096", arena));
    snprintf(path, sizeof path, "%s/config.json", folder);
    test_write_file(path, changed, strlen(changed));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(here, sizeof here, "demo/model/model.safetensors");
    check_ok(qz_file_copy(path, here));
    qz_arena_free(arena);
    return folder;
}

Test(demo, text_is_recognised_by_path_and_by_content)
{
    char hash[QZ_HASH_TEXT];
    check_ok(qz_hash_file(hash, "demo/text/calib.txt"));
    cr_assert_str_eq(warning_for("demo/model", "demo/text/calib.txt", hash), "");
    const char *other = other_model();
    cr_assert(strstr(warning_for(other, "demo/text/calib.txt", hash), "--data FILE") != NULL);
    cr_assert(strstr(warning_for(other, "/tmp/copy.txt", hash), "--data FILE") != NULL);
    cr_assert_str_eq(warning_for(other, "/tmp/mine.txt", "0"), "");
}
