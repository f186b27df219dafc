/* Names of modules against patterns: the whole name or its last part, with * for any run of characters. */
#include <string.h>

#include "recipes/recipes.h"

/* Greedy with one point of return, so linear in practice and never exponential. */
static bool matches(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

bool qz_patterns_match(const qz_patterns *p, const char *module)
{
    const char *dot = strrchr(module, '.');
    const char *last = dot ? dot + 1 : module;
    for (int i = 0; i < p->count; i++)
        if (matches(p->pattern[i], module) || matches(p->pattern[i], last)) return true;
    return false;
}

const char *const *qz_pattern_list(const qz_patterns *p, qz_arena *arena)
{
    const char **list = qz_arena_array(arena, const char *, (size_t)p->count + 1);
    if (!list) return NULL;
    memcpy(list, p->pattern, (size_t)p->count * sizeof *list);
    list[p->count] = NULL;
    return list;
}
