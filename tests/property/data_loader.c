/* What training data must be whatever the text: a position says all about what follows, an epoch has every window once,
 * documents are never mixed, and ids are those of the calibration rule. */
#include "base/h5.h"
#include "base/rng.h"
#include "data/data_impl.h"
#include "data/loader_impl.h"
#include "testing/small_tokenizer.h"

enum { VOCABULARY = 29, BOS = 27, EOS = 28, LONGEST = 24, MOST_TOKENS = 8192, MOST_WINDOWS = 600, MOST_IDS = 1 << 16 };

/* ---- the order ---- */

static void check_order(int64_t count, uint64_t seed, int64_t epoch)
{
    static uint8_t seen[1 << 20];
    qz_order o;
    memset(seen, 0, (size_t)count);
    qz_order_make(&o, count, seed, epoch);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = qz_order_at(&o, i);
        cr_assert(at >= 0 && at < count && !seen[at], "%lld of %lld: %lld", (long long)i, (long long)count,
                  (long long)at);
        seen[at] = 1;
    }
}

Test(data_loader_order, each_number_once)
{
    for (int64_t count = 1; count < 700; count++) check_order(count, (uint64_t)count, count % 3);
    check_order((1 << 16) - 1, 1, 0);
    check_order(1 << 16, 1, 0);
    check_order((1 << 16) + 1, 1, 0);
    check_order(1000003, 1, 7);
}

/* Where each of ten things stands is nearly even over many epochs: 99.9 % of chi-square with 9 degrees is below 27.9,
 * and seeds are fixed. */
Test(data_loader_order, no_place_is_preferred)
{
    enum { COUNT = 10, EPOCHS = 20000 };
    static int found[COUNT][COUNT];
    qz_order o;
    for (int e = 0; e < EPOCHS; e++) {
        qz_order_make(&o, COUNT, 5, e);
        for (int i = 0; i < COUNT; i++) found[i][qz_order_at(&o, i)]++;
    }
    for (int i = 0; i < COUNT; i++) {
        double chi = 0, mean = EPOCHS / COUNT;
        for (int j = 0; j < COUNT; j++) chi += (found[i][j] - mean) * (found[i][j] - mean) / mean;
        cr_expect_lt(chi, 27.9, "place %d", i);
    }
}

Test(data_loader_order, epochs_and_seeds_differ)
{
    qz_order a, b, c;
    int same_b = 0, same_c = 0;
    qz_order_make(&a, 1000, 1, 0);
    qz_order_make(&b, 1000, 1, 1);
    qz_order_make(&c, 1000, 2, 0);
    for (int i = 0; i < 1000; i++) {
        same_b += qz_order_at(&a, i) == qz_order_at(&b, i);
        same_c += qz_order_at(&a, i) == qz_order_at(&c, i);
    }
    cr_expect(same_b < 10 && same_c < 10, "%d and %d places agree by chance, about 1 is expected", same_b, same_c);
}

Test(data_loader_order, huge_counts_stay_inside)
{
    qz_order o;
    for (int64_t count = (int64_t)1 << 40; count > 0 && count < (int64_t)1 << 61; count *= 3) {
        qz_order_make(&o, count, 3, 1);
        for (int64_t i = 0; i < 1000; i++) {
            int64_t at = qz_order_at(&o, count - 1 - i);
            cr_assert(at >= 0 && at < count);
        }
    }
}

/* ---- random documents ---- */

typedef struct corpus {
    int32_t id[MOST_TOKENS];
    bool counts[MOST_TOKENS], begins[MOST_TOKENS];
    int count;
} corpus;

typedef struct fixture {
    qz_tokenizer *t;
    qz_loader *s;
    qz_loader_rule rule;
    corpus want;
} fixture;

static void put(corpus *c, int32_t id, bool counts, bool begins)
{
    cr_assert(c->count < MOST_TOKENS);
    c->id[c->count] = id;
    c->counts[c->count] = counts;
    c->begins[c->count++] = begins;
}

