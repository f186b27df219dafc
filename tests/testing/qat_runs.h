/* Runs of qat in small, for tests of the program: the settings that all of them share, and what they leave. */
#ifndef QZ_TESTING_QAT_RUNS_H
#define QZ_TESTING_QAT_RUNS_H

#include "base/file.h"
#include "base/json.h"
#include "testing/process.h"
#include "testing/testing.h"

static test_process process;
static qz_arena *arena;

static inline void setup(void)
{
    check_ok(qz_arena_new(&arena, "test"));
}

static inline void teardown(void)
{
    qz_arena_free(arena);
}

/* A place for the test that lasts as long as it: test_path's are written over after a while. */
static inline const char *place(const char *name)
{
    return qz_arena_strdup(arena, test_path(name));
}

static const char *const small[] = {"train.steps=2",
                                    "train.batch=2",
                                    "train.micro_batch=1",
                                    "train.sequence_length=16",
                                    "train.save_every=1",
                                    "evaluate.windows=2",
                                    "evaluate.sequence_length=32",
                                    "evaluate.accept=null",
                                    "calibration=null",
                                    "train.validation=null",
                                    "train.evaluate_every=0",
                                    "evaluate.data=demo/text/test.txt",
                                    NULL};

static inline bool has_option(const char *const *list, const char *option)
{
    for (; *list; list++)
        if (strncmp(*list, option, strlen(option)) == 0) return true;
    return false;
}

/* qat COMMAND RECIPE with the settings above and more of them, NULL-terminated; one that begins with -- is an option.
 * One thread, where nothing else is said: work this small would mostly wait for the others. */
static inline void qat_list(const char *command, const char *recipe, test_limits limits, const char *const *more)
{
    const char *argv[64] = {QAT_PATH, command, recipe};
    int n = 3;
    if (strcmp(command, "plan") != 0) argv[n++] = "--quiet";
    if (!has_option(more, "--threads")) argv[n++] = "--threads=1";
    for (int i = 0; small[i]; i++) argv[n++] = "--set", argv[n++] = small[i];
    for (; *more; more++) {
        if (strncmp(*more, "--", 2) != 0) argv[n++] = "--set";
        argv[n++] = *more;
    }
    test_process_run(&process, argv, limits);
}

#define qat(command, recipe, ...) qat_list(command, recipe, (test_limits){0}, (const char *const[]){__VA_ARGS__, NULL})
#define check_qat(command, recipe, ...)                                                                                \
    do {                                                                                                               \
        qat(command, recipe, __VA_ARGS__);                                                                             \
        cr_assert(process.exit_code == 0, "%s", process.err);                                                          \
    } while (0)
#define check_refused(code, part, command, recipe, ...)                                                                \
    do {                                                                                                               \
        qat(command, recipe, __VA_ARGS__);                                                                             \
        cr_assert(process.exit_code == (code), "exit code %d: %s", process.exit_code, process.err);                    \
        cr_assert(strstr(process.err, part) != NULL, "\"%s\" is not in: %s", part, process.err);                       \
    } while (0)

static inline const char *below(const char *folder, const char *name)
{
    return qz_arena_printf(arena, "%s/%s", folder, name);
}

static inline const char *output(const char *folder)
{
    return qz_arena_printf(arena, "--output=%s", folder);
}

/* A number of folder/report.json, by object and key. */
static inline double reported(const char *folder, const char *object, const char *member, const char *key)
{
    char *text;
    size_t size;
    qz_json *doc;
    check_ok(qz_file_read(&text, &size, below(folder, "report.json"), 1 << 22, arena));
    check_ok(qz_json_parse(&doc, text, size));
    const qz_json_node *node = qz_json_get(qz_json_root(doc), object);
    if (member) node = qz_json_get(node, member);
    cr_assert(qz_json_get(node, key) != NULL, "%s has no %s in %s", folder, key, text);
    const double found = qz_json_double(qz_json_get(node, key));
    qz_json_close(doc);
    return found;
}

static inline void check_same_file(const char *a, const char *b)
{
    char *text[2];
    size_t size[2];
    check_ok(qz_file_read(&text[0], &size[0], a, 1 << 26, arena));
    check_ok(qz_file_read(&text[1], &size[1], b, 1 << 26, arena));
    cr_assert(size[0] == size[1] && memcmp(text[0], text[1], size[0]) == 0, "%s differs from %s", a, b);
}

/* Rounding to nearest as the start: no calibration is needed. */
#define FROM_ROUNDED "weights.solver=rtn", "weights.range=minmax"

/* The perplexity that qcal finds on the windows of the tests' recipes. */
static inline double evaluated(const char *folder)
{
    qz_json *doc;
    const char *argv[] = {QCAL_PATH,           "eval", folder,   "--data", "demo/text/test.txt", "--windows", "2",
                          "--sequence-length", "32",   "--json", NULL};
    test_process_run(&process, argv, (test_limits){0});
    cr_assert(process.exit_code == 0, "%s", process.err);
    check_ok(qz_json_parse(&doc, process.out, strlen(process.out)));
    const double found = qz_json_double(qz_json_get(qz_json_root(doc), "perplexity"));
    qz_json_close(doc);
    return found;
}

#endif
