/* Counting, timing, and calling back not too often. Phases may recur (one for each layer): their seconds add up. */
#include "base/progress.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/parallel.h"

enum { PHASES = 32, NAME = 48 };
#define INTERVAL 0.1 /* seconds between calls */

struct qz_progress {
    qz_progress_fn fn;
    void *context;
    char item[128];
    struct {
        char name[NAME];
        double seconds;
    } phase[PHASES];
    int phases, current; /* current: -1 between phases */
    int booked;          /* the phase or section whose seconds are running */
    uint64_t done, total;
    double began, told, since; /* of the phase, of the last call, of what is booked */
    int stop;
};

qz_status qz_progress_new(qz_progress **out, qz_progress_fn fn, void *context)
{
    *out = qz_calloc(1, sizeof **out);
    if (!*out) return QZ_FAIL(QZ_MEMORY, "out of memory: progress");
    (*out)->fn = fn;
    (*out)->context = context;
    (*out)->current = -1;
    return QZ_OK;
}

void qz_progress_free(qz_progress *p)
{
    qz_free(p);
}

/* As if the rest went at the pace of what is done. */
static double remaining_seconds(const qz_progress *p, double seconds)
{
    if (!p->done || !p->total) return -1;
    return p->done < p->total ? seconds * (double)(p->total - p->done) / (double)p->done : 0;
}

static void tell(qz_progress *p, bool finished)
{
    p->told = qz_seconds();
    double seconds = p->told - p->began;
    qz_progress_state state = {
        .phase = p->phase[p->current].name,
        .item = p->item,
        .done = p->done,
        .total = p->total,
        .seconds = seconds,
        .remaining = remaining_seconds(p, seconds),
        .finished = finished,
    };
    if (p->fn && p->fn(p->context, &state)) p->stop = 1;
}

static int find(const qz_progress *p, const char *phase)
{
    for (int i = 0; i < p->phases; i++)
        if (strncmp(p->phase[i].name, phase, NAME - 1) == 0) return i;
    return -1;
}

static int find_or_add(qz_progress *p, const char *phase)
{
    int i = find(p, phase);
    if (i >= 0) return i;
    i = p->phases < PHASES ? p->phases++ : PHASES - 1;
    snprintf(p->phase[i].name, NAME, "%s", phase);
    return i;
}

static void book(qz_progress *p)
{
    double now = qz_seconds();
    p->phase[p->booked].seconds += now - p->since;
    p->since = now;
}

void qz_progress_begin(qz_progress *p, const char *phase, uint64_t total)
{
    if (!p) return;
    qz_progress_end(p);
    p->current = p->booked = find_or_add(p, phase);
    p->done = 0;
    p->total = total;
    p->item[0] = '\0';
    p->began = p->since = qz_seconds();
    tell(p, false);
}

void qz_progress_section(qz_progress *p, const char *section)
{
    if (!p || p->current < 0) return;
    book(p);
    p->booked = find_or_add(p, section);
}

qz_status qz_progress_step(qz_progress *p, uint64_t amount, const char *item)
{
    if (!p || p->current < 0) return QZ_OK;
    p->done += amount;
    if (item && *item) snprintf(p->item, sizeof p->item, "%s", item);
    if (qz_seconds() - p->told >= INTERVAL) tell(p, false);
    return p->stop ? QZ_FAIL(QZ_INTERRUPTED, "stopped while in phase \"%s\"", p->phase[p->current].name) : QZ_OK;
}

void qz_progress_end(qz_progress *p)
{
    if (!p || p->current < 0) return;
    tell(p, true);
    book(p);
    p->current = -1;
}

void qz_progress_book(qz_progress *p, const char *phase, double seconds)
{
    if (p) p->phase[find_or_add(p, phase)].seconds += seconds;
}

const char *qz_progress_at(const qz_progress *p, int i, double *seconds)
{
    if (!p || i < 0 || i >= p->phases) return NULL;
    *seconds = p->phase[i].seconds;
    return p->phase[i].name;
}

double qz_progress_seconds(const qz_progress *p, const char *phase)
{
    int i = p ? find(p, phase) : -1;
    return i < 0 ? 0 : p->phase[i].seconds;
}
