/* Any bytes as tokenizer.json: an error, or a tokenizer whose ids are its own, the same for a shorter reading, and
 * decodable. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "data/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LARGEST = 1 << 16, LONGEST_TEXT = 512 };

static void expect(int what)
{
    if (!what) abort();
}

static void check_prefix(const qz_tokenizer *t, const char *text, size_t size, const qz_ids *all, qz_arena *arena)
{
    qz_ids some;
    size_t limit = all->count / 2 + 1;
    if (qz_tokenizer_encode_some(t, text, size, limit, &some, arena) != QZ_OK) return;
    expect(some.count <= all->count && (some.count >= limit || some.count == all->count));
    expect(some.count == 0 || !memcmp(some.id, all->id, some.count * sizeof *some.id));
}

/* An encoder that has seen other text, and the same, gives the same ids. */
static void check_again(const qz_tokenizer *t, const char *text, size_t size, const qz_ids *all)
{
    qz_encoder e;
    if (qz_encoder_open(&e, t, size) != QZ_OK) return;
    for (int i = 0; i < 3; i++) {
        bool part = i == 0;
        if (qz_encoder_run(&e, text, part ? size / 2 : size, SIZE_MAX) != QZ_OK || part) continue;
        expect(e.count == all->count && (e.count == 0 || !memcmp(e.ids, all->id, e.count * sizeof *e.ids)));
    }
    qz_encoder_close(&e);
}

static void check_text(const qz_tokenizer *t, const char *text, size_t size, qz_arena *arena)
{
    qz_ids ids;
    char *decoded;
    size_t decoded_size;
    if (qz_tokenizer_encode(t, text, size, false, &ids, arena) != QZ_OK) return;
    for (size_t i = 0; i < ids.count; i++)
        expect(ids.id[i] >= 0 && ids.id[i] < qz_tokenizer_size(t) && t->token[ids.id[i]].text != NULL);
    check_prefix(t, text, size, &ids, arena);
    check_again(t, text, size, &ids);
    if (qz_tokenizer_decode(t, ids.id, ids.count, true, &decoded, &decoded_size, arena) != QZ_OK) return;
    expect(qz_utf8_check(decoded, decoded_size) == decoded_size && decoded[decoded_size] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char sample[] =
        "Hello  world's\n12345 \xc3\xa9\xe2\x96\x81<s>\xf0\x9f\x98\x80 a<T>b aaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaa  ";
    qz_tokenizer *t;
    qz_arena *arena;
    if (size > LARGEST || qz_arena_new(&arena, "fuzz") != QZ_OK) return 0;
    if (qz_tokenizer_parse(&t, (const char *)data, size, "fuzz") == QZ_OK) {
        size_t length = size < LONGEST_TEXT ? size : LONGEST_TEXT;
        check_text(t, sample, sizeof sample - 1, arena);
        check_text(t, (const char *)data, length, arena);
        qz_tokenizer_close(t);
    }
    qz_arena_free(arena);
    return 0;
}
