/* Words of codes: the examples of FORMATS.md, and round trips. */
#include "numeric/pack.h"

#include "testing/testing.h"

Test(pack, awq_examples)
{
    const uint8_t up[8] = {1, 2, 3, 4, 5, 6, 7, 8}, mixed[8] = {15, 0, 8, 7, 14, 1, 9, 6};
    cr_assert(qz_pack_awq(up) == 0x86427531u);
    cr_assert(qz_pack_awq(mixed) == 0x61709E8Fu);
}

Test(pack, awq_comes_back)
{
    uint8_t code[8], back[8];
    for (uint32_t seed = 1; seed < 2000; seed += 7) {
        for (int j = 0; j < 8; j++) code[j] = (uint8_t)(seed * 2654435761u >> (4 * j) & 15u);
        qz_unpack_awq(back, qz_pack_awq(code));
        cr_assert_arr_eq(back, code, sizeof code);
    }
}

Test(pack, low_first)
{
    const uint8_t up[16] = {1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0};
    const uint8_t nibbles[8] = {1, 2, 3, 4, 5, 6, 7, 8}, bytes[4] = {0x11, 0x22, 0x33, 0xFF};
    uint8_t back[16];
    cr_assert(qz_pack_low_first(up, 2) == 0x39393939u);
    cr_assert(qz_pack_low_first(nibbles, 4) == 0x87654321u);
    cr_assert(qz_pack_low_first(bytes, 8) == 0xFF332211u);
    qz_unpack_low_first(back, 0x39393939u, 2);
    cr_assert_arr_eq(back, up, 16);
    qz_unpack_low_first(back, 0x87654321u, 4);
    cr_assert_arr_eq(back, nibbles, 8);
    qz_unpack_low_first(back, 0xFF332211u, 8);
    cr_assert_arr_eq(back, bytes, 4);
}

Test(pack, block_examples)
{
    /* FORMATS.md 2.2: values i mod 8 in three bits, 1..8 in four; 3.3: signed codes with 8 added. */
    uint8_t code[32];
    uint32_t word[8];
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)(i % 8);
    qz_pack_block(word, code, 3);
    cr_assert(word[0] == 0x88FAC688u && word[1] == 0xC688FAC6u && word[2] == 0xFAC688FAu);
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)(i % 8 + 1);
    qz_pack_block(word, code, 4);
    for (int i = 0; i < 4; i++) cr_assert(word[i] == 0x87654321u);
    static const int8_t given[8] = {-8, -7, 0, 7, 1, -1, 3, -4};
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)(given[i % 8] + 8);
    qz_pack_block(word, code, 4);
    cr_assert(word[0] == 0x4B79F810u);
}

Test(pack, blocks_come_back_and_are_one_stream)
{
    for (int bits = 1; bits <= 8; bits++) {
        uint8_t code[32], back[32];
        uint32_t word[9] = {0};
        word[bits] = 0xABABABABu;
        for (uint32_t seed = 1; seed < 200; seed++) {
            for (uint32_t i = 0; i < 32; i++)
                code[i] = (uint8_t)((seed * 2654435761u + i * 40503u) >> 13 & ((1u << bits) - 1u));
            qz_pack_block(word, code, bits);
            qz_unpack_block(back, word, bits);
            cr_assert_arr_eq(back, code, sizeof code);
            for (int at = 0; at < 32 * bits; at++)
                cr_assert((word[at / 32] >> (at % 32) & 1u) == (code[at / bits] >> (at % bits) & 1u));
        }
        cr_assert(word[bits] == 0xABABABABu, "%d bits: a word too many", bits);
    }
}