/* Letters only, so that what a document must become is plain. */
static void random_document(fixture *f, FILE *file, qz_rng *r)
{
    char text[64];
    int size = (int)qz_rng_below(r, 40), prompt = qz_rng_below(r, 2) ? (int)qz_rng_below(r, (uint64_t)size + 1) : -1;
    bool begins = true;
    for (int i = 0; i < size; i++) text[i] = (char)('a' + qz_rng_below(r, 26));
    if (prompt < 0)
        fprintf(file, "{\"text\": \"%.*s\"}\n", size, text);
    else
        fprintf(file, "{\"prompt\": \"%.*s\", \"completion\": \"%.*s\"}\n", prompt, text, size - prompt, text + prompt);
    if (size == 0) return;
    if (f->rule.bos >= 0) put(&f->want, f->rule.bos, true, true), begins = false;
    for (int i = 0; i < size; i++) put(&f->want, text[i] - 'a', i >= prompt, begins && i == 0);
    if (f->rule.eos >= 0) put(&f->want, f->rule.eos, true, false);
}

static void begin(fixture *f, uint64_t seed)
{
    char vocab[1024] = "\"\\n\": 26";
    qz_rng r;
    qz_rng_seed(&r, seed, 0);
    for (int c = 0; c < 26; c++) sprintf(vocab + strlen(vocab), ", \"%c\": %d", 'a' + c, c);
    *f = (fixture){.t = small_open(small_json(vocab, "", "", ""))};
    f->rule = (qz_loader_rule){.path = test_path("p.jsonl"), .folder = test_folder(), .seed = seed};
    f->rule.length = 1 + (int64_t)qz_rng_below(&r, LONGEST);
    f->rule.bos = qz_rng_below(&r, 2) ? BOS : -1;
    f->rule.eos = qz_rng_below(&r, 2) ? EOS : -1;
    f->rule.vocabulary = qz_rng_below(&r, 2) ? VOCABULARY : 0; /* two bytes an id, or four */
    f->rule.shuffle = qz_rng_below(&r, 2);
    FILE *file = fopen(f->rule.path, "w");
    cr_assert_not_null(file);
    for (int i = 5 + (int)qz_rng_below(&r, 60); i > 0; i--) random_document(f, file, &r);
    fclose(file);
    check_ok(qz_loader_open(&f->s, &f->rule, f->t));
}

static void end(fixture *f)
{
    qz_loader_close(f->s);
    qz_tokenizer_close(f->t);
}

static void take(qz_loader *s, int32_t *ids, int32_t *labels, int32_t *first, int64_t count)
{
    qz_loader_batch b = {.ids = ids, .labels = labels, .first = first};
    int64_t targets = 0;
    check_ok(qz_loader_next(s, &b, count));
    for (int64_t i = 0; i < count * b.length; i++) targets += labels[i] != QZ_LABEL_NONE;
    cr_assert_eq(b.targets, targets);
}

/* The window that begins with token `start` of all documents, by the words of the rule. */
static void check_window(const fixture *f, int start, const int32_t *ids, const int32_t *labels, const int32_t *first)
{
    const corpus *c = &f->want;
    for (int i = 0, begun = 0; i < f->rule.length; i++) {
        int at = start + i, next = at + 1;
        if (c->begins[at]) begun = i;
        bool counts = next < c->count && !c->begins[next] && c->counts[next];
        cr_assert_eq(ids[i], c->id[at]);
        cr_assert_eq(first[i], begun, "window at %d, token %d: %d, expected %d", start, i, (int)first[i], begun);
        cr_assert_eq(labels[i], counts ? c->id[next] : QZ_LABEL_NONE, "window at %d, token %d", start, i);
    }
}

