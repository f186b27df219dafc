/* The "pre_tokenizer" of tokenizer.json -> a list of steps. ByteLevel becomes up to three of them. */
#include <stdio.h>
#include <string.h>

#include "data/tokenizer_impl.h"

#define KNOWN                                                                                                          \
    "ByteLevel, Split, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, CharDelimiterSplit, "              \
    "Sequence"

static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* \w of Rust's regex, which is not that of Oniguruma. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

typedef struct reader {
    qz_splits *out;
    const qz_json_node *node;
    const char *where;
    qz_arena *arena;
} reader;

static qz_status add(qz_split **out, reader *r, qz_split_kind kind, qz_behavior behavior)
{
    if (r->out->count == QZ_TOKENIZER_MAX_STEPS)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: more than %d steps", r->where, QZ_TOKENIZER_MAX_STEPS);
    *out = &r->out->step[r->out->count++];
    (*out)->kind = kind;
    (*out)->behavior = behavior;
    return QZ_OK;
}

static qz_status read_behavior(qz_behavior *out, reader *r, const char *otherwise)
{
    static const struct {
        const char *name;
        qz_behavior behavior;
    } all[] = {{"Removed", QZ_BEHAVIOR_REMOVED},
               {"Isolated", QZ_BEHAVIOR_ISOLATED},
               {"Contiguous", QZ_BEHAVIOR_CONTIGUOUS},
               {"MergedWithPrevious", QZ_BEHAVIOR_WITH_PREVIOUS},
               {"MergedWithNext", QZ_BEHAVIOR_WITH_NEXT}};
    const char *name;
    QZ_TRY(qz_part_string(&name, r->node, r->where, "behavior", otherwise));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) return *out = all[i].behavior, QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED,
                   "%s.behavior: \"%s\" is not known; known: Removed, Isolated, Contiguous, MergedWithPrevious, "
                   "MergedWithNext",
                   r->where, name);
}

static qz_status read_split(reader *r)
{
    qz_split *s = NULL;
    qz_behavior behavior = QZ_BEHAVIOR_ISOLATED;
    char inner[QZ_WHERE_SIZE];
    QZ_TRY(qz_part_known(r->node, r->where, "type pattern behavior invert"));
    QZ_TRY(read_behavior(&behavior, r, NULL));
    QZ_TRY(add(&s, r, QZ_SPLIT_PATTERN, behavior));
    QZ_TRY(qz_part_bool(&s->invert, r->node, r->where, "invert", false));
    snprintf(inner, sizeof inner, "%.200s.pattern", r->where);
    return qz_pattern_read(&s->pattern, qz_json_get(r->node, "pattern"), inner);
}

static qz_status read_byte_level(reader *r)
{
    qz_split *s = NULL;
    bool prefix, regex;
    QZ_TRY(qz_part_known(r->node, r->where, "type add_prefix_space trim_offsets use_regex"));
    QZ_TRY(qz_part_bool(&prefix, r->node, r->where, "add_prefix_space", true));
    QZ_TRY(qz_part_bool(&regex, r->node, r->where, "use_regex", true));
    if (prefix) QZ_TRY(add(&s, r, QZ_SPLIT_PREFIX_SPACE, QZ_BEHAVIOR_ISOLATED));
    if (regex) {
        QZ_TRY(add(&s, r, QZ_SPLIT_PATTERN, QZ_BEHAVIOR_ISOLATED));
        QZ_TRY(qz_pattern_new(&s->pattern, gpt2, false, r->where));
    }
    return add(&s, r, QZ_SPLIT_BYTES, QZ_BEHAVIOR_ISOLATED);
}

static qz_status read_digits(reader *r)
{
    qz_split *s = NULL;
    bool each;
    QZ_TRY(qz_part_known(r->node, r->where, "type individual_digits"));
    QZ_TRY(qz_part_bool(&each, r->node, r->where, "individual_digits", false));
    return add(&s, r, QZ_SPLIT_NUMBER, each ? QZ_BEHAVIOR_ISOLATED : QZ_BEHAVIOR_CONTIGUOUS);
}

/* One character, kept as text. */
static qz_status read_char(const char **out, reader *r, const char *key)
{
    const char *text;
    size_t n;
    QZ_TRY(qz_part_string(&text, r->node, r->where, key, NULL));
    if (!*text || (qz_utf8_get(text, &n), text[n]))
        return QZ_FAIL(QZ_FORMAT, "%s.%s: found \"%s\", expected one character", r->where, key, text);
    *out = qz_arena_strdup(r->arena, text);
    return *out ? QZ_OK : qz_arena_failed(r->arena);
}

