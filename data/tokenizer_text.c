/* Growing text, UTF-8 of text that is known to be valid, character classes and GPT-2's alphabet for bytes.
 *
 * The alphabet (https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode): printable Latin-1
 * bytes stand for themselves, the other 68 in order for U+0100 to U+0143. */
#include <string.h>
#include <utf8proc.h>

#include "data/tokenizer_impl.h"

static qz_status grow(qz_text *b, size_t more)
{
    size_t room = b->room ? b->room : 64;
    while (room < b->size + more) room *= 2;
    char *data = qz_realloc(b->data, room);
    if (!data) return QZ_FAIL(QZ_MEMORY, "out of memory: a tokenizer wanted %zu bytes for text", room);
    b->data = data;
    b->room = room;
    return QZ_OK;
}

qz_status qz_text_add(qz_text *b, const char *data, size_t size)
{
    if (b->size + size > b->room) QZ_TRY(grow(b, size));
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    return QZ_OK;
}

qz_status qz_text_add_char(qz_text *b, uint32_t c)
{
    char utf8[4];
    return qz_text_add(b, utf8, qz_utf8_put(utf8, c));
}

void qz_text_free(qz_text *b)
{
    qz_free(b->data);
    *b = (qz_text){0};
}

uint32_t qz_utf8_get(const char *s, size_t *length)
{
    const uint8_t *p = (const uint8_t *)s;
    if (p[0] < 0x80) return *length = 1, p[0];
    if (p[0] < 0xe0) return *length = 2, (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    if (p[0] < 0xf0) return *length = 3, (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    return *length = 4, (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

size_t qz_utf8_last(const char *start, const char *end)
{
    const char *p = end;
    while (p > start && ((uint8_t) * --p & 0xc0) == 0x80) {
    }
    return (size_t)(end - p);
}

size_t qz_utf8_put(char out[4], uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

bool qz_char_is_space(uint32_t c)
{
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category_of(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool qz_char_is_word(uint32_t c)
{
    if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    utf8proc_category_t g = category_of(c);
    bool letter_in_a_box = (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    return (g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_ND) || g == UTF8PROC_CATEGORY_NL ||
           g == UTF8PROC_CATEGORY_PC || letter_in_a_box || c == 0x200c || c == 0x200d;
}

bool qz_char_is_number(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    utf8proc_category_t g = category_of(c);
    return g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL || g == UTF8PROC_CATEGORY_NO;
}

bool qz_char_is_punctuation(uint32_t c)
{
    if (c < 0x80) return c > ' ' && c < 0x7f && (c == '_' || !qz_char_is_word(c));
    utf8proc_category_t g = category_of(c);
    return g >= UTF8PROC_CATEGORY_PC && g <= UTF8PROC_CATEGORY_PO;
}

static bool visible(uint32_t byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
}

uint32_t qz_byte_to_char(uint8_t byte)
{
    if (visible(byte)) return byte;
    if (byte <= ' ') return 0x100u + byte;
    return byte == 0xad ? 0x143u : 0x121u + (byte - 0x7fu);
}

int qz_char_to_byte(uint32_t c)
{
    if (c < 0x100) return visible(c) ? (int)c : -1;
    if (c <= 0x120) return (int)c - 0x100;
    if (c <= 0x142) return (int)c - 0x121 + 0x7f;
    return c == 0x143 ? 0xad : -1;
}
