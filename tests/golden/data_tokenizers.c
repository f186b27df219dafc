/* Every NAME.expected.json of golden/tokenizers: ids, ids with special tokens and decoded text are those of
 * Hugging Face's tokenizers library, exactly. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/json.h"
#include "data/data.h"
#include "testing/testing.h"

enum { FILE_LIMIT = 64 << 20 };

/* Our reader refuses \u0000, which the expected texts hold, so it goes through as U+E000 (which they do not). */
static void hide_nul(char *json)
{
    for (char *p = json; *p; p++) {
        if (*p != '\\') continue;
        if (!strncmp(p, "\\u0000", 6)) memcpy(p, "\\ue000", 6);
        p++;
    }
}

static size_t show_nul(char *out, const char *text)
{
    size_t n = 0;
    while (*text) {
        bool nul = !strncmp(text, "\xee\x80\x80", 3);
        out[n++] = nul ? '\0' : *text;
        text += nul ? 3 : 1;
    }
    return n;
}

static const qz_json_node *member(const qz_json_node *node, const char *key)
{
    const qz_json_node *found = qz_json_get(node, key);
    cr_assert(found != NULL, "the fixture has no %s", key);
    return found;
}

static void unhex(char *out, const char *hex, size_t *size)
{
    *size = strlen(hex) / 2;
    for (size_t i = 0; i < *size; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (char)strtol(digits, NULL, 16);
    }
}

/* The file itself, or what xz makes of it. */
static char *read_tokenizer(const char *path, size_t *size, qz_arena *arena)
{
    char *text;
    size_t n = strlen(path);
    if (n < 3 || strcmp(path + n - 3, ".xz") != 0) {
        check_ok(qz_file_read(&text, size, path, FILE_LIMIT, arena));
        return text;
    }
    char command[600];
    snprintf(command, sizeof command, "xz -dc '%s'", path);
    FILE *f = popen(command, "r");
    cr_assert(f != NULL && (text = qz_arena_alloc(arena, FILE_LIMIT)) != NULL);
    *size = fread(text, 1, FILE_LIMIT, f);
    cr_assert(pclose(f) == 0 && *size > 0, "%s: xz could not unpack it (xz-utils is installed by setup.sh)", path);
    return text;
}

static void check_ids(const qz_ids *got, const qz_json_node *want, const char *what)
{
    size_t i = 0;
    cr_assert(got->count == qz_json_count(want), "%s: %zu ids, expected %zu", what, got->count, qz_json_count(want));
    for (const qz_json_node *c = qz_json_first(want); c; c = qz_json_next(c), i++)
        cr_assert(got->id[i] == (int32_t)qz_json_double(c), "%s: id %zu is %d, expected %d", what, i, (int)got->id[i],
                  (int)qz_json_double(c));
}

static void check_decoded(const qz_tokenizer *t, const qz_ids *ids, bool skip, const qz_json_node *want,
                          const char *what, qz_arena *arena)
{
    char *got;
    size_t size;
    check_ok(qz_tokenizer_decode(t, ids->id, ids->count, skip, &got, &size, arena));
    char *text = qz_arena_alloc(arena, strlen(qz_json_text(want)) + 1);
    size_t n = show_nul(text, qz_json_text(want));
    cr_assert(size == n && !memcmp(got, text, n), "%s: decoded \"%s\", expected \"%s\"", what, got, qz_json_text(want));
}

static void check_case(const qz_tokenizer *t, const qz_json_node *c, qz_arena *arena)
{
    qz_ids ids;
    size_t size;
    const char *what = qz_json_text(member(c, "text")), *hex = qz_json_text(member(c, "utf8"));
    char *text = qz_arena_alloc(arena, strlen(hex) + 1);
    unhex(text, hex, &size);
    check_ok(qz_tokenizer_encode(t, text, size, true, &ids, arena));
    check_ids(&ids, member(c, "ids_special"), what);
    check_ok(qz_tokenizer_encode(t, text, size, false, &ids, arena));
    check_ids(&ids, member(c, "ids"), what);
    check_decoded(t, &ids, false, member(c, "decoded"), what, arena);
    check_decoded(t, &ids, true, member(c, "decoded_skip_special"), what, arena);
}

static void check_decode_case(const qz_tokenizer *t, const qz_json_node *c, qz_arena *arena)
{
    const qz_json_node *list = member(c, "ids");
    qz_ids ids = {.id = qz_arena_array(arena, int32_t, qz_json_count(list))};
    for (const qz_json_node *i = qz_json_first(list); i; i = qz_json_next(i))
        ids.id[ids.count++] = (int32_t)qz_json_double(i);
    check_decoded(t, &ids, false, member(c, "decoded"), "decode case", arena);
}

static void check_fixture(const char *name)
{
    qz_arena *arena;
    char *json, *text, path[256];
    size_t size;
    qz_json *doc;
    qz_tokenizer *t;
    check_ok(qz_arena_new(&arena, "golden"));
    snprintf(path, sizeof path, "tokenizers/%s", name);
    check_ok(qz_file_read(&json, &size, golden_path(path), FILE_LIMIT, arena));
    hide_nul(json);
    check_ok(qz_json_parse(&doc, json, size));
    const qz_json_node *root = qz_json_root(doc);
    snprintf(path, sizeof path, "tokenizers/%s", qz_json_text(member(root, "file")));
    text = read_tokenizer(golden_path(path), &size, arena);
    check_ok(qz_tokenizer_parse(&t, text, size, path));
    cr_expect(qz_tokenizer_size(t) == (int64_t)qz_json_double(member(root, "vocab_size")), "%s: size", name);
    const qz_json_node *cases = member(root, "cases"), *decode_cases = member(root, "decode_cases");
    for (const qz_json_node *c = qz_json_first(cases); c; c = qz_json_next(c)) check_case(t, c, arena);
    for (const qz_json_node *c = qz_json_first(decode_cases); c; c = qz_json_next(c)) check_decode_case(t, c, arena);
    printf("%s: %zu texts, %zu lists of ids\n", name, qz_json_count(cases), qz_json_count(decode_cases));
    cr_assert(qz_json_count(cases) > 0);
    qz_tokenizer_close(t);
    qz_json_close(doc);
    qz_arena_free(arena);
}

Test(data_tokenizers, every_fixture_is_equal)
{
    static const char suffix[] = ".expected.json";
    qz_arena *arena;
    char **names;
    size_t count, found = 0;
    check_ok(qz_arena_new(&arena, "names"));
    check_ok(qz_folder_list(&names, &count, golden_path("tokenizers"), arena));
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(names[i]);
        if (n < sizeof suffix || strcmp(names[i] + n - (sizeof suffix - 1), suffix) != 0) continue;
        check_fixture(names[i]);
        found++;
    }
    cr_assert(found > 0, "%s holds no *.expected.json", golden_path("tokenizers"));
    qz_arena_free(arena);
}
