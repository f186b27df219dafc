/* Temporary folders and fixture paths. */
#include "testing/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[64];
static pid_t owner;

static void remove_folder(void)
{
    char command[128];
    if (owner != getpid()) return;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0) fprintf(stderr, "%s was left behind\n", folder);
}

const char *test_folder(void)
{
    if (owner == getpid()) return folder;
    strcpy(folder, "/tmp/quartz-test-XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
    owner = getpid();
    atexit(remove_folder);
    return folder;
}

static const char *joined(const char *a, const char *b)
{
    static char ring[8][512];
    static int next;
    char *out = ring[next++ % 8];
    snprintf(out, sizeof ring[0], "%s/%s", a, b);
    return out;
}

const char *test_path(const char *name)
{
    return joined(test_folder(), name);
}

void test_write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    cr_assert(f != NULL, "%s", path);
    cr_assert(fwrite(data, 1, size, f) == size);
    cr_assert(fclose(f) == 0);
}

const char *golden_path(const char *name)
{
    const char *root = getenv("QZ_GOLDEN");
    return joined(root && *root ? root : "tests/golden", name);
}
