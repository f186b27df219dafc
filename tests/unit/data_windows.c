#include "data/data.h"
#include "testing/small_tokenizer.h"

/* Letters are ids 0 to 25 and a line end is 26; the text below is 26 letters and a line end. */
static qz_tokenizer *letters(void)
{
    char vocab[1024] = "\"\\n\": 26";
    for (int c = 0; c < 26; c++) sprintf(vocab + strlen(vocab), ", \"%c\": %d", 'a' + c, c);
    return small_open(small_json(vocab, "", "", ""));
}

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz\n";

typedef struct fixture {
    qz_arena *arena;
    qz_tokenizer *t;
    qz_windows w;
    qz_windows_rule rule;
} fixture;

static fixture begin(const char *name, const char *text)
{
    fixture f = {.t = letters()};
    check_ok(qz_arena_new(&f.arena, "test"));
    test_write_file(test_path(name), text, strlen(text));
    f.rule = (qz_windows_rule){.path = test_path(name), .count = 2, .length = 5, .bos = 99};
    return f;
}

static void end(fixture *f)
{
    qz_tokenizer_close(f->t);
    qz_arena_free(f->arena);
}

static void check_row(const qz_windows *w, int64_t row, const int32_t *want)
{
    for (int64_t i = 0; i < w->length; i++)
        cr_expect_eq(w->ids[row * w->length + i], want[i], "window %d, id %d: %d, expected %d", (int)row, (int)i,
                     (int)w->ids[row * w->length + i], (int)want[i]);
}

Test(data_windows, bos_and_pieces_in_file_order)
{
    fixture f = begin("w.txt", alphabet);
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    cr_assert(f.w.count == 2 && f.w.length == 5 && f.w.has_bos);
    check_row(&f.w, 0, (int32_t[]){99, 0, 1, 2, 3});
    check_row(&f.w, 1, (int32_t[]){99, 4, 5, 6, 7});
    cr_assert(strlen(f.w.hash) == 32);
    end(&f);
}

Test(data_windows, without_bos_all_ids_are_text)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.bos = -1;
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    cr_assert(!f.w.has_bos);
    check_row(&f.w, 1, (int32_t[]){5, 6, 7, 8, 9});
    end(&f);
}

Test(data_windows, count_zero_takes_all_and_drops_the_short_rest)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.count = 0;
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    cr_assert(f.w.count == 6 && f.w.tokens == 27, "%d windows, %d tokens", (int)f.w.count, (int)f.w.tokens);
    check_row(&f.w, 5, (int32_t[]){99, 20, 21, 22, 23});
    end(&f);
}

Test(data_windows, line_ends_are_read_as_python_reads_them)
{
    fixture f = begin("w.txt", "ab\r\nc\rd\n\r\ne");
    f.rule = (qz_windows_rule){.path = f.rule.path, .count = 1, .length = 9, .bos = -1};
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    check_row(&f.w, 0, (int32_t[]){0, 1, 26, 2, 26, 3, 26, 26, 4});
    end(&f);
}

Test(data_windows, shuffle_is_seeded_and_a_choice_of_all)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.shuffle = true;
    f.rule.count = 6;
    f.rule.seed = 7;
    qz_windows again, other;
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    check_ok(qz_windows_load(&again, &f.rule, f.t, f.arena));
    f.rule.seed = 8;
    check_ok(qz_windows_load(&other, &f.rule, f.t, f.arena));
    size_t bytes = 30 * sizeof(int32_t);
    cr_expect(!memcmp(f.w.ids, again.ids, bytes), "one seed gives one order");
    cr_expect(memcmp(f.w.ids, other.ids, bytes) != 0, "another seed gives another order");
    int32_t sum = 0;
    for (int i = 0; i < 6; i++) sum += f.w.ids[5 * i + 1];
    cr_expect_eq(sum, 0 + 4 + 8 + 12 + 16 + 20, "every window once");
    end(&f);
}

Test(data_windows, too_short_says_how_much_there_is)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.count = 128;
    check_fails(QZ_FORMAT,
                "has 27 tokens, that is 6 windows of 5; 128 are wanted: give more text or lower calibration.samples",
                qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    f.rule.allow_fewer = true;
    check_ok(qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    cr_assert(f.w.count == 6);
    f.rule.length = 512;
    check_fails(QZ_FORMAT, "less than one window of 512", qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    end(&f);
}

Test(data_windows, ids_beyond_the_vocabulary_are_named)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.vocabulary = 6;
    f.rule.bos = 1;
    check_fails(QZ_FORMAT, "token 6 has id 6 (\"g\"), but the model's vocabulary has only 6 ids",
                qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    f.rule.bos = 6;
    check_fails(QZ_ARG, "BOS id 6", qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    end(&f);
}

Test(data_windows, nonsense_lengths)
{
    fixture f = begin("w.txt", alphabet);
    f.rule.length = 1;
    check_fails(QZ_ARG, "windows of 1 ids", qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    f.rule.length = 1 << 30;
    f.rule.count = INT64_MAX / 2;
    check_fails(QZ_ARG, "expected 0 (all)", qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    f.rule.count = -1;
    check_fails(QZ_ARG, "-1 windows", qz_windows_load(&f.w, &f.rule, f.t, f.arena));
    end(&f);
}

Test(data_windows, every_failing_allocation_is_reported)
{
    fixture f = begin("w.jsonl", "{\"text\": \"abcdefghijk\"}\n");
    long n = 1;
    for (;; n++) {
        cr_assert(n < 1000, "allocations never end");
        qz_alloc_fail_at(n);
        qz_status status = qz_windows_load(&f.w, &f.rule, f.t, f.arena);
        qz_alloc_fail_at(0);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 3);
    end(&f);
}
