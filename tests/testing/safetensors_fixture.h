/* Small safetensors files and model folders for tests, written without our own writer. */
#ifndef QZ_SAFETENSORS_FIXTURE_H
#define QZ_SAFETENSORS_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "testing/testing.h"

/* length + header + data, from malloc. */
static inline uint8_t *fixture_bytes(size_t *size, const char *header, const void *data, size_t data_size)
{
    size_t n = strlen(header);
    uint8_t *out = malloc(8 + n + data_size);
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(out + 8, header, n);
    if (data_size) memcpy(out + 8 + n, data, data_size);
    *size = 8 + n + data_size;
    return out;
}

static inline void fixture_file(const char *path, const char *header, const void *data, size_t data_size)
{
    size_t size;
    uint8_t *bytes = fixture_bytes(&size, header, data, data_size);
    test_write_file(path, bytes, size);
    free(bytes);
}

/* test_path(name) as a new folder. */
static inline const char *fixture_folder(const char *name)
{
    const char *path = test_path(name);
    cr_assert(mkdir(path, 0777) == 0, "%s", path);
    return path;
}

static inline const char *fixture_in(const char *folder, const char *name)
{
    static char ring[8][4096];
    static unsigned next;
    char *out = ring[next++ % 8];
    snprintf(out, sizeof ring[0], "%s/%s", folder, name);
    return out;
}

static inline void fixture_text(const char *folder, const char *name, const char *text)
{
    test_write_file(fixture_in(folder, name), text, strlen(text));
}

#endif
