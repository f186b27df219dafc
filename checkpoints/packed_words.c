/* Lines of codes <-> streams of words, 32 codes at a time.
 * Tiles of lines: where words of a line lie far apart (GPTQ packs along K and stores (K, N)), the words of neighbouring
 * lines are neighbours, and a tile's output fills whole lines of the cache. */
#include "checkpoints/packed_words.h"

#include <string.h>

#include "base/parallel.h"
#include "numeric/pack.h"

enum { BLOCK = 32, TILE = 64 };

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t qz_packing_words(int64_t count, int bits)
{
    return (count * bits + 31) / 32;
}

static void pack_block(uint32_t *words, const uint8_t *codes, const qz_packing *p, int64_t first)
{
    const int64_t count = least(BLOCK, p->count - first), used = qz_packing_words(count, p->bits);
    uint8_t code[BLOCK] = {0};
    uint32_t word[8];
    for (int64_t i = 0; i < count; i++) code[i] = codes[(first + i) * p->code_step];
    qz_pack_block(word, code, p->bits);
    for (int64_t j = 0; j < used; j++) words[(first / BLOCK * p->bits + j) * p->word_step] = word[j];
}

void qz_packing_pack(uint32_t *words, const uint8_t *codes, const qz_packing *p)
{
    QZ_PARALLEL_FOR
    for (int64_t tile = 0; tile < p->lines; tile += TILE)
        for (int64_t first = 0; first < p->count; first += BLOCK)
            for (int64_t line = tile; line < least(tile + TILE, p->lines); line++)
                pack_block(words + line * p->word_line, codes + line * p->code_line, p, first);
}

static void unpack_block(uint8_t *codes, const uint8_t *words, const qz_packing *p, int64_t first)
{
    const int64_t count = least(BLOCK, p->count - first), used = qz_packing_words(count, p->bits);
    const int64_t size = (int64_t)sizeof(uint32_t);
    uint8_t code[BLOCK];
    uint32_t word[8] = {0};
    for (int64_t j = 0; j < used; j++)
        memcpy(&word[j], words + (first / BLOCK * p->bits + j) * p->word_step * size, (size_t)size);
    qz_unpack_block(code, word, p->bits);
    for (int64_t i = 0; i < count; i++) codes[(first + i) * p->code_step] = code[i];
}

void qz_packing_unpack(uint8_t *codes, const void *words, const qz_packing *p)
{
    const uint8_t *bytes = words;
    const int64_t size = (int64_t)sizeof(uint32_t);
    QZ_PARALLEL_FOR
    for (int64_t tile = 0; tile < p->lines; tile += TILE)
        for (int64_t first = 0; first < p->count; first += BLOCK)
            for (int64_t line = tile; line < least(tile + TILE, p->lines); line++)
                unpack_block(codes + line * p->code_line, bytes + line * p->word_line * size, p, first);
}
