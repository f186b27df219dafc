/* Maps, hashes, options, names, UTF-8. */
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/options.h"
#include "base/plugin.h"
#include "base/utf8.h"
#include "testing/testing.h"

Test(map, grows_and_finds)
{
    qz_strmap *m;
    static char keys[5000][8];
    bool there;
    check_ok(qz_strmap_new(&m, 1));
    for (int i = 0; i < 5000; i++) {
        sprintf(keys[i], "k%d", i);
        check_ok(qz_strmap_add(m, keys[i], strlen(keys[i]), i, &there));
        cr_assert(!there);
    }
    check_ok(qz_strmap_add(m, "k7", 2, 99, &there));
    cr_assert(there && qz_strmap_get(m, "k7", 2) == 7 && qz_strmap_count(m) == 5000);
    cr_assert(qz_strmap_get(m, "k7", 1) == -1);
    check_ok(qz_strmap_add(m, "a\0b", 3, 1, NULL));
    cr_assert(qz_strmap_get(m, "a\0c", 3) == -1 && qz_strmap_get(m, "a\0b", 3) == 1);
    qz_strmap_free(m);
}

Test(map, failing_allocations)
{
    qz_strmap *m;
    qz_alloc_fail_at(1);
    check_fails(QZ_MEMORY, "map", qz_strmap_new(&m, 10));
    qz_alloc_fail_at(2);
    check_fails(QZ_MEMORY, "map", qz_strmap_new(&m, 10));
    qz_alloc_fail_at(0);
}

/* The empty input's value is the one that xxHash's own self-test lists. */
Test(hash, is_xxh3)
{
    char a[QZ_HASH_TEXT], b[QZ_HASH_TEXT];
    cr_assert(qz_hash64("", 0) == 0x2d06800538d394c2u);
    qz_hash_bytes(a, "", 0);
    cr_assert_str_eq(a, "99aa06d3014798d86001c324468d497f");
    qz_hasher *h;
    check_ok(qz_hasher_new(&h));
    qz_hasher_add(h, "he", 2);
    qz_hasher_add(h, "llo", 3);
    qz_hasher_finish(h, a);
    test_write_file(test_path("h"), "hello", 5);
    check_ok(qz_hash_file(b, test_path("h")));
    cr_assert_str_eq(a, b);
}

static const char *const colours[] = {"red", "green", NULL};
static const qz_option options[] = {
    QZ_OPTION_INT("grid", 20, 2, 100, "points"),
    QZ_OPTION_BOOL("fast", true, "speed"),
    QZ_OPTION_CHOICE("colour", 1, colours, "of it"),
    QZ_OPTION_END,
};

Test(options, defaults_by_name)
{
    qz_options o = qz_options_default(options);
    cr_assert(qz_options_int(&o, "grid") == 20 && qz_options_bool(&o, "fast"));
    cr_assert_str_eq(qz_options_choice(&o, "colour"), "green");
    cr_assert(qz_options_index(options, "speed") == -1 && qz_options_index(NULL, "grid") == -1);
}

Test(options, nearest_name)
{
    static const char *const names[] = {"group", "symmetric", "solver", NULL};
    cr_assert_str_eq(qz_nearest_name("groop", names), "group");
    cr_assert_str_eq(qz_nearest_name("simetric", names), "symmetric");
    cr_assert(qz_nearest_name("zzzzzzzzz", names) == NULL);
}

Test(plugin, found_by_name)
{
    static const qz_plugin a = {"a", "", "", NULL}, b = {"b", "", "", NULL};
    static const qz_plugin *const rows[] = {&a, &b};
    static const qz_plugins list = {"thing", 2, rows};
    cr_assert(qz_plugins_find(&list, "b") == 1 && qz_plugins_find(&list, "c") == -1);
}

/* A second decoder, by code points: valid when re-encoding what was decoded gives the bytes back. */
static bool decodes(const unsigned char *p, size_t n)
{
    static const unsigned first[] = {0, 0, 0xc0, 0xe0, 0xf0}, least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 1) return p[0] < 0x80;
    if (n < 2 || n > 4 || (unsigned)(p[0] >> (7 - n)) != first[n] >> (7 - n)) return false;
    unsigned c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return false;
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

Test(utf8, agrees_with_a_second_decoder)
{
    static const unsigned char tail[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    for (unsigned a = 0x80; a < 256; a++)
        for (unsigned b = 0; b < 256; b++)
            for (size_t i = 0; i < sizeof tail; i++)
                for (size_t n = 2; n <= 4; n++) {
                    unsigned char p[4] = {(unsigned char)a, (unsigned char)b, tail[i], 0x80};
                    size_t lead = a < 0xc0 ? 0 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
                    if (n != lead) continue;
                    cr_assert((qz_utf8_check((char *)p, n) == n) == decodes(p, n), "%02x %02x %02x", a, b, tail[i]);
                }
    cr_assert(qz_utf8_check("abc\xe2\x82", 5) == 3);
    cr_assert(qz_utf8_check("\xe2\x82\xac", 3) == 3);
}
