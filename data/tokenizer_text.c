/* Growing text, UTF-8 of text that is known to be valid, character classes and GPT-2's alphabet for bytes.
 *
 * The alphabet (https://github.com/openai/gpt-2/blob/master/src/encoder.py, bytes_to_unicode): printable Latin-1
 * bytes stand for themselves, the other 68 in order for U+0100 to U+0143. */
#include <string.h>
#include <utf8proc.h>

#include "data/tokenizer_impl.h"

/* From here on a text that may is kept in a file. */
static const size_t LARGEST_IN_MEMORY = (size_t)1 << 20;

static qz_status grow_in_memory(qz_text *b, size_t room)
{
    char *data = qz_realloc(b->data, room);
    if (!data) return QZ_FAIL(QZ_MEMORY, "out of memory: a tokenizer wanted %zu bytes for text", room);
    b->data = data;
    return QZ_OK;
}

static qz_status move_to_file(qz_text *b, size_t room)
{
    qz_paged *paged;
    void *data;
    QZ_TRY(qz_paged_open(&paged, b->folder));
    qz_status status = qz_paged_resize(paged, room, &data);
    if (status != QZ_OK) return qz_paged_close(paged), status;
    if (b->size) memcpy(data, b->data, b->size);
    qz_free(b->data);
    b->data = data;
    b->paged = paged;
    return QZ_OK;
}

static qz_status grow_in_file(qz_text *b, size_t room)
{
    void *data;
    QZ_TRY(qz_paged_resize(b->paged, room, &data));
    b->data = data;
    return QZ_OK;
}

static qz_status grow(qz_text *b, size_t more)
{
    size_t room = b->room ? b->room : 64;
    while (room < b->size + more) room *= 2;
    if (b->paged)
        QZ_TRY(grow_in_file(b, room));
    else
        QZ_TRY(b->folder && room > LARGEST_IN_MEMORY ? move_to_file(b, room) : grow_in_memory(b, room));
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
    if (!b->paged) qz_free(b->data);
    qz_paged_close(b->paged);
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

/* Punctuation is asked of Unicode 8 by the library (unicode_categories 0.1): these came later, two others left. */
static bool is_later_punctuation(uint32_t c)
{
    static const uint32_t later[][2] = {
        {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},     {0xc77, 0xc77},     {0xc84, 0xc84},
        {0x1b7d, 0x1b7e},   {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},   {0x10ead, 0x10ead}, {0x10f55, 0x10f59},
        {0x10f86, 0x10f89}, {0x1144b, 0x1144f}, {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c},
        {0x116b9, 0x116b9}, {0x1183b, 0x1183b}, {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46},
        {0x11a9a, 0x11a9c}, {0x11a9e, 0x11aa2}, {0x11b00, 0x11b09}, {0x11c41, 0x11c45}, {0x11c70, 0x11c71},
        {0x11ef7, 0x11ef8}, {0x11f43, 0x11f4f}, {0x11fff, 0x11fff}, {0x12ff1, 0x12ff2}, {0x16e97, 0x16e9a},
        {0x16fe2, 0x16fe2}, {0x1e95e, 0x1e95f},
    };
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (c >= later[i][0] && c <= later[i][1]) return true;
    return false;
}

bool qz_char_is_punctuation(uint32_t c)
{
    if (c < 0x80) return c > ' ' && c < 0x7f && (c == '_' || !qz_char_is_word(c));
    if (c == 0x166d || c == 0x111c9) return true;
    utf8proc_category_t g = category_of(c);
    return g >= UTF8PROC_CATEGORY_PC && g <= UTF8PROC_CATEGORY_PO && !is_later_punctuation(c);
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