Test(data_loader, documents_are_packed_by_the_rule)
{
    static fixture f;
    static int32_t ids[LONGEST], labels[LONGEST], first[LONGEST];
    for (uint64_t seed = 0; seed < 60; seed++) {
        begin(&f, seed);
        cr_assert_eq(qz_loader_tokens(f.s), f.want.count);
        cr_assert_eq(qz_loader_windows(f.s), f.want.count / f.rule.length);
        for (int64_t w = 0; w < qz_loader_windows(f.s); w++) {
            qz_order o;
            qz_order_make(&o, qz_loader_windows(f.s), f.rule.seed, 0);
            take(f.s, ids, labels, first, 1);
            check_window(&f, (int)((f.rule.shuffle ? qz_order_at(&o, w) : w) * f.rule.length), ids, labels, first);
        }
        end(&f);
    }
}

/* Three epochs in batches of one, then from random places in batches of other sizes, by another loader. */
Test(data_loader, a_position_says_all)
{
    static fixture f;
    static int32_t ids[4][MOST_IDS], labels[4][MOST_IDS], first[4][MOST_IDS];
    for (uint64_t seed = 100; seed < 130; seed++) {
        begin(&f, seed);
        int64_t windows = qz_loader_windows(f.s), length = f.rule.length, all = 3 * windows;
        cr_assert(all * length <= MOST_IDS);
        for (int64_t i = 0; i < all; i++)
            take(f.s, ids[0] + i * length, labels[0] + i * length, first[0] + i * length, 1);
        qz_loader_close(f.s);
        check_ok(qz_loader_open(&f.s, &f.rule, f.t));
        qz_rng r;
        qz_rng_seed(&r, seed, 9);
        for (int tries = 0; tries < 30; tries++) {
            int64_t from = (int64_t)qz_rng_below(&r, (uint64_t)all);
            int64_t most = all - from < windows ? all - from : windows;
            int64_t count = 1 + (int64_t)qz_rng_below(&r, (uint64_t)most), next = from + count;
            check_ok(qz_loader_seek(f.s, (qz_loader_position){from / windows, from % windows}));
            take(f.s, ids[1], labels[1], first[1], count);
            size_t bytes = (size_t)(count * length) * sizeof(int32_t);
            cr_assert(memcmp(ids[0] + from * length, ids[1], bytes) == 0, "seed %d, ids from %d on", (int)seed,
                      (int)from);
            cr_assert(memcmp(labels[0] + from * length, labels[1], bytes) == 0);
            cr_assert(memcmp(first[0] + from * length, first[1], bytes) == 0);
            qz_loader_position at = qz_loader_position_of(f.s);
            cr_assert(at.epoch == next / windows && at.index == next % windows);
        }
        end(&f);
    }
}

/* ---- the calibration rule ---- */

static void check_same_as_windows(const char *path, const qz_tokenizer *t, int32_t bos, int64_t length, bool shuffle)
{
    static int32_t ids[1024], labels[1024], first[1024];
    static uint8_t seen[1 << 16];
    qz_arena *arena;
    qz_windows w;
    qz_loader *s;
    qz_windows_rule want = {.path = path, .length = length, .bos = bos};
    qz_loader_rule rule = {.path = path, .length = length, .bos = bos, .eos = -1, .shuffle = shuffle};
    rule.pack = QZ_LOADER_STREAM;
    rule.folder = test_folder();
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_windows_load(&w, &want, t, arena));
    check_ok(qz_loader_open(&s, &rule, t));
    cr_assert_eq(qz_loader_tokens(s), w.tokens);
    cr_assert_eq(qz_loader_windows(s), w.count);
    memset(seen, 0, sizeof seen);
    qz_order o;
    qz_order_make(&o, w.count, 0, 0);
    for (int64_t i = 0; i < w.count; i++) {
        int64_t window = shuffle ? qz_order_at(&o, i) : i;
        take(s, ids, labels, first, 1);
        cr_assert(memcmp(ids, w.ids + window * length, (size_t)length * sizeof *ids) == 0, "window %d", (int)window);
        cr_assert(memcmp(labels, ids + 1, (size_t)(length - 1) * sizeof *ids) == 0, "window %d", (int)window);
        int64_t after = window + 1 < w.count ? w.ids[(window + 1) * length + (bos >= 0)] : labels[length - 1];
        cr_assert_eq(labels[length - 1], after, "the last label is the text's next id");
        seen[window]++;
    }
    for (int64_t i = 0; i < w.count; i++) cr_assert_eq(seen[i], 1);
    qz_loader_close(s);
    qz_arena_free(arena);
}

