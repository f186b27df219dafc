/* Progress as lines (standard error of a test is no terminal), phases and memory. */
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
    for (int layer = 0; layer < 5; layer++) {
        tell(&t, "calibrate", 0, 0, false);
        tell(&t, "calibrate", 5, 0.1, false);
        tell(&t, "calibrate", 10, layer == 4 ? 9.0 : 0.2, true);
    }
    cr_assert_str_eq(printed(), "calibrate    started\ncalibrate    done in 9.00 s  layer 1\n");
}

Test(terminal, quiet_prints_nothing_and_still_counts)
{
    qz_terminal t = open_terminal(true);
    tell(&t, "calibrate", 10, 1.5, true);
    tell(&t, "write", 10, 1, true);
    tell(&t, "calibrate", 10, 2, true);
    qz_terminal_add_phase(&t, "write", 0.5);
    qz_terminal_clear(&t);
    cr_assert_str_eq(printed(), "");
    cr_assert_eq(t.phases, 2);
    cr_assert_str_eq(t.phase[0].name, "calibrate");
    cr_assert_eq(t.phase[0].seconds, 3.5);
    cr_assert_eq(t.phase[1].seconds, 1.5);
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

Test(terminal, more_phases_than_room)
{
    qz_terminal t = open_terminal(true);
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        qz_terminal_add_phase(&t, name, 1);
    }
    cr_assert_eq(t.phases, QZ_TERMINAL_PHASES);
}
