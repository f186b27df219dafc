/* Bytes are edited directly: these files must be wrong in ways that no writer of ours can produce. */
#include "testing/broken_model.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "testing/testing.h"

static const char source[] = "demo/model";

typedef struct bytes {
    char *data;
    size_t size;
} bytes;

static bytes load(const char *name)
{
    char path[512];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", source, name);
    FILE *f = fopen(path, "rb");
    cr_assert(f != NULL && fstat(fileno(f), &s) == 0, "%s", path);
    bytes b = {calloc(1, (size_t)s.st_size + 1), (size_t)s.st_size};
    cr_assert(b.data != NULL && fread(b.data, 1, b.size, f) == b.size);
    fclose(f);
    return b;
}

const char *broken_folder(const char *without)
{
    static char folder[512];
    char here[4096], from[8192], to[1024];
    snprintf(folder, sizeof folder, "%s", test_path("model"));
    cr_assert(mkdir(folder, 0777) == 0 && getcwd(here, sizeof here));
    DIR *d = opendir(source);
    cr_assert(d != NULL);
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || (without && strcmp(e->d_name, without) == 0)) continue;
        snprintf(from, sizeof from, "%s/%s/%s", here, source, e->d_name);
        snprintf(to, sizeof to, "%s/%s", folder, e->d_name);
        cr_assert(symlink(from, to) == 0);
    }
    closedir(d);
    return folder;
}

static const char *with_file(const char *name, const void *data, size_t size)
{
    char path[1024];
    const char *folder = broken_folder(name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    test_write_file(path, data, size);
    return folder;
}

const char *broken_config_text(const char *text)
{
    return with_file("config.json", text, strlen(text));
}

const char *broken_config(const char *key, const char *value)
{
    qz_arena *arena;
    char *changed;
    bytes config = load("config.json");
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_json_text_set(&changed, config.data, key, value, arena));
    const char *folder = broken_config_text(changed);
    qz_arena_free(arena);
    free(config.data);
    return folder;
}

/* `text` with the first `from` replaced. */
static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    cr_assert(at != NULL, "\"%s\" is not there", from);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    cr_assert(out != NULL);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

static uint64_t header_size_of(const bytes *file)
{
    uint64_t n;
    memcpy(&n, file->data, sizeof n);
    return n;
}

const char *broken_header(const char *from, const char *to, uint64_t header_size, size_t cut)
{
    bytes file = load("model.safetensors");
    size_t n = header_size_of(&file), rest = file.size - 8 - n;
    char *header = strndup(file.data + 8, n);
    char *changed = from ? replaced(header, from, to) : strdup(header);
    uint64_t length = strlen(changed), told = header_size ? header_size : length;
    char *out = malloc(8 + length + rest);
    memcpy(out, &told, 8);
    memcpy(out + 8, changed, length);
    memcpy(out + 8 + length, file.data + 8 + n, rest);
    const char *folder = with_file("model.safetensors", out, 8 + length + rest - cut);
    free(out);
    free(changed);
    free(header);
    free(file.data);
    return folder;
}

const char *broken_weight(const char *tensor, size_t index, size_t count, uint16_t bits)
{
    bytes file = load("model.safetensors");
    char quoted[256];
    size_t n = header_size_of(&file);
    snprintf(quoted, sizeof quoted, "\"%s\":", tensor);
    const char *entry = memmem(file.data + 8, n, quoted, strlen(quoted));
    cr_assert(entry != NULL, "%s", tensor);
    const char *offsets = strstr(entry, "\"data_offsets\":[");
    size_t begin = strtoull(offsets + strlen("\"data_offsets\":["), NULL, 10);
    for (size_t i = 0; i < count; i++) memcpy(file.data + 8 + n + begin + 2 * (index + i), &bits, 2);
    const char *folder = with_file("model.safetensors", file.data, file.size);
    free(file.data);
    return folder;
}

const char *broken_tokenizer(const char *from, const char *to)
{
    bytes file = load("tokenizer.json");
    char *changed = replaced(file.data, from, to);
    const char *folder = with_file("tokenizer.json", changed, strlen(changed));
    free(changed);
    free(file.data);
    return folder;
}
