/* Windows and labels of the training loader, by hand. Letters are ids 0 to 25. */
#include "base/h5.h"
#include "data/data.h"
#include "data/loader_impl.h"
#include "testing/small_tokenizer.h"

enum { MOST = 4096, BOS = 30, EOS = 31, PIPE = 27, SPACE = 28, JOINED = 29, NONE = QZ_LABEL_NONE };

/* "\n" is 26, "|" 27, " " 28 and "ab" 29. */
static qz_tokenizer *letters(void)
{
    char vocab[1024] = "\"\\n\": 26, \"|\": 27, \" \": 28, \"ab\": 29";
    for (int c = 0; c < 26; c++) sprintf(vocab + strlen(vocab), ", \"%c\": %d", 'a' + c, c);
    return small_open(small_json(vocab, "\"a b\"", "", ""));
}

typedef struct fixture {
    qz_tokenizer *t;
    qz_loader *s;
    qz_loader_rule rule;
    int32_t ids[MOST], labels[MOST], first[MOST];
    qz_loader_batch batch;
} fixture;

static void begin(fixture *f, const char *name, const char *text)
{
    *f = (fixture){.t = letters()};
    f->batch = (qz_loader_batch){.ids = f->ids, .labels = f->labels, .first = f->first};
    test_write_file(test_path(name), text, strlen(text));
    f->rule = (qz_loader_rule){.path = test_path(name), .length = 4, .bos = BOS, .eos = EOS};
    f->rule.folder = test_folder();
    f->rule.vocabulary = 32;
}

static void end(fixture *f)
{
    qz_loader_close(f->s);
    qz_tokenizer_close(f->t);
}

static void check_array(const char *what, const int32_t *got, const int32_t *want, int count)
{
    for (int i = 0; i < count; i++)
        cr_expect_eq(got[i], want[i], "%s %d: %d, expected %d", what, i, (int)got[i], (int)want[i]);
}

/* The next window is this one. */
static void check_window(fixture *f, const int32_t *ids, const int32_t *labels, const int32_t *first)
{
    int count = (int)f->rule.length, targets = 0;
    check_ok(qz_loader_next(f->s, &f->batch, 1));
    cr_assert(f->batch.sequences == 1 && f->batch.length == count);
    check_array("id", f->ids, ids, count);
    check_array("label", f->labels, labels, count);
    check_array("first", f->first, first, count);
    for (int i = 0; i < count; i++) targets += labels[i] != NONE;
    cr_expect_eq(f->batch.targets, targets);
}

static void open_it(fixture *f)
{
    check_ok(qz_loader_open(&f->s, &f->rule, f->t));
}

#define LIST(...) ((int32_t[]){__VA_ARGS__})
#define ZEROS LIST(0, 0, 0, 0)

Test(data_loader, text_is_cut_as_for_calibration)
{
    fixture f;
    begin(&f, "s.txt", "cdefghijk");
    open_it(&f);
    cr_assert(qz_loader_windows(f.s) == 3 && qz_loader_tokens(f.s) == 9 && !qz_loader_packs(f.s));
    check_window(&f, LIST(BOS, 2, 3, 4), LIST(2, 3, 4, 5), ZEROS);
    check_window(&f, LIST(BOS, 5, 6, 7), LIST(5, 6, 7, 8), ZEROS);
    check_window(&f, LIST(BOS, 8, 9, 10), LIST(8, 9, 10, NONE), ZEROS);
    check_window(&f, LIST(BOS, 2, 3, 4), LIST(2, 3, 4, 5), ZEROS);
    cr_assert(qz_loader_position_of(f.s).epoch == 1 && qz_loader_position_of(f.s).index == 1);
    end(&f);
}

Test(data_loader, text_without_bos)
{
    fixture f;
    begin(&f, "s.txt", "cdefghijk");
    f.rule.bos = -1;
    open_it(&f);
    cr_assert(qz_loader_windows(f.s) == 2);
    check_window(&f, LIST(2, 3, 4, 5), LIST(3, 4, 5, 6), ZEROS);
    check_window(&f, LIST(6, 7, 8, 9), LIST(7, 8, 9, 10), ZEROS);
    end(&f);
}

