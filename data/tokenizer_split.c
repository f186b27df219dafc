/* Pre-tokenizers of tokenizer.json: text -> words. Each step hands its pieces on one by one, so no list of pieces is
 * ever kept; what a step does with matches and gaps is its behavior (tokenizers' SplitDelimiterBehavior). */
#include <string.h>

#include "data/tokenizer_impl.h"

/* Pieces on their way from one step to the next; a match and the gap before it may have to be joined. */
typedef struct joiner {
    qz_encoder *e;
    const char *text;
    size_t start, end; /* what waits */
    int step;          /* where pieces go */
    qz_behavior behavior;
    bool first, invert;
    bool waiting, was_match;
    bool outermost; /* of the steps that cut: where it is tells how far the text is */
} joiner;

static qz_status give(joiner *j, size_t start, size_t end)
{
    if (start == end) return QZ_OK;
    if (j->outermost) j->e->at = (double)start;
    return qz_encoder_split(j->e, j->step, j->text + start, end - start, j->first && start == 0);
}

static qz_status flush(joiner *j)
{
    if (!j->waiting) return QZ_OK;
    j->waiting = false;
    return give(j, j->start, j->end);
}

static qz_status hold(joiner *j, size_t start, size_t end)
{
    QZ_TRY(flush(j));
    j->waiting = true;
    j->start = start;
    j->end = end;
    return QZ_OK;
}

/* One match or one gap, in text order. */
static qz_status join(joiner *j, size_t start, size_t end, bool match)
{
    match = match != j->invert;
    bool was_match = j->was_match;
    j->was_match = match;
    switch (j->behavior) {
    case QZ_BEHAVIOR_REMOVED:
        return match ? QZ_OK : give(j, start, end);
    case QZ_BEHAVIOR_ISOLATED:
        return give(j, start, end);
    case QZ_BEHAVIOR_CONTIGUOUS:
        if (j->waiting && match == was_match) return j->end = end, QZ_OK;
        return hold(j, start, end);
    case QZ_BEHAVIOR_WITH_PREVIOUS:
        if (j->waiting && match && !was_match) return j->end = end, QZ_OK;
        return hold(j, start, end);
    case QZ_BEHAVIOR_WITH_NEXT:
        if (j->waiting && !match && was_match) {
            j->waiting = false;
            return give(j, j->start, end);
        }
        return hold(j, start, end);
    }
    return QZ_OK;
}

static void begin_cutting(joiner *j, size_t size)
{
    j->outermost = j->e->of == 0;
    if (!j->outermost) return;
    j->e->at = 0;
    j->e->of = (double)size;
}

static qz_status end_cutting(joiner *j)
{
    const qz_status status = flush(j);
    if (j->outermost) j->e->at = j->e->of = 0;
    return status;
}

static qz_status split_pattern(joiner *j, const qz_pattern *p, size_t size)
{
    qz_matches it;
    size_t done = 0, start, end;
    begin_cutting(j, size);
    qz_matches_begin(&it, p, j->e->matcher, j->text, size);
    while (!j->e->full) {
        bool found;
        QZ_TRY(qz_matches_next(&it, &found, &start, &end));
        if (!found) break;
        if (done != start) QZ_TRY(join(j, done, start, false));
        QZ_TRY(join(j, start, end, true));
        done = end;
    }
    if (done != size) QZ_TRY(join(j, done, size, false));
    return end_cutting(j);
}

static bool belongs(const qz_split *s, uint32_t c, const char *at, size_t n)
{
    switch (s->kind) {
    case QZ_SPLIT_SPACE:
        return qz_char_is_space(c);
    case QZ_SPLIT_NUMBER:
        return qz_char_is_number(c);
    case QZ_SPLIT_PUNCTUATION:
        return qz_char_is_punctuation(c);
    default:
        return strlen(s->content) == n && !memcmp(at, s->content, n);
    }
}

static qz_status split_class(joiner *j, const qz_split *s, size_t size)
{
    size_t done = 0, n;
    begin_cutting(j, size);
    for (size_t i = 0; i < size && !j->e->full; i += n) {
        uint32_t c = qz_utf8_get(j->text + i, &n);
        if (!belongs(s, c, j->text + i, n)) continue;
        if (done < i) QZ_TRY(join(j, done, i, false));
        QZ_TRY(join(j, i, i + n, true));
        done = i + n;
    }
    if (done < size) QZ_TRY(join(j, done, size, false));
    return end_cutting(j);
}

static qz_status metaspace_text(qz_text *out, const qz_split *s, const char *text, size_t size, bool first)
{
    size_t n = strlen(s->content);
    bool begins = size > 0 && (*text == ' ' || (size >= n && !memcmp(text, s->content, n)));
    out->size = 0;
    if (!begins && (s->prepend == QZ_PREPEND_ALWAYS || (s->prepend == QZ_PREPEND_FIRST && first)))
        QZ_TRY(qz_text_add(out, s->content, n));
    while (size > 0) {
        const char *space = memchr(text, ' ', size);
        size_t run = space ? (size_t)(space - text) : size;
        QZ_TRY(qz_text_add(out, text, run));
        if (!space) break;
        QZ_TRY(qz_text_add(out, s->content, n));
        text += run + 1;
        size -= run + 1;
    }
    return QZ_OK;
}

static qz_status split_metaspace(joiner *j, const qz_split *s, qz_text *scratch, size_t size)
{
    QZ_TRY(metaspace_text(scratch, s, j->text, size, j->first));
    j->text = scratch->data;
    if (!s->cut) return give(j, 0, scratch->size);
    return split_class(j, s, scratch->size);
}

static qz_status prefix_space(joiner *j, qz_text *scratch, size_t size)
{
    if (*j->text == ' ') return give(j, 0, size);
    scratch->size = 0;
    QZ_TRY(qz_text_add(scratch, " ", 1));
    QZ_TRY(qz_text_add(scratch, j->text, size));
    j->text = scratch->data;
    return give(j, 0, scratch->size);
}

static qz_status visible_bytes(joiner *j, qz_text *scratch, size_t size)
{
    scratch->size = 0;
    for (size_t i = 0; i < size; i++) QZ_TRY(qz_text_add_char(scratch, qz_byte_to_char((uint8_t)j->text[i])));
    j->text = scratch->data;
    return give(j, 0, scratch->size);
}

qz_status qz_encoder_split(qz_encoder *e, int step, const char *text, size_t size, bool first)
{
    const qz_splits *all = &e->t->splits;
    if (e->full) return QZ_OK;
    if (step == all->count) return qz_encoder_word(e, text, size);
    const qz_split *s = &all->step[step];
    joiner j = {.e = e, .text = text, .step = step + 1, .behavior = s->behavior, .first = first, .invert = s->invert};
    switch (s->kind) {
    case QZ_SPLIT_PATTERN:
        return split_pattern(&j, s->pattern, size);
    case QZ_SPLIT_SPACE:
    case QZ_SPLIT_NUMBER:
    case QZ_SPLIT_PUNCTUATION:
    case QZ_SPLIT_CHAR:
        return split_class(&j, s, size);
    case QZ_SPLIT_METASPACE:
        return split_metaspace(&j, s, &e->scratch[step], size);
    case QZ_SPLIT_PREFIX_SPACE:
        return prefix_space(&j, &e->scratch[step], size);
    case QZ_SPLIT_BYTES:
        return visible_bytes(&j, &e->scratch[step], size);
    }
    return QZ_OK;
}
