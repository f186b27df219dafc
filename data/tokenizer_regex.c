/* Patterns of a tokenizer: plain strings by byte search, regular expressions through PCRE2 with its JIT.
 *
 * Matches follow one another as Oniguruma's iterator gives them: an empty match right behind the last match is
 * skipped. A pattern that needs too many steps on some text is an error, never a hang. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "data/tokenizer_impl.h"

enum { MATCH_LIMIT = 20000000, HEAP_LIMIT_KIB = 256 << 10, JIT_STACK = 4 << 20 };

struct qz_pattern {
    pcre2_code *code; /* NULL: a plain string */
    char *text;       /* as the file wrote it */
    size_t size;
};

struct qz_matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static qz_status no_memory(void)
{
    return QZ_FAIL(QZ_MEMORY, "out of memory: PCRE2 could not allocate");
}

static qz_status compile(pcre2_code **out, const qz_text *regex, const char *shown, const char *where)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return no_memory();
    int error;
    PCRE2_SIZE at;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    *out = pcre2_compile((PCRE2_SPTR)regex->data, regex->size,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at, context);
    pcre2_compile_context_free(context);
    if (*out) return (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE), QZ_OK; /* without a JIT it is only slower */
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof message);
    return QZ_FAIL(QZ_FORMAT, "%s: regular expression \"%.200s\": %s", where, shown, (char *)message);
}

static qz_status translate_and_compile(pcre2_code **out, const char *regex, const char *where)
{
    qz_text translated = {0};
    qz_status status = qz_onig_translate(&translated, regex, where);
    if (status == QZ_OK) status = compile(out, &translated, regex, where);
    qz_text_free(&translated);
    return status;
}

qz_status qz_pattern_new(qz_pattern **out, const char *regex, bool literal, const char *where)
{
    if (!*regex) return QZ_FAIL(QZ_UNSUPPORTED, "%s: an empty pattern", where);
    qz_pattern *p = *out = qz_calloc(1, sizeof *p);
    if (!p || !(p->text = qz_strdup(regex))) return QZ_FAIL(QZ_MEMORY, "out of memory: %s", where);
    p->size = strlen(regex);
    return literal ? QZ_OK : translate_and_compile(&p->code, regex, where);
}

qz_status qz_pattern_read(qz_pattern **out, const qz_json_node *node, const char *where)
{
    const qz_json_node *only = qz_json_count(node) == 1 ? qz_json_first(node) : NULL;
    const char *key = only ? qz_json_key(only) : NULL;
    if (!key || (strcmp(key, "String") != 0 && strcmp(key, "Regex") != 0))
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: expected an object with one member, \"String\" or \"Regex\"", where);
    const char *text;
    QZ_TRY(qz_part_string(&text, node, where, key, NULL));
    return qz_pattern_new(out, text, !strcmp(key, "String"), where);
}

void qz_pattern_free(qz_pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    qz_free(p->text);
    qz_free(p);
}

qz_status qz_matcher_new(qz_matcher **out)
{
    qz_matcher *m = *out = qz_calloc(1, sizeof *m);
    if (!m) return no_memory();
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    m->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL);
    if (!m->data || !m->context) return no_memory();
    pcre2_set_match_limit(m->context, MATCH_LIMIT);
    pcre2_set_heap_limit(m->context, HEAP_LIMIT_KIB);
    if (m->stack) pcre2_jit_stack_assign(m->context, NULL, m->stack);
    return QZ_OK;
}

void qz_matcher_free(qz_matcher *m)
{
    if (!m) return;
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    qz_free(m);
}

void qz_matches_begin(qz_matches *it, const qz_pattern *p, qz_matcher *m, const char *text, size_t size)
{
    *it = (qz_matches){.pattern = p, .matcher = m, .text = text, .size = size, .last_end = SIZE_MAX};
}

static void next_literal(qz_matches *it, bool *found, size_t *start, size_t *end)
{
    const qz_pattern *p = it->pattern;
    const char *at = memmem(it->text + it->next, it->size - it->next, p->text, p->size);
    *found = at != NULL;
    if (!at) return;
    *start = (size_t)(at - it->text);
    it->next = *end = *start + p->size;
}

static qz_status search(qz_matches *it, bool *found, size_t *start, size_t *end)
{
    int rc = pcre2_match(it->pattern->code, (PCRE2_SPTR)it->text, it->size, it->next, PCRE2_NO_UTF_CHECK,
                         it->matcher->data, it->matcher->context);
    *found = rc >= 0;
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(rc, message, sizeof message);
        return QZ_FAIL(QZ_FORMAT, "tokenizer: the regular expression \"%.200s\" does not finish on this text: %s",
                       it->pattern->text, (char *)message);
    }
    const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(it->matcher->data);
    *start = pair[0];
    *end = pair[1];
    return QZ_OK;
}

qz_status qz_matches_next(qz_matches *it, bool *found, size_t *start, size_t *end)
{
    if (!it->pattern->code) return next_literal(it, found, start, end), QZ_OK;
    for (;;) {
        *found = false;
        if (it->next > it->size) return QZ_OK;
        QZ_TRY(search(it, found, start, end));
        if (!*found || *start < *end || *end != it->last_end) break;
        size_t step = 1;
        if (it->next < it->size) qz_utf8_get(it->text + it->next, &step);
        it->next += step;
    }
    if (*found) it->next = it->last_end = *end;
    return QZ_OK;
}