/* `add_prefix_space` is the older spelling of prepend_scheme "never". */
static qz_status read_prepend(qz_prepend *out, reader *r)
{
    const char *name;
    bool prefix;
    QZ_TRY(qz_part_bool(&prefix, r->node, r->where, "add_prefix_space", true));
    QZ_TRY(qz_part_string(&name, r->node, r->where, "prepend_scheme", prefix ? "always" : "never"));
    static const char *const names[] = {"never", "first", "always"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(names[i], name)) return *out = (qz_prepend)i, QZ_OK;
    return QZ_FAIL(QZ_UNSUPPORTED, "%s.prepend_scheme: \"%s\" is not known; known: always, first, never", r->where,
                   name);
}

static qz_status read_metaspace(reader *r)
{
    qz_split *s = NULL;
    QZ_TRY(qz_part_known(r->node, r->where, "type replacement prepend_scheme add_prefix_space split str_rep"));
    QZ_TRY(add(&s, r, QZ_SPLIT_METASPACE, QZ_BEHAVIOR_WITH_NEXT));
    QZ_TRY(read_char(&s->content, r, "replacement"));
    QZ_TRY(read_prepend(&s->prepend, r));
    return qz_part_bool(&s->cut, r->node, r->where, "split", true);
}

static qz_status read_whitespace(reader *r)
{
    qz_split *s = NULL;
    QZ_TRY(qz_part_known(r->node, r->where, "type"));
    QZ_TRY(add(&s, r, QZ_SPLIT_PATTERN, QZ_BEHAVIOR_REMOVED));
    s->invert = true;
    return qz_pattern_new(&s->pattern, "[" WORD "]+|[^" WORD "\\s]+", false, r->where);
}

static qz_status read_whitespace_split(reader *r)
{
    qz_split *s = NULL;
    QZ_TRY(qz_part_known(r->node, r->where, "type"));
    return add(&s, r, QZ_SPLIT_SPACE, QZ_BEHAVIOR_REMOVED);
}

static qz_status read_punctuation(reader *r)
{
    qz_split *s = NULL;
    qz_behavior behavior = QZ_BEHAVIOR_ISOLATED;
    QZ_TRY(qz_part_known(r->node, r->where, "type behavior"));
    QZ_TRY(read_behavior(&behavior, r, "Isolated"));
    return add(&s, r, QZ_SPLIT_PUNCTUATION, behavior);
}

static qz_status read_delimiter(reader *r)
{
    qz_split *s = NULL;
    QZ_TRY(qz_part_known(r->node, r->where, "type delimiter"));
    QZ_TRY(add(&s, r, QZ_SPLIT_CHAR, QZ_BEHAVIOR_REMOVED));
    return read_char(&s->content, r, "delimiter");
}

static qz_status read_part(qz_splits *out, const qz_json_node *node, const char *where, qz_arena *arena);

static qz_status read_sequence(reader *r)
{
    const qz_json_node *list;
    QZ_TRY(qz_part_known(r->node, r->where, "type pretokenizers"));
    QZ_TRY(qz_part_array(&list, r->node, r->where, "pretokenizers"));
    int i = 0;
    for (const qz_json_node *c = qz_json_first(list); c; c = qz_json_next(c), i++) {
        char inner[QZ_WHERE_SIZE];
        snprintf(inner, sizeof inner, "%.200s.pretokenizers[%d]", r->where, i);
        QZ_TRY(read_part(r->out, c, inner, r->arena));
    }
    return QZ_OK;
}

static qz_status read_part(qz_splits *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    static const struct {
        const char *name;
        qz_status (*read)(reader *r);
    } all[] = {{"ByteLevel", read_byte_level},    {"Split", read_split},
               {"Digits", read_digits},           {"Metaspace", read_metaspace},
               {"Whitespace", read_whitespace},   {"WhitespaceSplit", read_whitespace_split},
               {"Punctuation", read_punctuation}, {"CharDelimiterSplit", read_delimiter},
               {"Sequence", read_sequence}};
    const char *type;
    QZ_TRY(qz_part_type(&type, node, where));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, type)) return all[i].read(&(reader){out, node, where, arena});
    return qz_part_unknown(where, type, KNOWN);
}

qz_status qz_splits_read(qz_splits *out, const qz_json_node *node, const char *where, qz_arena *arena)
{
    if (qz_json_type_of(node) == QZ_JSON_NULL) return QZ_OK;
    QZ_TRY(read_part(out, node, where, arena));
    if (out->count && out->step[out->count - 1].kind == QZ_SPLIT_BYTES) {
        out->bytes = true;
        out->count--;
    }
    return QZ_OK;
}

void qz_splits_free(qz_splits *s)
{
    for (int i = 0; i < s->count; i++) qz_pattern_free(s->step[i].pattern);
}