Test(data_loader, line_ends_are_read_as_python_reads_them)
{
    fixture f;
    begin(&f, "s.txt", "c\r\nd\re\n\r\n");
    f.rule.length = 7;
    open_it(&f);
    check_window(&f, LIST(BOS, 2, 26, 3, 26, 4, 26), LIST(2, 26, 3, 26, 4, 26, 26), LIST(0, 0, 0, 0, 0, 0, 0));
    end(&f);
}

Test(data_loader, documents_stay_apart)
{
    fixture f;
    begin(&f, "s.jsonl", "{\"text\": \"cd\"}\n{\"text\": \"\"}\n{\"text\": \"efghi\"}\n{\"text\": \"j\"}\n");
    open_it(&f);
    cr_assert(qz_loader_windows(f.s) == 3 && qz_loader_tokens(f.s) == 14 && qz_loader_packs(f.s));
    check_window(&f, LIST(BOS, 2, 3, EOS), LIST(2, 3, EOS, NONE), ZEROS);
    check_window(&f, LIST(BOS, 4, 5, 6), LIST(4, 5, 6, 7), ZEROS);
    check_window(&f, LIST(7, 8, EOS, BOS), LIST(8, EOS, NONE, 9), LIST(0, 0, 0, 3));
    end(&f);
}

Test(data_loader, documents_without_bos_and_eos)
{
    fixture f;
    begin(&f, "s.jsonl", "{\"text\": \"cd\"}\n{\"text\": \"efghi\"}\n");
    f.rule.bos = f.rule.eos = -1;
    open_it(&f);
    check_window(&f, LIST(2, 3, 4, 5), LIST(3, NONE, 5, 6), LIST(0, 0, 2, 2));
    end(&f);
}

Test(data_loader, lines_as_one_text)
{
    fixture f;
    begin(&f, "s.jsonl", "{\"text\": \"cd\"}\n{\"text\": \"efghi\"}\n");
    f.rule.pack = QZ_LOADER_STREAM;
    open_it(&f);
    check_window(&f, LIST(BOS, 2, 3, 4), LIST(2, 3, 4, 5), ZEROS);
    end(&f);
}

Test(data_loader, a_text_may_be_one_document)
{
    fixture f;
    begin(&f, "s.txt", "cdef");
    f.rule.pack = QZ_LOADER_DOCUMENTS;
    f.rule.length = 6;
    open_it(&f);
    check_window(&f, LIST(BOS, 2, 3, 4, 5, EOS), LIST(2, 3, 4, 5, EOS, NONE), LIST(0, 0, 0, 0, 0, 0));
    end(&f);
}

/* "ab" is one id, and only b is of the completion: it counts. */
Test(data_loader, prompts_do_not_count)
{
    fixture f;
    begin(&f, "s.jsonl",
          "{\"prompt\": \"cd\", \"completion\": \"ef\"}\n{\"prompt\": \"ca\", \"completion\": \"bc\"}\n");
    f.rule.length = 11;
    open_it(&f);
    check_window(&f, LIST(BOS, 2, 3, 4, 5, EOS, BOS, 2, JOINED, 2, EOS),
                 LIST(NONE, NONE, 4, 5, EOS, NONE, NONE, JOINED, 2, EOS, NONE), LIST(0, 0, 0, 0, 0, 0, 6, 6, 6, 6, 6));
    end(&f);
}

Test(data_loader, an_empty_completion_is_the_end_only)
{
    fixture f;
    begin(&f, "s.jsonl", "{\"prompt\": \"cd\", \"completion\": \"\"}\n");
    open_it(&f);
    check_window(&f, LIST(BOS, 2, 3, EOS), LIST(NONE, NONE, EOS, NONE), ZEROS);
    end(&f);
}

