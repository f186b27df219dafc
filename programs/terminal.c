/* Draws qz_progress_state. Lines that are no bar never contain control characters, so that logs stay readable. */
#include "programs/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/parallel.h"
#include "programs/signals.h"
#include "programs/table.h"

enum { BAR = 24 };
static const double seconds_between_lines = 10, seconds_worth_a_line = 2;

qz_terminal qz_terminal_new(FILE *err, bool quiet)
{
    const char *term = getenv("TERM");
    bool dumb = term && strcmp(term, "dumb") == 0;
    return (qz_terminal){.err = err, .quiet = quiet, .is_terminal = isatty(fileno(err)) == 1 && !dumb};
}

void qz_terminal_clear(qz_terminal *t)
{
    if (t->bar_shown) fputs("\r\033[K", t->err);
    t->bar_shown = false;
}

static int terminal_width(FILE *err)
{
    struct winsize size;
    if (ioctl(fileno(err), TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
    return size.ws_col;
}

static double share(const qz_progress_state *s)
{
    return s->total ? (double)s->done / (double)s->total : 0;
}

/* ", 12 s left", or nothing. */
static const char *remaining(char out[48], const qz_progress_state *s)
{
    char text[32];
    out[0] = '\0';
    if (s->remaining >= 0) snprintf(out, 48, ", %s left", qz_text_seconds(text, s->remaining));
    return out;
}

static void draw_bar(qz_terminal *t, const qz_progress_state *s)
{
    char bar[BAR + 1], left[48], line[512];
    int full = (int)(share(s) * BAR);
    memset(bar, '.', BAR);
    memset(bar, '#', full > BAR ? BAR : (size_t)full);
    bar[BAR] = '\0';
    snprintf(line, sizeof line, "%-12s [%s] %3.0f %%%s  %s", s->phase, bar, 100 * share(s), remaining(left, s),
             s->item);
    fprintf(t->err, "\r%.*s\033[K", terminal_width(t->err) - 1, line);
    fflush(t->err);
    t->bar_shown = true;
}

static void print_line(qz_terminal *t, const qz_progress_state *s)
{
    char text[48];
    double now = qz_seconds();
    const bool begins = !s->finished && !t->begun;
    t->begun = !s->finished;
    if (begins)
        fprintf(t->err, "%-12s started\n", s->phase);
    else if (s->finished && s->seconds >= seconds_worth_a_line)
        fprintf(t->err, "%-12s done in %s  %s\n", s->phase, qz_text_seconds(text, s->seconds), s->item);
    else if (!s->finished && now - t->last_line >= seconds_between_lines)
        fprintf(t->err, "%-12s %.0f %%%s  %s\n", s->phase, 100 * share(s), remaining(text, s), s->item);
    else
        return;
    t->last_line = now;
    fflush(t->err);
}

static void show(qz_terminal *t, const qz_progress_state *s)
{
    if (!t->is_terminal)
        print_line(t, s);
    else if (!s->finished)
        draw_bar(t, s);
}

int qz_terminal_progress(void *context, const qz_progress_state *state)
{
    qz_terminal *t = context;
    qz_memory_use_sample(&t->memory);
    if (!t->quiet) show(t, state);
    return qz_signals_asked_to_stop();
}
