/* Paths and folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"

bool qz_path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool qz_path_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *qz_path_join(qz_arena *arena, const char *folder, const char *name)
{
    size_t n = strlen(folder);
    return qz_arena_printf(arena, n && folder[n - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
}

const char *qz_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static qz_status refuse(const char *path, const char *what)
{
    return QZ_FAIL(QZ_IO, "%s: %s: %s", path, what, strerror(errno));
}

qz_status qz_folder_make(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (!n || n >= sizeof part) return QZ_FAIL(QZ_ARG, "\"%s\" is no usable path of a folder", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) return refuse(part, "the folder cannot be made");
    }
    return qz_path_is_folder(path) ? QZ_OK : QZ_FAIL(QZ_IO, "%s: is not a folder", path);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static qz_status read_names(DIR *dir, char **names, size_t count, size_t *found, qz_arena *arena)
{
    struct dirent *e;
    *found = 0;
    while ((e = readdir(dir)) != NULL) {
        if (is_dots(e->d_name)) continue;
        if (names && *found < count && !(names[*found] = qz_arena_strdup(arena, e->d_name)))
            return qz_arena_failed(arena);
        (*found)++;
    }
    return QZ_OK;
}

qz_status qz_folder_list(char ***names, size_t *count, const char *path, qz_arena *arena)
{
    DIR *dir = opendir(path);
    if (!dir) return refuse(path, "the folder cannot be read");
    size_t expected, found = 0;
    char **list = NULL;
    qz_status status = read_names(dir, NULL, 0, &expected, arena);
    if (status == QZ_OK && !(list = qz_arena_array(arena, char *, expected + 1))) status = qz_arena_failed(arena);
    rewinddir(dir);
    if (status == QZ_OK) status = read_names(dir, list, expected, &found, arena);
    closedir(dir);
    if (status != QZ_OK) return status;
    if (found > expected) found = expected; /* files that appeared in between */
    qsort(list, found, sizeof *list, by_bytes);
    *names = list;
    *count = found;
    return QZ_OK;
}

/* Removes what the folder behind `fd` holds. Works on descriptors, so that nothing outside can be swapped in. */
static qz_status empty_folder(int fd, const char *path)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return refuse(path, "the folder cannot be read");
    }
    qz_status status = QZ_OK;
    struct dirent *e;
    while (status == QZ_OK && (e = readdir(dir)) != NULL) {
        if (is_dots(e->d_name) || unlinkat(dirfd(dir), e->d_name, 0) == 0) continue;
        int inner = errno == EISDIR || errno == EPERM
                        ? openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                        : -1;
        if (inner < 0) {
            status = refuse(path, e->d_name);
            break;
        }
        status = empty_folder(inner, path);
        if (status == QZ_OK && unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR) != 0) status = refuse(path, e->d_name);
    }
    closedir(dir);
    return status;
}

qz_status qz_folder_remove(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return refuse(path, "the folder cannot be removed");
    QZ_TRY(empty_folder(fd, path));
    return rmdir(path) == 0 ? QZ_OK : refuse(path, "the folder cannot be removed");
}

static const char *parent_of(char out[PATH_MAX], const char *path)
{
    snprintf(out, PATH_MAX, "%s", path);
    for (size_t n = strlen(out); n > 1 && out[n - 1] == '/'; n--) out[n - 1] = '\0';
    char *slash = strrchr(out, '/');
    if (slash)
        slash[slash == out] = '\0';
    else
        strcpy(out, ".");
    return out;
}

qz_status qz_path_rename(const char *from, const char *to)
{
    char buffer[PATH_MAX];
    if (rename(from, to) != 0) return QZ_FAIL(QZ_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    int fd = open(parent_of(buffer, to), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd); /* some file systems cannot; the rename is done all the same */
        close(fd);
    }
    return QZ_OK;
}

qz_status qz_disk_free(const char *path, uint64_t *bytes)
{
    char buffer[PATH_MAX], up[PATH_MAX];
    struct statvfs st;
    snprintf(buffer, sizeof buffer, "%s", path);
    while (statvfs(buffer, &st) != 0) {
        if (errno != ENOENT || strcmp(buffer, ".") == 0 || strcmp(buffer, "/") == 0)
            return refuse(path, "free space cannot be asked");
        parent_of(up, buffer);
        strcpy(buffer, up);
    }
    *bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return QZ_OK;
}