/* One text of windows has no end of a document that would count. */
Test(data_loader, text_that_teaches_nothing)
{
    fixture f;
    begin(&f, "s.jsonl", "{\"prompt\": \"cdef\", \"completion\": \"\"}\n{\"prompt\": \"cd\", \"completion\": \"\"}\n");
    f.rule.pack = QZ_LOADER_STREAM;
    check_fails(QZ_FORMAT, "s.jsonl has 6 tokens, and none of them is to be learned: all belong to prompts; give",
                qz_loader_open(&f.s, &f.rule, f.t));
    end(&f);
}

static void with_h5(fixture *f, const int64_t *ids, uint64_t count)
{
    qz_h5 *file;
    begin(f, "s.h5", "");
    check_ok(qz_h5_create(&file, f->rule.path));
    check_ok(qz_h5_write(file, "ids", QZ_H5_I64, ids, 1, &count));
    check_ok(qz_h5_close(file));
}

Test(data_loader, ids_from_hdf5)
{
    fixture f;
    with_h5(&f, (int64_t[]){1, 2, 70000, 4}, 4);
    f.rule.vocabulary = 0;
    check_ok(qz_loader_open(&f.s, &f.rule, NULL));
    check_window(&f, LIST(BOS, 1, 2, 70000), LIST(1, 2, 70000, 4), ZEROS);
    qz_loader_close(f.s);
    f.rule.vocabulary = 70000;
    check_fails(QZ_FORMAT, "token 2 has id 70000, but the model's vocabulary has only 70000 ids",
                qz_loader_open(&f.s, &f.rule, NULL));
    f.rule.vocabulary = 70001;
    check_ok(qz_loader_open(&f.s, &f.rule, NULL));
    check_window(&f, LIST(BOS, 1, 2, 70000), LIST(1, 2, 70000, 4), ZEROS);
    end(&f);
}

Test(data_loader, too_little_says_how_much)
{
    fixture f;
    begin(&f, "s.txt", "cdefghijk");
    f.rule.length = 20;
    check_fails(QZ_FORMAT, "s.txt has 9 tokens, less than one window, which takes 19",
                qz_loader_open(&f.s, &f.rule, f.t));
    f.rule.length = 4;
    f.rule.batch = 4;
    check_fails(QZ_FORMAT, "s.txt has 9 tokens, that is 3 windows of 4; a batch takes 4 (12 tokens)",
                qz_loader_open(&f.s, &f.rule, f.t));
    cr_assert_null(f.s);
    f.rule.batch = 3;
    open_it(&f);
    check_ok(qz_loader_next(f.s, &f.batch, 3));
    check_fails(QZ_FORMAT, "a batch takes 4", qz_loader_next(f.s, &f.batch, 4));
    cr_assert(qz_loader_position_of(f.s).epoch == 1 && qz_loader_position_of(f.s).index == 0);
    end(&f);
}

static void check_open_fails(const char *name, const char *text, qz_status code, const char *part)
{
    fixture f;
    begin(&f, name, text);
    check_fails(code, part, qz_loader_open(&f.s, &f.rule, f.t));
    end(&f);
}

Test(data_loader, what_is_wrong_is_named)
{
    check_open_fails("w.txt", "", QZ_FORMAT, "w.txt: the file is empty");
    check_open_fails("w.txt", "ab\xff", QZ_FORMAT, "w.txt: not UTF-8 text: byte 0xff at offset 2");
    check_open_fails("w.csv", "ab", QZ_ARG, "known suffixes");
    check_open_fails("w.jsonl", "{\"text\": \"a\"}\n{\"text\": \"a\"\n", QZ_FORMAT, "w.jsonl:2: ");
    check_open_fails(
        "w.jsonl", "\n{\"prompt\": \"a\"}\n", QZ_FORMAT,
        "w.jsonl:2: the field \"text\" is missing, and there are neither messages nor prompt and completion");
    check_open_fails("w.jsonl", "{\"prompt\": \"a\", \"completion\": 5}\n", QZ_FORMAT,
                     "w.jsonl:1: completion: found 5");
    check_open_fails("w.jsonl", "{\"messages\": []}\n", QZ_ARG, "w.jsonl:1: the line holds a conversation");
}

