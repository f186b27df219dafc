/* Files without a name: what a run makes and need not keep, such as tokens of a text that is larger than memory. The
 * name is taken away as soon as the file is open, so nothing is left behind however the program ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"

enum { BUFFER = 1 << 18 };

struct qz_spill {
    char *folder; /* for messages */
    int fd;
    uint64_t size; /* what was added */
    size_t held;
    char buffer[BUFFER];
};

static qz_status refuse(const char *folder, uint64_t size, int error)
{
    if (size == 0) return QZ_FAIL(QZ_IO, "%s: cannot hold data while the program runs: %s", folder, strerror(error));
    return QZ_FAIL(QZ_IO, "%s: cannot hold %llu bytes while the program runs: %s", folder, (unsigned long long)size,
                   strerror(error));
}

static qz_status open_unnamed(int *fd, const char *folder, uint64_t size)
{
    static const char name[] = "/.spill-XXXXXX";
    char *path = qz_malloc(strlen(folder) + sizeof name);
    if (!path) return QZ_FAIL(QZ_MEMORY, "out of memory: a file in %s", folder);
    memcpy(path, folder, strlen(folder));
    memcpy(path + strlen(folder), name, sizeof name);
    *fd = mkstemp(path);
    int error = *fd < 0 ? errno : unlink(path) != 0 ? errno : 0;
    qz_free(path);
    if (error == 0) return QZ_OK;
    if (*fd >= 0) close(*fd);
    return refuse(folder, size, error);
}

/* `size`: what is known to come, for the message. */
static qz_status open_spill(qz_spill **out, const char *folder, uint64_t size)
{
    *out = NULL;
    qz_spill *s = qz_malloc(sizeof *s);
    char *copy = qz_strdup(folder);
    qz_status status = s && copy ? QZ_OK : QZ_FAIL(QZ_MEMORY, "out of memory: a file in %s", folder);
    int fd = -1;
    if (status == QZ_OK) status = open_unnamed(&fd, folder, size);
    if (status != QZ_OK) {
        qz_free(copy);
        qz_free(s);
        return status;
    }
    s->folder = copy;
    s->fd = fd;
    s->size = 0;
    s->held = 0;
    *out = s;
    return QZ_OK;
}

static qz_status write_all(const qz_spill *s, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(s->fd, data + done, size - done);
        if (n < 0 && errno != EINTR) return refuse(s->folder, s->size, errno);
        if (n > 0) done += (size_t)n;
    }
    return QZ_OK;
}

static qz_status flush(qz_spill *s)
{
    size_t held = s->held;
    s->held = 0;
    return write_all(s, s->buffer, held);
}

qz_status qz_spill_open(qz_spill **out, const char *folder)
{
    return open_spill(out, folder, 0);
}

qz_status qz_spill_add(qz_spill *s, const void *data, size_t size)
{
    s->size += size;
    if (size > BUFFER - s->held) QZ_TRY(flush(s));
    if (size > BUFFER) return write_all(s, data, size);
    if (size) memcpy(s->buffer + s->held, data, size);
    s->held += size;
    return QZ_OK;
}

qz_status qz_spill_map(qz_map *out, qz_spill *s)
{
    *out = (qz_map){(const uint8_t *)"", 0};
    QZ_TRY(flush(s));
    if (s->size == 0) return QZ_OK;
    void *p = mmap(NULL, (size_t)s->size, PROT_READ, MAP_PRIVATE, s->fd, 0);
    if (p == MAP_FAILED) return refuse(s->folder, s->size, errno);
    *out = (qz_map){p, (size_t)s->size};
    return QZ_OK;
}

void qz_spill_close(qz_spill *s)
{
    if (!s) return;
    close(s->fd);
    qz_free(s->folder);
    qz_free(s);
}

qz_status qz_map_spill(qz_map *out, const void *data, size_t size, const char *folder)
{
    qz_spill *s;
    QZ_TRY(open_spill(&s, folder, size));
    qz_status status = qz_spill_add(s, data, size);
    if (status == QZ_OK) status = qz_spill_map(out, s);
    qz_spill_close(s);
    return status;
}

/* ---- room to write into ---- */

struct qz_paged {
    char *folder;
    int fd;
    void *data;
    size_t size;
};

qz_status qz_paged_open(qz_paged **out, const char *folder)
{
    *out = NULL;
    qz_paged *p = qz_calloc(1, sizeof *p);
    char *copy = qz_strdup(folder);
    qz_status status = p && copy ? QZ_OK : QZ_FAIL(QZ_MEMORY, "out of memory: a file in %s", folder);
    if (status == QZ_OK) status = open_unnamed(&p->fd, folder, 0);
    if (status != QZ_OK) {
        qz_free(copy);
        qz_free(p);
        return status;
    }
    p->folder = copy;
    return *out = p, QZ_OK;
}

static void unmap(qz_paged *p)
{
    if (p->size) munmap(p->data, p->size);
    p->size = 0;
}

/* Space is reserved first: a disk that is full must be an error here, not a signal when a page is written. */
qz_status qz_paged_resize(qz_paged *p, size_t size, void **data)
{
    int error = posix_fallocate(p->fd, 0, (off_t)size);
    if (error) return refuse(p->folder, size, error);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
    if (map == MAP_FAILED) return refuse(p->folder, size, errno);
    unmap(p);
    *data = p->data = map;
    p->size = size;
    return QZ_OK;
}

void qz_paged_close(qz_paged *p)
{
    if (!p) return;
    unmap(p);
    close(p->fd);
    qz_free(p->folder);
    qz_free(p);
}
