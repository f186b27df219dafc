/* Any bytes as a recipe: an error or a recipe whose canonical text reads back as itself, and nothing else. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/testing/fake_catalog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A first line "--set PATH=VALUE" is taken as an override, so that the corpus reaches that code as well. */
static const char *take_override(qz_override *o, char *line, size_t room, const char *text, size_t *size)
{
    const char *prefix = "--set ", *end = memchr(text, '\n', *size);
    size_t skip = strlen(prefix);
    if (!end || *size < skip || memcmp(text, prefix, skip) != 0 || (size_t)(end - text) >= room) return text;
    memcpy(line, text + skip, (size_t)(end - text) - skip);
    line[(size_t)(end - text) - skip] = '\0';
    char *equals = strchr(line, '=');
    if (!equals) return text;
    *equals = '\0';
    *o = (qz_override){line, equals + 1, "--set", false};
    *size -= (size_t)(end + 1 - text);
    return end + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qz_arena *arena;
    qz_recipe *recipe, *again;
    qz_override o = {NULL, NULL, NULL, false};
    char line[512];
    if (qz_arena_new(&arena, "fuzz") != QZ_OK) return 0;
    const char *text = take_override(&o, line, sizeof line, (const char *)data, &size);
    if (qz_recipe_parse(&recipe, text, size, "fuzz", &fake_catalog, &o, o.path != NULL, arena) == QZ_OK) {
        const char *canonical = recipe->text;
        qz_status status =
            qz_recipe_parse(&again, canonical, strlen(canonical), "again", &fake_catalog, NULL, 0, arena);
        if (status != QZ_OK || strcmp(again->text, canonical) != 0) abort();
    }
    qz_arena_free(arena);
    return 0;
}