Test(data_loader, rules_that_cannot_be_are_refused)
{
    fixture f;
    begin(&f, "s.txt", "cdefghijk");
    f.rule.length = 1;
    check_fails(QZ_ARG, "windows of 1 ids", qz_loader_open(&f.s, &f.rule, f.t));
    f.rule.length = 4;
    f.rule.eos = 32;
    check_fails(QZ_ARG, "EOS id 32", qz_loader_open(&f.s, &f.rule, f.t));
    f.rule.eos = EOS;
    f.rule.folder = NULL;
    check_fails(QZ_ARG, "no folder", qz_loader_open(&f.s, &f.rule, f.t));
    f.rule.folder = "/no/such/folder";
    check_fails(QZ_IO, "/no/such/folder: cannot hold", qz_loader_open(&f.s, &f.rule, f.t));
    f.rule.folder = test_folder();
    f.rule.vocabulary = 5;
    f.rule.bos = f.rule.eos = -1;
    check_fails(QZ_FORMAT, "token 3 has id 5 (\"f\")", qz_loader_open(&f.s, &f.rule, f.t));
    check_fails(QZ_ARG, "text needs a tokenizer", qz_loader_open(&f.s, &f.rule, NULL));
    end(&f);
}

Test(data_loader, seeking_beyond_the_data_is_refused)
{
    fixture f;
    begin(&f, "s.txt", "cdefghijk");
    open_it(&f);
    check_ok(qz_loader_seek(f.s, (qz_loader_position){7, 2}));
    check_fails(QZ_FORMAT, "no window 3 in epoch 0: an epoch has 3 windows",
                qz_loader_seek(f.s, (qz_loader_position){0, 3}));
    check_fails(QZ_FORMAT, "no window -1", qz_loader_seek(f.s, (qz_loader_position){0, -1}));
    check_fails(QZ_FORMAT, "epoch -1", qz_loader_seek(f.s, (qz_loader_position){-1, 0}));
    cr_assert(qz_loader_position_of(f.s).epoch == 7);
    end(&f);
}

static void check_hash(const char *name, const char *text, const char *hash, bool same)
{
    fixture f;
    begin(&f, name, text);
    open_it(&f);
    cr_expect_eq(strcmp(qz_loader_hash(f.s), hash) == 0, same, "%s: hash %s", text, qz_loader_hash(f.s));
    end(&f);
}

Test(data_loader, the_hash_is_that_of_ids_and_of_what_counts)
{
    char hash[QZ_HASH_TEXT];
    fixture f;
    begin(&f, "h.jsonl", "{\"text\": \"cdefg\"}\n");
    open_it(&f);
    strcpy(hash, qz_loader_hash(f.s));
    end(&f);
    check_hash("h.jsonl", "{ \"text\": \"cdefg\", \"id\": 1}\n", hash, true);
    check_hash("h.jsonl", "{\"text\": \"cdefh\"}\n", hash, false);
    check_hash("h.jsonl", "{\"prompt\": \"cd\", \"completion\": \"efg\"}\n", hash, false);
}

/* ---- conversations ---- */

#define CHATML                                                                                                         \
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' "   \
    "}}{% endfor %}"

enum { USER = 34, ASSISTANT = 35, START = 36, STOP = 37, LINE = 26 };

static void begin_chat(fixture *f, const char *lines)
{
    static const char added[] = ", \"added_tokens\": [{\"id\": 36, \"content\": \"<|im_start|>\", \"special\": true}, "
                                "{\"id\": 37, \"content\": \"<|im_end|>\", \"special\": true}]";
    static const char vocab[] =
        "\"a\": 0, \"b\": 1, \"c\": 2, \"\\n\": 26, \"ab\": 29, \"\\nc\": 30, \"\\n\\n\": 31, \"s\": 3, \"i\": 4, "
        "\"t\": 5, \"n\": 6, \"u\": 7, \"e\": 8, \"r\": 9, \"us\": 10, \"er\": 11, \"as\": 12, \"si\": 13, \"st\": 14, "
        "\"an\": 15, \"assi\": 16, \"stan\": 17, \"assistan\": 18, \"user\": 34, \"assistant\": 35, \"d\": 19, \"f\": "
        "20, \"g\": 21, \"h\": 22, \"j\": 23, \"k\": 24, \"l\": 25, \"m\": 27, \"o\": 28, \"p\": 32, \"q\": 33";
    static const char merges[] =
        "\"us er\", \"u s\", \"e r\", \"a s\", \"s i\", \"s t\", \"a n\", \"as si\", \"st an\", "
        "\"assi stan\", \"assistan t\", \"a b\", \"\\n c\", \"\\n \\n\"";
    begin(f, "c.jsonl", lines);
    qz_tokenizer_close(f->t);
    f->t = small_open(small_json(vocab, merges, "", added));
    test_write_file(test_path("tokenizer_config.json"), "{}", 2);
    test_write_file(test_path("chat_template.jinja"), CHATML, strlen(CHATML));
    f->rule.model = test_folder();
    f->rule.vocabulary = 40;
}