/* The demo text has more ids than are read or written at once. */
Test(data_loader, ids_are_those_of_calibration)
{
    qz_tokenizer *t;
    check_ok(qz_tokenizer_open(&t, "demo/model/tokenizer.json"));
    check_same_as_windows("demo/text/calib.txt", t, 0, 128, false);
    check_same_as_windows("demo/text/calib.txt", t, 0, 1000, true);
    check_same_as_windows("demo/text/calib.txt", t, -1, 77, true);
    qz_tokenizer_close(t);
}

Test(data_loader, ids_are_those_of_calibration_with_other_line_ends)
{
    static const char text[] = "A line.\r\nAnother one.\rAnd \r\r\n\r one more.\n";
    qz_tokenizer *t;
    check_ok(qz_tokenizer_open(&t, "demo/model/tokenizer.json"));
    test_write_file(test_path("lines.txt"), text, strlen(text));
    check_same_as_windows(test_path("lines.txt"), t, 0, 5, false);
    qz_tokenizer_close(t);
}

Test(data_loader, ids_of_hdf5_come_in_blocks)
{
    static int64_t ids[200000];
    uint64_t count = sizeof ids / sizeof *ids;
    qz_h5 *file;
    for (uint64_t i = 0; i < count; i++) ids[i] = (int64_t)(i * 7919 % 100003);
    check_ok(qz_h5_create(&file, test_path("b.h5")));
    check_ok(qz_h5_write(file, "ids", QZ_H5_I64, ids, 1, &count));
    check_ok(qz_h5_close(file));
    check_same_as_windows(test_path("b.h5"), NULL, 1, 100, true);
}

/* ---- text that is larger than memory ---- */

/* Tokenizers that write the text anew on the way, each in a way of its own. */
static const struct {
    const char *name, *rest;
} pipelines[] = {
    {"prepend and replace",
     ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"_\"}, "
     "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"_\"}]}, \"pre_tokenizer\": {\"type\": "
     "\"Split\", \"pattern\": {\"String\": \"_\"}, \"behavior\": \"Isolated\", \"invert\": false}"},
    {"metaspace",
     ", \"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": "
     "\"_\", \"prepend_scheme\": \"first\", \"split\": true}"},
    {"space in front", ", \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\", "
                       "\"add_prefix_space\": true, \"use_regex\": true}]}"},
};
enum { PIPELINES = sizeof pipelines / sizeof pipelines[0] };

static qz_tokenizer *open_pipeline(int i)
{
    char vocab[2048] =
        "\"_\": 26, \" \": 27, \"\\n\": 28, \"\xc4\xa0\": 29, \"\xc4\x8a\": 30, \"ab\": 31, \"e\xcc\x81\": 32, "
        "\"\xc3\xa9\": 33, \"\xc3\x83\": 34, \"\xc2\xa9\": 35, \"\xcc\x81\": 36";
    for (int c = 0; c < 26; c++) sprintf(vocab + strlen(vocab), ", \"%c\": %d", 'a' + c, c);
    return small_open(small_json(vocab, "\"a b\"", "", pipelines[i].rest));
}

