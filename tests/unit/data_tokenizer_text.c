#include "testing/small_tokenizer.h"

Test(data_tokenizer_text, bytes_and_their_characters)
{
    for (int b = 0; b < 256; b++) {
        uint32_t c = qz_byte_to_char((uint8_t)b);
        cr_expect_eq(qz_char_to_byte(c), b, "byte %d", b);
        cr_expect(c > ' ' && c < 0x144 && c != 0x7f && c != 0xad, "byte %d is U+%04X", b, (unsigned)c);
    }
    cr_expect_eq(qz_byte_to_char(' '), 0x120);
    cr_expect_eq(qz_byte_to_char('\n'), 0x10a);
    cr_expect_eq(qz_byte_to_char(0xad), 0x143);
    cr_expect_eq(qz_char_to_byte(' '), -1);
    cr_expect_eq(qz_char_to_byte(0x144), -1);
    cr_expect_eq(qz_char_to_byte(0x4e2d), -1);
}

Test(data_tokenizer_text, utf8_round_trip)
{
    static const uint32_t some[] = {1, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char utf8[5] = "";
        size_t length, n = qz_utf8_put(utf8, some[i]);
        cr_expect_eq(qz_utf8_get(utf8, &length), some[i]);
        cr_expect_eq(length, n);
        cr_expect_eq(qz_utf8_last(utf8, utf8 + n), n);
    }
}

Test(data_tokenizer_text, classes)
{
    cr_expect(qz_char_is_space(' ') && qz_char_is_space(0x85) && qz_char_is_space(0x3000) && qz_char_is_space('\v'));
    cr_expect(!qz_char_is_space(0x180e) && !qz_char_is_space(0x200b) && !qz_char_is_space('a'));
    cr_expect(qz_char_is_word('_') && qz_char_is_word('Z') && qz_char_is_word(0x301) && qz_char_is_word(0x24d0));
    cr_expect(!qz_char_is_word('-') && !qz_char_is_word(0xb2) && !qz_char_is_word('@') && !qz_char_is_word('['));
    cr_expect(qz_char_is_number('7') && qz_char_is_number(0xbd) && qz_char_is_number(0x2167) &&
              !qz_char_is_number('x'));
    cr_expect(qz_char_is_punctuation('$') && qz_char_is_punctuation('_') && qz_char_is_punctuation(0x201c));
    cr_expect(!qz_char_is_punctuation('a') && !qz_char_is_punctuation(' ') && !qz_char_is_punctuation(0x20ac));
}

Test(data_tokenizer_text, grows)
{
    qz_text text = {0};
    for (int i = 0; i < 1000; i++) check_ok(qz_text_add_char(&text, 0xe9));
    cr_assert_eq(text.size, 2000);
    cr_expect(!memcmp(text.data + 1998, "\xc3\xa9", 2));
    qz_text_free(&text);
    cr_expect(text.data == NULL && text.size == 0);
}
