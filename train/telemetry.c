/* See telemetry.h. */
#include "train/telemetry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

enum { LINE = 1 << 16 /* no line of ours is longer */ };

struct qz_telemetry {
    int fd;
    bool times;
    char *path;
};

static qz_status refuse(const char *path, int error)
{
    return QZ_FAIL(QZ_IO, "%s: cannot be written: %s", path, strerror(error));
}

/* ---- the log of an earlier run ---- */

/* The step that a line says; -1 when it is no line of a log. */
static int64_t step_of(const char *line, size_t size)
{
    qz_json *doc;
    int64_t step;
    if (size > LINE || qz_json_parse(&doc, line, size) != QZ_OK) return -1;
    if (qz_json_int(qz_json_get(qz_json_root(doc), "step"), "step", 0, INT64_C(1) << 52, &step) != QZ_OK) step = -1;
    qz_json_close(doc);
    return step;
}

/* Bytes of the lines up to `step`: what follows belongs to later steps, or was being written when the run ended.
 * *last: the step of the last of them. */
static size_t kept_size(const char *text, size_t size, int64_t step, int64_t *last)
{
    size_t kept = 0;
    *last = 0;
    while (kept < size) {
        const char *end = memchr(text + kept, '\n', size - kept);
        if (!end) break;
        const int64_t at = step_of(text + kept, (size_t)(end - text) - kept);
        if (at < 0 || at > step) break;
        *last = at;
        kept = (size_t)(end - text) + 1;
    }
    return kept;
}

static qz_status cut(const qz_telemetry *t, int64_t step)
{
    qz_map map;
    int64_t last;
    QZ_TRY(qz_map_open(&map, t->path));
    const size_t kept = kept_size((const char *)map.data, map.size, step, &last);
    qz_map_close(&map);
    if (last < step)
        qz_warn("%s: ends with step %" PRId64 ", and the run goes on after step %" PRId64 ": lines are missing",
                t->path, last, step);
    return ftruncate(t->fd, (off_t)kept) == 0 ? QZ_OK : refuse(t->path, errno);
}

/* ---- the file ---- */

static qz_telemetry *telemetry_new(const char *folder, bool times)
{
    qz_telemetry *t = qz_calloc(1, sizeof *t);
    const size_t size = strlen(folder) + sizeof "/" QZ_TELEMETRY_NAME;
    if (!t) return NULL;
    t->fd = -1;
    t->times = times;
    if ((t->path = qz_malloc(size))) {
        snprintf(t->path, size, "%s/" QZ_TELEMETRY_NAME, folder);
        return t;
    }
    qz_telemetry_close(t);
    return NULL;
}

static qz_status open_file(qz_telemetry *t)
{
    struct stat s;
    t->fd = open(t->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (t->fd < 0) return refuse(t->path, errno);
    if (fstat(t->fd, &s) == 0 && S_ISREG(s.st_mode)) return QZ_OK;
    return QZ_FAIL(QZ_IO, "%s: is not a regular file", t->path);
}

qz_status qz_telemetry_open(qz_telemetry **out, const char *folder, int64_t step, bool times)
{
    *out = NULL;
    qz_telemetry *t = telemetry_new(folder, times);
    if (!t) return QZ_FAIL(QZ_MEMORY, "out of memory: the log of %s", folder);
    qz_status status = open_file(t);
    if (status == QZ_OK && step > 0) status = cut(t, step);
    if (status == QZ_OK && step == 0 && ftruncate(t->fd, 0) != 0) status = refuse(t->path, errno);
    if (status != QZ_OK) {
        qz_telemetry_close(t);
        return status;
    }
    *out = t;
    return QZ_OK;
}

void qz_telemetry_close(qz_telemetry *t)
{
    if (!t) return;
    if (t->fd >= 0) close(t->fd);
    qz_free(t->path);
    qz_free(t);
}

qz_status qz_telemetry_sync(qz_telemetry *t)
{
    return fdatasync(t->fd) == 0 ? QZ_OK : refuse(t->path, errno);
}

/* ---- lines ---- */

static qz_status append(const qz_telemetry *t, const char *text, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = write(t->fd, text + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return refuse(t->path, n < 0 ? errno : ENOSPC);
        done += (size_t)n;
    }
    return QZ_OK;
}

static qz_status line_new(qz_json_writer **w, const char *kind, int64_t step)
{
    QZ_TRY(qz_json_writer_new(w, false));
    qz_json_begin_object(*w, NULL);
    qz_json_put_string(*w, "kind", kind);
    qz_json_put_int(*w, "step", step);
    return QZ_OK;
}

/* Ends the object and writes it as one line. */
static qz_status line_end(const qz_telemetry *t, qz_json_writer *w)
{
    const char *text;
    size_t size;
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) status = append(t, text, size);
    if (status == QZ_OK) status = append(t, "\n", 1);
    qz_json_writer_free(w);
    return status;
}

static void put_used(qz_json_writer *w, const char *key, double value)
{
    if (!isnan(value)) qz_json_put_double(w, key, value);
}

qz_status qz_telemetry_step(qz_telemetry *t, const qz_step_figures *f)
{
    qz_json_writer *w;
    QZ_TRY(line_new(&w, "step", f->step));
    qz_json_put_double(w, "loss", f->loss);
    put_used(w, "cross_entropy", f->cross_entropy);
    put_used(w, "divergence", f->divergence);
    qz_json_put_double(w, "gradient_norm", f->gradient_norm);
    qz_json_put_double(w, "learning_rate", f->learning_rate);
    qz_json_put_int(w, "tokens", f->tokens);
    if (t->times) {
        qz_json_put_double(w, "tokens_per_second", f->tokens_per_second);
        qz_json_put_int(w, "memory_bytes", (int64_t)f->memory_bytes);
        qz_json_put_double(w, "seconds", f->seconds);
    }
    return line_end(t, w);
}

qz_status qz_telemetry_layer(qz_telemetry *t, const qz_layer_figures *f)
{
    qz_json_writer *w;
    QZ_TRY(line_new(&w, "layer", f->step));
    qz_json_put_string(w, "layer", f->layer);
    qz_json_put_double(w, "flipped", f->flipped);
    qz_json_put_double(w, "oscillation", f->oscillation);
    qz_json_put_double(w, "scale_drift", f->scale_drift);
    qz_json_put_double(w, "saturation", f->saturation);
    qz_json_put_double(w, "frozen", f->frozen);
    return line_end(t, w);
}

qz_status qz_telemetry_evaluation(qz_telemetry *t, const qz_evaluation_figures *f)
{
    qz_json_writer *w;
    QZ_TRY(line_new(&w, "evaluation", f->step));
    qz_json_put_double(w, "loss", f->loss);
    qz_json_put_double(w, "perplexity", f->perplexity);
    qz_json_put_bool(w, "best", f->best);
    if (t->times) qz_json_put_double(w, "seconds", f->seconds);
    return line_end(t, w);
}

/* ---- the live line ---- */

/* "812", "12.3k", "1.2M" */
static void print_rate(char out[16], double value)
{
    if (value < 999.5)
        snprintf(out, 16, "%.0f", value);
    else if (value < 999950)
        snprintf(out, 16, "%.1fk", value / 1e3);
    else
        snprintf(out, 16, "%.1fM", value / 1e6);
}

const char *qz_telemetry_text(char *out, size_t size, const qz_step_figures *f)
{
    char rate[16];
    print_rate(rate, f->tokens_per_second);
    snprintf(out, size, "loss %.3f, %s tokens/s, |g| %.2f, rate %.1e", f->loss, rate, f->gradient_norm,
             f->learning_rate);
    return out;
}
