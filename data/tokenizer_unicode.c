/* The four Unicode normalization forms (Unicode Standard Annex 15) by utf8proc, as Hugging Face's library has them.
 *
 * That library's tables are those of Unicode 9; ours are newer. A character that has got a combining class or a
 * decomposition since is an ordinary one there: it stays as it is, and marks are not moved across it. Such characters
 * therefore cut the text into pieces that are normalized one by one. The list is what differs between utf8proc 2.8
 * (Unicode 15) and tokenizers 0.23 when every character is tried; and U+11A7, which utf8proc takes for a final
 * consonant behind a Hangul syllable and swallows. */
#include <stdlib.h>
#include <utf8proc.h>

#include "data/tokenizer_impl.h"

static const uint32_t apart[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},   {0x1715, 0x1715},   {0x1abf, 0x1ace},
    {0x1df6, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},
    {0x10781, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac},
    {0x10efd, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
    {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42},
    {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static bool stands_apart(uint32_t c)
{
    size_t low = 0, high = sizeof apart / sizeof *apart;
    if (c < apart[0][0]) return false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > apart[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof apart / sizeof *apart && c >= apart[low][0];
}

/* Characters up to the first that is not ASCII, or to the first that is. */
static size_t run_length(const char *text, size_t size, bool ascii)
{
    size_t n = 0;
    while (n < size && ((uint8_t)text[n] < 0x80) == ascii) n++;
    return n;
}

static qz_status normalize_run(qz_text *out, const char *text, size_t size, int options)
{
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &form, (utf8proc_option_t)options);
    if (n < 0) return QZ_FAIL(QZ_MEMORY, "normalizing text: %s", utf8proc_errmsg(n));
    qz_status status = qz_text_add(out, (const char *)form, (size_t)n);
    free(form); /* utf8proc's own allocation */
    return status;
}

/* ASCII is its own form in all four, and nothing moves across it or joins it from the right: what may change is a run
 * of other characters with the one ASCII character before it. */
static qz_status normalize_piece(qz_text *out, const char *text, size_t size, int options)
{
    while (size > 0) {
        size_t ascii = run_length(text, size, true);
        size_t same = ascii < size && ascii > 0 ? ascii - 1 : ascii;
        QZ_TRY(qz_text_add(out, text, same));
        if (ascii == size) break;
        size_t other = ascii - same + run_length(text + ascii, size - ascii, false);
        QZ_TRY(normalize_run(out, text + same, other, options));
        text += same + other;
        size -= same + other;
    }
    return QZ_OK;
}

qz_status qz_unicode_normalize(qz_text *out, const qz_text *in, bool compose, bool compatible)
{
    int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
    if (compatible) options |= UTF8PROC_COMPAT;
    size_t done = 0, n;
    for (size_t i = 0; i < in->size; i += n) {
        if (!stands_apart(qz_utf8_get(in->data + i, &n))) continue;
        QZ_TRY(normalize_piece(out, in->data + done, i - done, options));
        QZ_TRY(qz_text_add(out, in->data + i, n));
        done = i + n;
    }
    return done < in->size ? normalize_piece(out, in->data + done, in->size - done, options) : QZ_OK;
}