static char *random_text(size_t size, uint64_t seed)
{
    static const char *const pieces[] = {"ab",    "cde",   " ",         "  ",       "\n",
                                         "fghab", " a b ", "e\xcc\x81", "\xc3\xa9", "\r\n"};
    qz_rng r;
    size_t n = 0;
    char *text = malloc(size + 16);
    cr_assert_not_null(text);
    qz_rng_seed(&r, seed, 0);
    while (n < size) {
        const char *piece = pieces[qz_rng_below(&r, sizeof pieces / sizeof *pieces)];
        strcpy(text + n, piece);
        n += strlen(piece);
    }
    return text;
}

Test(data_loader, long_text_on_disk_gives_the_same_ids)
{
    char *text = random_text(5 << 18, 1);
    test_write_file(test_path("long.txt"), text, strlen(text));
    for (int i = 0; i < PIPELINES; i++) {
        qz_tokenizer *t = open_pipeline(i);
        qz_loader_rule rule = {.path = test_path("long.txt"), .length = 1000, .bos = -1, .eos = -1};
        qz_windows_rule plain = {.path = rule.path, .bos = -1};
        static int32_t ids[1000], labels[1000], first[1000];
        qz_arena *arena;
        qz_ids want;
        qz_loader *s;
        rule.folder = test_folder();
        check_ok(qz_arena_new(&arena, "test"));
        check_ok(qz_documents_read(&want, &plain, t, SIZE_MAX, arena)); /* all in memory */
        cr_assert_gt(want.count, 1 << 18, "%s", pipelines[i].name);
        check_ok(qz_loader_open(&s, &rule, t));
        cr_assert_eq(qz_loader_tokens(s), (int64_t)want.count, "%s", pipelines[i].name);
        for (int64_t w = 0; w < qz_loader_windows(s); w++) {
            take(s, ids, labels, first, 1);
            cr_assert(memcmp(ids, want.id + w * 1000, sizeof ids) == 0, "%s: window %d", pipelines[i].name, (int)w);
        }
        qz_loader_close(s);
        qz_arena_free(arena);
        qz_tokenizer_close(t);
    }
    free(text);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they take memory of their own */

#include <sys/resource.h>
#include <unistd.h>

/* What the process may allocate from now on. Maps of files that are shared do not count. */
static void allow_more(size_t bytes)
{
    size_t size, resident, shared, text, library, data;
    FILE *f = fopen("/proc/self/statm", "r");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%zu %zu %zu %zu %zu %zu", &size, &resident, &shared, &text, &library, &data), 6);
    fclose(f);
    struct rlimit limit = {data * (size_t)sysconf(_SC_PAGESIZE) + bytes, RLIM_INFINITY};
    cr_assert(setrlimit(RLIMIT_DATA, &limit) == 0);
}

/* 11 MiB, of which 4 are for words that were seen, for a text of 14 and its ids; a buffer of 12 MiB is refused. */
Test(data_loader, a_text_may_be_larger_than_memory)
{
    enum { TEXT = 14 << 20, LIMIT = 11 << 20 };
    char *text = random_text(TEXT, 2);
    test_write_file(test_path("larger.txt"), text, strlen(text));
    free(text);
    allow_more(LIMIT);
    cr_assert_null(qz_malloc(12 << 20));
    for (int i = 0; i < PIPELINES; i++) {
        qz_tokenizer *t = open_pipeline(i);
        qz_loader_rule rule = {.path = test_path("larger.txt"), .length = 100, .bos = -1, .eos = -1, .shuffle = true};
        int32_t ids[100], labels[100], first[100];
        qz_loader *s;
        rule.vocabulary = 40;
        rule.folder = test_folder();
        check_ok(qz_loader_open(&s, &rule, t));
        cr_assert_gt(qz_loader_tokens(s), 3 << 20, "%s", pipelines[i].name);
        take(s, ids, labels, first, 1);
        qz_loader_close(s);
        qz_tokenizer_close(t);
    }
}

#endif
