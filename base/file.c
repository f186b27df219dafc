/* Reading, mapping, and writing files whole or not at all. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file for reading: a pipe or a device would block or never end. */
static qz_status open_regular(int *fd, uint64_t *size, const char *path)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return QZ_FAIL(QZ_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *size = (uint64_t)st.st_size;
        return QZ_OK;
    }
    close(*fd);
    return QZ_FAIL(QZ_IO, "%s: is not a regular file", path);
}

static qz_status read_all(int fd, char *data, size_t size, const char *path)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return QZ_FAIL(QZ_IO, "%s: cannot be read: %s", path, strerror(errno));
        if (n == 0) return QZ_FAIL(QZ_IO, "%s: ended after %zu of %zu bytes", path, done, size);
        done += (size_t)n;
    }
    return QZ_OK;
}

qz_status qz_file_read(char **out, size_t *size, const char *path, size_t limit, qz_arena *arena)
{
    int fd;
    uint64_t bytes;
    QZ_TRY(open_regular(&fd, &bytes, path));
    qz_status status = QZ_OK;
    char *data = NULL;
    if (bytes > limit)
        status = QZ_FAIL(QZ_FORMAT, "%s: has %llu bytes; at most %zu are read", path, (unsigned long long)bytes, limit);
    else if (!(data = qz_arena_alloc(arena, (size_t)bytes + 1)))
        status = qz_arena_failed(arena);
    else
        status = read_all(fd, data, (size_t)bytes, path);
    close(fd);
    if (status != QZ_OK) return status;
    data[bytes] = '\0';
    *out = data;
    *size = (size_t)bytes;
    return QZ_OK;
}

qz_status qz_map_open(qz_map *out, const char *path)
{
    int fd;
    uint64_t bytes;
    QZ_TRY(open_regular(&fd, &bytes, path));
    *out = (qz_map){(const uint8_t *)"", 0};
    if (bytes) {
        void *p = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        int error = errno;
        if (p == MAP_FAILED) {
            close(fd);
            return QZ_FAIL(QZ_IO, "%s: cannot be mapped: %s", path, strerror(error));
        }
        *out = (qz_map){p, (size_t)bytes};
    }
    close(fd);
    return QZ_OK;
}

void qz_map_close(qz_map *map)
{
    if (map->size) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (qz_map){(const uint8_t *)"", 0};
}

static void advise(const void *data, size_t size, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)data & ~(page - 1);
    (void)madvise((void *)start, (uintptr_t)data + size - start, advice);
}

void qz_map_will_need(const void *data, size_t size)
{
    advise(data, size, MADV_WILLNEED);
}

void qz_map_done(const void *data, size_t size)
{
    advise(data, size, MADV_DONTNEED);
}

qz_status qz_file_write(const char *path, const void *data, size_t size)
{
    qz_outfile *f;
    QZ_TRY(qz_outfile_open(&f, path, size));
    qz_status status = qz_outfile_write(f, 0, data, size);
    if (status == QZ_OK) return qz_outfile_close(f);
    qz_outfile_abandon(f);
    return status;
}

qz_status qz_file_copy(const char *to, const char *from)
{
    qz_map map;
    QZ_TRY(qz_map_open(&map, from));
    qz_status status = qz_file_write(to, map.data, map.size);
    qz_map_close(&map);
    return status;
}

qz_status qz_file_size(const char *path, uint64_t *size)
{
    struct stat st;
    if (stat(path, &st) != 0) return QZ_FAIL(QZ_IO, "%s: %s", path, strerror(errno));
    *size = (uint64_t)st.st_size;
    return QZ_OK;
}
