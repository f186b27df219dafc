/* Files that appear whole: written under PATH.tmp, synced, renamed. A file that is kept survives a failure or a crash
 * under its temporary name, and a later run adopts it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

struct qz_outfile {
    int fd;
    bool keep; /* the temporary file outlives a failure */
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

static qz_outfile *handle_new(const char *path, uint64_t size)
{
    qz_outfile *f = qz_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->size = size;
    f->path = qz_strdup(path);
    if (f->path && (f->temporary = qz_malloc(strlen(path) + 5))) {
        sprintf(f->temporary, "%s.tmp", path);
        return f;
    }
    release(f);
    return NULL;
}

qz_status qz_outfile_open(qz_outfile **out, const char *path, uint64_t size)
{
    *out = NULL;
    qz_outfile *f = handle_new(path, size);
    if (!f) return QZ_FAIL(QZ_MEMORY, "out of memory: opening %s", path);
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

/* A run that stopped while it gave files their names has left some with the final one. */
static qz_status take_back(const qz_outfile *f)
{
    struct stat s;
    if (lstat(f->temporary, &s) == 0 || lstat(f->path, &s) != 0) return QZ_OK;
    return qz_path_rename(f->path, f->temporary);
}

static qz_status open_again(qz_outfile *f)
{
    struct stat s;
    QZ_TRY(take_back(f));
    f->fd = open(f->temporary, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (f->fd < 0) return QZ_FAIL(QZ_IO, "%s: cannot be opened: %s", f->temporary, strerror(errno));
    if (fstat(f->fd, &s) != 0 || !S_ISREG(s.st_mode)) return QZ_FAIL(QZ_IO, "%s: is not a regular file", f->temporary);
    if ((uint64_t)s.st_size != f->size)
        return QZ_FAIL(QZ_FORMAT, "%s: has %lld bytes, expected %llu", f->temporary, (long long)s.st_size,
                       (unsigned long long)f->size);
    int error = reserve(f->fd, f->size);
    return error ? refuse(f->path, f->size, error) : QZ_OK;
}

qz_status qz_outfile_adopt(qz_outfile **out, const char *path, uint64_t size)
{
    *out = NULL;
    qz_outfile *f = handle_new(path, size);
    if (!f) return QZ_FAIL(QZ_MEMORY, "out of memory: opening %s", path);
    f->fd = -1;
    f->keep = true;
    qz_status status = open_again(f);
    if (status == QZ_OK) {
        *out = f;
        return QZ_OK;
    }
    if (f->fd >= 0) close(f->fd);
    release(f);
    return status;
}

void qz_outfile_keep(qz_outfile *f)
{
    f->keep = true;
}

qz_status qz_outfile_read(qz_outfile *f, uint64_t offset, void *out, size_t size)
{
    char *p = out;
    assert(offset <= f->size && size <= f->size - offset);
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(f->fd, p + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return QZ_FAIL(QZ_IO, "%s: cannot be read: %s", f->temporary, n < 0 ? strerror(errno) : "it has shrunk");
        done += (size_t)n;
    }
    return QZ_OK;
}

qz_status qz_outfile_sync(qz_outfile *f)
{
    return fdatasync(f->fd) != 0 ? refuse(f->path, f->size, errno) : QZ_OK;
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
    if (status != QZ_OK && !f->keep) unlink(f->temporary);
    release(f);
    return status;
}

void qz_outfile_abandon(qz_outfile *f)
{
    if (!f) return;
    close(f->fd);
    if (!f->keep) unlink(f->temporary);
    release(f);
}
