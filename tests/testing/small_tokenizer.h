/* Tokenizers made of a few pieces of JSON, and a way to see how a text is split: every word that the pieces name is a
 * token of its own, so ids show where a pre-tokenizer cut. */
#ifndef QZ_SMALL_TOKENIZER_H
#define QZ_SMALL_TOKENIZER_H

#include <stdio.h>

#include "data/tokenizer_impl.h"
#include "testing/testing.h"

/* "tokenizer.json" with this model, added tokens and further members (each begins with a comma, or is ""). */
static inline const char *small_json(const char *vocab, const char *merges, const char *model_options, const char *rest)
{
    static char text[1 << 16];
    int n = snprintf(text, sizeof text,
                     "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\", \"vocab\": {%s}, \"merges\": [%s]%s}%s}",
                     vocab, merges, model_options, rest);
    cr_assert(n > 0 && (size_t)n < sizeof text);
    return text;
}

static inline qz_tokenizer *small_open(const char *json)
{
    qz_tokenizer *t;
    check_ok(qz_tokenizer_parse(&t, json, strlen(json), "small.json"));
    return t;
}

/* The ids of `text` as tokens with "|" between them. */
static inline void check_tokens_sized(const qz_tokenizer *t, const char *text, size_t size, bool special,
                                      const char *want)
{
    qz_arena *arena;
    qz_ids ids;
    qz_text got = {0};
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_tokenizer_encode(t, text, size, special, &ids, arena));
    for (size_t i = 0; i < ids.count; i++) {
        const qz_token *token = &t->token[ids.id[i]];
        if (i) check_ok(qz_text_add(&got, "|", 1));
        check_ok(qz_text_add(&got, token->text, token->size));
    }
    check_ok(qz_text_add(&got, "", 1));
    cr_expect_str_eq(got.data, want, "\"%s\": found \"%s\", expected \"%s\"", text, got.data, want);
    qz_text_free(&got);
    qz_arena_free(arena);
}

static inline void check_tokens(const qz_tokenizer *t, const char *text, const char *want)
{
    check_tokens_sized(t, text, strlen(text), false, want);
}

static inline void json_escape(char *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\' || c < 0x20)
            out += sprintf(out, "\\u%04x", c);
        else
            *out++ = (char)c;
    }
    *out = '\0';
}

/* `pre` (JSON) splits `text` into the pieces `want` ("a|b c|d"); words other than those would give no ids. */
static inline void check_pieces(const char *pre, const char *text, const char *want)
{
    char vocab[8192] = "\"\\u007f\": 0", piece[512], rest[8192];
    int id = 1;
    for (const char *p = want; *p;) {
        size_t n = strcspn(p, "|"), used = strlen(vocab);
        json_escape(piece, p, n);
        strcat(piece, "\":");
        if (n && !strstr(vocab, piece)) snprintf(vocab + used, sizeof vocab - used, ", \"%s %d", piece, id++);
        p += n + (p[n] == '|');
    }
    snprintf(rest, sizeof rest, ", \"pre_tokenizer\": %s", pre);
    qz_tokenizer *t = small_open(small_json(vocab, "", ", \"ignore_merges\": true", rest));
    check_tokens(t, text, want);
    qz_tokenizer_close(t);
}

#endif