/* What the assistant says counts, its end included; the template's frame is all there is: no BOS, no EOS. */
Test(data_loader, answers_count)
{
    fixture f;
    begin_chat(&f,
               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
               "\"ab\"}, {\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n");
    f.rule.length = 24;
    open_it(&f);
    cr_assert_eq(qz_loader_tokens(f.s), 24);
    check_window(&f,
                 LIST(START, USER, LINE, 0, STOP, LINE, START, ASSISTANT, LINE, JOINED, STOP, LINE, START, USER, LINE,
                      1, STOP, LINE, START, ASSISTANT, LINE, 1, STOP, LINE),
                 LIST(NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, JOINED, STOP, NONE, NONE, NONE, NONE, NONE, NONE,
                      NONE, NONE, NONE, NONE, 1, STOP, NONE, NONE),
                 (int32_t[24]){0});
    end(&f);
}

/* "\nc" is one id, partly the assistant's: it counts. */
Test(data_loader, an_id_over_the_border_is_the_assistants)
{
    fixture f;
    begin_chat(&f, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"c\"}]}\n");
    f.rule.length = 5;
    open_it(&f);
    check_window(&f, LIST(START, ASSISTANT, 30, STOP, LINE), LIST(NONE, 30, STOP, NONE, NONE), (int32_t[5]){0});
    end(&f);
}

/* Every allocation may fail; the answer is then QZ_MEMORY. */
Test(data_loader, memory_may_be_short)
{
    fixture f;
    begin_chat(&f, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"c\"}]}\n{\"text\": \"ab\"}\n"
                   "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    long n = 1;
    for (; n < 10000; n++) {
        qz_alloc_fail_at(n);
        qz_status status = qz_loader_open(&f.s, &f.rule, f.t);
        qz_alloc_fail_at(0);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && !f.s, "allocation %ld: %s", n, qz_error_message());
    }
    cr_assert(n > 10 && n < 10000);
    end(&f);
}

/* ---- progress ---- */

typedef struct told {
    qz_progress_state last;
    char phase[32];
    int stop;
} told;

static int tell(void *context, const qz_progress_state *state)
{
    told *t = context;
    t->last = *state;
    snprintf(t->phase, sizeof t->phase, "%s", state->phase);
    return t->stop;
}

static void check_progress(const char *name, const char *text)
{
    fixture f;
    told seen = {0};
    begin(&f, name, text);
    check_ok(qz_progress_new(&f.rule.progress, tell, &seen));
    open_it(&f);
    cr_assert_str_eq(seen.phase, "tokenize");
    cr_assert(seen.last.finished && seen.last.total == strlen(text) && seen.last.done == seen.last.total, "%s: %llu",
              name, (unsigned long long)seen.last.done);
    qz_loader_close(f.s);
    seen.stop = 1;
    check_fails(QZ_INTERRUPTED, "tokenize", qz_loader_open(&f.s, &f.rule, f.t));
    qz_progress_free(f.rule.progress);
    end(&f);
}

Test(data_loader, bytes_are_counted_and_it_can_be_stopped)
{
    check_progress("p.txt", "cdefghijk\r\ncd");
    check_progress("p.jsonl", "{\"text\": \"cdefgh\"}\n\n{\"text\": \"cdefgh\"}");
}
