/* Files and folders: reading whole, mapping, and writing so that a half-written file is never seen.
 *
 * Every message names the path and what the system said. */
#ifndef QZ_BASE_FILE_H
#define QZ_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/status.h"

/* The whole file, NUL-terminated (the NUL is not counted), in `arena`. Larger than `limit` is an error. */
QZ_NODISCARD qz_status qz_file_read(char **out, size_t *size, const char *path, size_t limit, qz_arena *arena);

/* A read-only map of a whole regular file. An empty file gives data "" and size 0. */
typedef struct qz_map {
    const uint8_t *data;
    size_t size;
} qz_map;
QZ_NODISCARD qz_status qz_map_open(qz_map *out, const char *path);
void qz_map_close(qz_map *map);
/* [data, data+size) moved to a file without a name in `folder`, mapped read-only: memory that the system may write out
 * when it needs room. It is gone with the map, however the program ends. */
QZ_NODISCARD qz_status qz_map_spill(qz_map *out, const void *data, size_t size, const char *folder);
/* The same for what comes in pieces: a file without a name that grows at its end. Its map stays when it is closed. */
typedef struct qz_spill qz_spill;
QZ_NODISCARD qz_status qz_spill_open(qz_spill **out, const char *folder);
QZ_NODISCARD qz_status qz_spill_add(qz_spill *spill, const void *data, size_t size);
QZ_NODISCARD qz_status qz_spill_map(qz_map *out, qz_spill *spill); /* of all that was added so far */
void qz_spill_close(qz_spill *spill);                              /* NULL allowed */
/* Room of `size` bytes (at least 1) to write into, in such a file. Making it larger keeps what is there and moves it.
 */
typedef struct qz_paged qz_paged;
QZ_NODISCARD qz_status qz_paged_open(qz_paged **out, const char *folder);
QZ_NODISCARD qz_status qz_paged_resize(qz_paged *paged, size_t size, void **data);
void qz_paged_close(qz_paged *paged); /* NULL allowed */
/* Tells the system that the pages of [data, data+size) will be read soon, or are not needed for now. Hints only. */
void qz_map_will_need(const void *data, size_t size);
void qz_map_done(const void *data, size_t size);

/* Writes to PATH.tmp, syncs, renames. */
QZ_NODISCARD qz_status qz_file_write(const char *path, const void *data, size_t size);
QZ_NODISCARD qz_status qz_file_copy(const char *to, const char *from);

/* A file of known size, written in pieces at any offset (from several threads), then synced and renamed by
 * qz_outfile_close; qz_outfile_abandon removes it. Space is reserved at the start, so a full disk says so early. */
typedef struct qz_outfile qz_outfile;
QZ_NODISCARD qz_status qz_outfile_open(qz_outfile **out, const char *path, uint64_t size);
QZ_NODISCARD qz_status qz_outfile_write(qz_outfile *file, uint64_t offset, const void *data, size_t size);
QZ_NODISCARD qz_status qz_outfile_close(qz_outfile *file);
void qz_outfile_abandon(qz_outfile *file); /* NULL allowed */

/* Going on after an interruption. The kept file of an earlier run, PATH.tmp (or PATH, when the run stopped while it was
 * finishing), is opened for writing with what it holds; another size is QZ_FORMAT. It is kept from then on: neither a
 * failure nor qz_outfile_abandon removes it. */
QZ_NODISCARD qz_status qz_outfile_adopt(qz_outfile **out, const char *path, uint64_t size);
void qz_outfile_keep(qz_outfile *file);
QZ_NODISCARD qz_status qz_outfile_read(qz_outfile *file, uint64_t offset, void *out, size_t size);
QZ_NODISCARD qz_status qz_outfile_sync(qz_outfile *file); /* what was written so far is on the disk */

bool qz_path_exists(const char *path);
bool qz_path_is_folder(const char *path);
/* "a/b" from "a" and "b"; no doubled slash. */
char *qz_path_join(qz_arena *arena, const char *folder, const char *name);
const char *qz_path_base(const char *path); /* after the last slash */

QZ_NODISCARD qz_status qz_folder_make(const char *path); /* with parents; an existing folder is fine */
/* Names in byte order, without "." and "..". */
QZ_NODISCARD qz_status qz_folder_list(char ***names, size_t *count, const char *path, qz_arena *arena);
QZ_NODISCARD qz_status qz_folder_remove(const char *path); /* with everything inside; never follows a link */
QZ_NODISCARD qz_status qz_path_rename(const char *from, const char *to); /* and syncs the parent folder */
QZ_NODISCARD qz_status qz_file_size(const char *path, uint64_t *size);
/* Bytes free for us on the file system of `path` (or of its nearest parent that exists). */
QZ_NODISCARD qz_status qz_disk_free(const char *path, uint64_t *bytes);

#endif
