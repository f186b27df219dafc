/* Progress as lines (standard error of a test is no terminal), and memory. */
#include "programs/terminal.h"

#include <stdio.h>
#include <stdlib.h>

#include "testing/testing.h"

static char text[4096];
static FILE *file;

static qz_terminal open_terminal(bool quiet)
{
    file = fopen(test_path("err"), "w+");
    cr_assert(file != NULL);
    return qz_terminal_new(file, quiet);
}

static const char *printed(void)
{
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    return text;
}

static void tell(qz_terminal *t, const char *phase, uint64_t done, double seconds, bool finished)
{
    qz_progress_state s = {phase, "layer 1", done, 10, seconds, -1, finished};
    cr_assert_eq(qz_terminal_progress(t, &s), 0);
}

Test(terminal, lines_are_few_and_plain)
{
    qz_terminal t = open_terminal(false);
    cr_assert_not(t.is_terminal);
    tell(&t, "layers", 0, 0, false);
    for (uint64_t done = 1; done < 9; done++) tell(&t, "layers", done, 0.1, false);
    tell(&t, "layers", 10, 9, true);
    tell(&t, "write", 10, 0.2, true);
    cr_assert_str_eq(printed(), "layers       started\nlayers       done in 9.00 s  layer 1\n");
}

Test(terminal, quiet_prints_nothing_and_still_samples_memory)
{
    qz_terminal t = open_terminal(true);
    tell(&t, "calibrate", 10, 1.5, true);
    qz_terminal_clear(&t);
    cr_assert_str_eq(printed(), "");
    cr_assert(t.memory.anonymous_peak > 0 && t.memory.resident_peak >= t.memory.anonymous_peak);
}

Test(terminal, a_bar_is_taken_away)
{
    qz_terminal t = open_terminal(false);
    t.is_terminal = true;
    tell(&t, "calibrate", 5, 0.1, false);
    cr_assert(strstr(printed(), "\rcalibrate    [############............]  50 %") != NULL, "%s", text);
    qz_terminal_clear(&t);
    cr_assert(strstr(printed(), "\r\033[K") != NULL);
}
