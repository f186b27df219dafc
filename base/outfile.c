/* Files that appear whole: written under PATH.tmp, synced, renamed. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

struct qz_outfile {
    int fd;
    uint64_t size;
    char *path, *temporary;
};

static void release(qz_outfile *f)
{
    qz_free(f->path);
    qz_free(f->temporary);
    qz_free(f);
}

static qz_status refuse(const char *path, uint64_t size, int error)
{
    if (error != ENOSPC && error != EDQUOT && error != EFBIG)
        return QZ_FAIL(QZ_IO, "%s: cannot be written: %s", path, strerror(error));
    return QZ_FAIL(QZ_IO, "%s: cannot be written: %s: %llu bytes are needed", path, strerror(error),
                   (unsigned long long)size);
}

/* File systems without fallocate answer EOPNOTSUPP or EINVAL: there the writes themselves will tell. */
static int reserve(int fd, uint64_t size)
{
    int error = size ? posix_fallocate(fd, 0, (off_t)size) : 0;
    return error == EOPNOTSUPP || error == EINVAL ? 0 : error;
}

qz_status qz_outfile_open(qz_outfile **out, const char *path, uint64_t size)
{
    qz_outfile *f = qz_calloc(1, sizeof *f);
    *out = NULL;
    if (f) {
        f->size = size;
        f->path = qz_strdup(path);
        f->temporary = qz_malloc(strlen(path) + 5);
    }
    if (!f || !f->path || !f->temporary) {
        if (f) release(f);
        return QZ_FAIL(QZ_MEMORY, "out of memory: opening %s", path);
    }
    sprintf(f->temporary, "%s.tmp", path);
    f->fd = open(f->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int error = f->fd < 0 ? errno : reserve(f->fd, size);
    if (!error) {
        *out = f;
        return QZ_OK;
    }
    if (f->fd >= 0) {
        close(f->fd);
        unlink(f->temporary);
    }
    release(f);
    return refuse(path, size, error);
}

qz_status qz_outfile_write(qz_outfile *f, uint64_t offset, const void *data, size_t size)
{
    const char *p = data;
    assert(offset <= f->size && size <= f->size - offset);
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(f->fd, p + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return refuse(f->path, f->size, n < 0 ? errno : ENOSPC);
        done += (size_t)n;
    }
    return QZ_OK;
}

qz_status qz_outfile_close(qz_outfile *f)
{
    qz_status status = QZ_OK;
    int error = fsync(f->fd) != 0 ? errno : 0;
    if (close(f->fd) != 0 && !error) error = errno;
    if (error) status = refuse(f->path, f->size, error);
    if (status == QZ_OK) status = qz_path_rename(f->temporary, f->path);
    if (status != QZ_OK) unlink(f->temporary);
    release(f);
    return status;
}

void qz_outfile_abandon(qz_outfile *f)
{
    if (!f) return;
    close(f->fd);
    unlink(f->temporary);
    release(f);
}
