/* State files: what is written is read bit for bit; a file that is cut off, spoiled or half written is not taken for a
 * whole one; one of another run is refused and says what changed. */
#include "train/state.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/h5.h"
#include "base/log.h"
#include "base/rng.h"
#include "testing/testing.h"

enum { ROWS = 5, COLS = 7, CODES = 300, TENSORS = 4, INTEGERS = 2, NUMBERS = 2, TEXTS = 3 };

/* Everything that a state is made of, and the list of it. */
typedef struct run {
    float weights[ROWS * COLS];
    double sums[3];
    uint8_t codes[CODES];
    uint64_t generator[4];
    int64_t position, seed;
    double best, loss;
    qz_state_tensor tensor[TENSORS];
    qz_state_integer integer[INTEGERS];
    qz_state_number number[NUMBERS];
    qz_state_text text[TEXTS];
    qz_state state;
} run;

static const char recipe[] = "{\"model\":\"demo\",\"train\":{\"steps\":100,\"betas\":[0.9,0.95],\"shuffle\":true}}";

static void list(run *r)
{
    r->tensor[0] = (qz_state_tensor){"parameters/model.norm.weight", qz_tensor_2d(r->weights, QZ_F32, ROWS, COLS)};
    r->tensor[1] = (qz_state_tensor){"sums", qz_tensor_1d(r->sums, QZ_F64, 3)};
    r->tensor[2] = (qz_state_tensor){"moments/first/model.norm.weight", qz_tensor_1d(r->codes, QZ_U8, CODES)};
    r->tensor[3] = (qz_state_tensor){"generator", qz_tensor_1d(r->generator, QZ_U64, 4)};
    r->integer[0] = (qz_state_integer){"position", &r->position};
    r->integer[1] = (qz_state_integer){"seed", &r->seed};
    r->number[0] = (qz_state_number){"best", &r->best};
    r->number[1] = (qz_state_number){"loss", &r->loss};
    r->text[0] = (qz_state_text){"model_hash", "aa", "model"};
    r->text[1] = (qz_state_text){"data_hash", "bb", "training data"};
    r->text[2] = (qz_state_text){"version", "qat 1", NULL};
    r->state = (qz_state){recipe, r->text, r->tensor, r->integer, r->number, TEXTS, TENSORS, INTEGERS, NUMBERS};
}

/* Contents that follow from `step`. */
static void fill(run *r, int64_t step)
{
    qz_rng rng;
    memset(r, 0, sizeof *r);
    qz_rng_seed(&rng, (uint64_t)step, 3);
    for (int i = 0; i < ROWS * COLS; i++) r->weights[i] = (float)qz_rng_normal(&rng);
    r->weights[0] = -0.0f, r->weights[1] = NAN, r->weights[2] = 1e-42f;
    for (int i = 0; i < 3; i++) r->sums[i] = qz_rng_normal(&rng);
    for (int i = 0; i < CODES; i++) r->codes[i] = (uint8_t)qz_rng_u64(&rng);
    for (int i = 0; i < 4; i++) r->generator[i] = qz_rng_u64(&rng);
    r->position = INT64_MIN + 2 + step, r->seed = (int64_t)qz_rng_u64(&rng);
    r->best = INFINITY, r->loss = qz_rng_normal(&rng);
    list(r);
}

static void check_same(const run *a, const run *b)
{
    cr_assert_eq(memcmp(a->weights, b->weights, sizeof a->weights), 0);
    cr_assert_eq(memcmp(a->sums, b->sums, sizeof a->sums), 0);
    cr_assert_eq(memcmp(a->codes, b->codes, sizeof a->codes), 0);
    cr_assert_eq(memcmp(a->generator, b->generator, sizeof a->generator), 0);
    cr_assert_eq(a->position, b->position);
    cr_assert_eq(a->seed, b->seed);
    cr_assert_eq(memcmp(&a->best, &b->best, sizeof a->best), 0);
    cr_assert_eq(memcmp(&a->loss, &b->loss, sizeof a->loss), 0);
}

static void save(const char *folder, int64_t step, int keep)
{
    run r;
    fill(&r, step);
    check_ok(qz_state_save(folder, &r.state, step, keep));
}

/* What lies in the folder is the state of `step`. */
static void check_loads(const char *folder, int64_t step)
{
    run want, found;
    int64_t got;
    fill(&want, step);
    fill(&found, -1);
    check_ok(qz_state_load(&got, folder, &found.state));
    cr_assert_eq(got, step, "loaded %lld, expected %lld", (long long)got, (long long)step);
    check_same(&found, &want);
}

static const char *new_folder(void)
{
    const char *folder = test_path("run");
    check_ok(qz_folder_make(folder));
    return folder;
}

static const char *state_path(const char *folder, int step)
{
    static char path[4][512];
    static int at;
    char *out = path[at++ % 4];
    snprintf(out, 512, "%s/state-%08d.h5", folder, step);
    return out;
}

static char warnings[4096];

static void keep_warning(void *context, const char *message)
{
    (void)context;
    strncat(warnings, message, sizeof warnings - strlen(warnings) - 1);
}

Test(train_state, gives_back_every_bit)
{
    const char *folder = new_folder();
    save(folder, 200, 2);
    cr_assert(qz_path_exists(state_path(folder, 200)));
    check_loads(folder, 200);
}

Test(train_state, a_folder_without_states)
{
    run r;
    int64_t step = 7;
    fill(&r, 1);
    check_ok(qz_state_load(&step, new_folder(), &r.state));
    cr_assert_eq(step, 0);
    check_ok(qz_state_load(&step, test_path("no such folder"), &r.state));
    cr_assert_eq(step, 0);
    check_ok(qz_state_newest(&step, test_path("no such folder")));
    cr_assert_eq(step, 0);
}

Test(train_state, hdf5_programs_can_read_it)
{
    const char *folder = new_folder();
    qz_h5 *h5;
    int64_t step;
    char text[64], json[256] = "";
    save(folder, 3, 1);
    check_ok(qz_h5_open(&h5, state_path(folder, 3)));
    check_ok(qz_h5_read_int(h5, "/", "step", &step));
    check_ok(qz_h5_read_text(h5, "format", text, sizeof text));
    check_ok(qz_h5_read(h5, "recipe", QZ_H5_U8, json, sizeof recipe - 1));
    check_ok(qz_h5_close(h5));
    cr_assert_eq(step, 3);
    cr_assert_str_eq(text, "qat state");
    cr_assert_str_eq(json, recipe);
}

Test(train_state, size_is_as_announced)
{
    const char *folder = new_folder();
    uint64_t size;
    run r;
    fill(&r, 1);
    check_ok(qz_state_save(folder, &r.state, 1, 1));
    check_ok(qz_file_size(state_path(folder, 1), &size));
    cr_assert_leq(size, qz_state_bytes(&r.state));
}

Test(train_state, keeps_the_last_ones)
{
    const char *folder = new_folder();
    int64_t newest;
    for (int64_t step = 10; step <= 50; step += 10) save(folder, step, 2);
    for (int step = 10; step <= 50; step += 10)
        cr_assert_eq(qz_path_exists(state_path(folder, step)), step >= 40, "step %d", step);
    check_ok(qz_state_newest(&newest, folder));
    cr_assert_eq(newest, 50);
    save(folder, 30, 2); /* a course that goes on from before 40 */
    cr_assert_not(qz_path_exists(state_path(folder, 40)));
    cr_assert_not(qz_path_exists(state_path(folder, 50)));
    check_loads(folder, 30);
}

Test(train_state, other_files_stay)
{
    const char *folder = new_folder();
    char mine[512];
    snprintf(mine, sizeof mine, "%s/state-best.h5", folder);
    test_write_file(mine, "mine", 4);
    save(folder, 1, 1);
    save(folder, 2, 1);
    check_ok(qz_state_clear(folder));
    cr_assert(qz_path_exists(mine));
    cr_assert_not(qz_path_exists(state_path(folder, 2)));
}

Test(train_state, unfinished_files_are_not_read_and_go)
{
    const char *folder = new_folder();
    char half[512], other[512];
    save(folder, 1, 1);
    snprintf(half, sizeof half, "%s/state-00000002.h5.new.tmp", folder);
    snprintf(other, sizeof other, "%s/state-00000003.h5.new", folder);
    test_write_file(half, "half", 4);
    test_write_file(other, "half", 4);
    check_loads(folder, 1);
    save(folder, 4, 2);
    cr_assert_not(qz_path_exists(half));
    cr_assert_not(qz_path_exists(other));
}

static size_t read_bytes(char *out, size_t room, const char *path)
{
    FILE *f = fopen(path, "rb");
    cr_assert_not_null(f);
    const size_t size = fread(out, 1, room, f);
    cr_assert(feof(f));
    fclose(f);
    return size;
}

/* The newest state spoiled by `spoil`: the one before is read, and a warning names the file. */
static void check_falls_back(const char *folder, const char *bytes, size_t size)
{
    warnings[0] = '\0';
    qz_log_to(keep_warning, NULL);
    test_write_file(state_path(folder, 20), bytes, size);
    check_loads(folder, 10);
    cr_assert_not_null(strstr(warnings, "state-00000020.h5: is no whole state file"), "%s", warnings);
    cr_assert_not_null(strstr(warnings, "the state before it is used"), "%s", warnings);
}

Test(train_state, a_truncated_one_is_noticed)
{
    static char bytes[1 << 16];
    const char *folder = new_folder();
    save(folder, 10, 2);
    save(folder, 20, 2);
    const size_t size = read_bytes(bytes, sizeof bytes, state_path(folder, 20));
    for (size_t cut = 0; cut < size; cut += 397) check_falls_back(folder, bytes, cut);
    check_falls_back(folder, bytes, size - 1);
    test_write_file(state_path(folder, 20), bytes, size);
    check_loads(folder, 20);
}

Test(train_state, a_flipped_bit_anywhere_is_noticed)
{
    static char bytes[1 << 16];
    const char *folder = new_folder();
    save(folder, 10, 2);
    save(folder, 20, 2);
    const size_t size = read_bytes(bytes, sizeof bytes, state_path(folder, 20));
    for (size_t at = 0; at < size; at += 211) {
        bytes[at] ^= (char)(1 << (at % 8));
        check_falls_back(folder, bytes, size);
        bytes[at] ^= (char)(1 << (at % 8));
    }
}

Test(train_state, none_left)
{
    const char *folder = new_folder();
    run r;
    int64_t step;
    fill(&r, 1);
    test_write_file(state_path(folder, 10), "x", 1);
    test_write_file(state_path(folder, 20), "", 0);
    check_fails(QZ_FORMAT, "none of its 2 state files is whole", qz_state_load(&step, folder, &r.state));
    cr_assert_eq(step, 0);
}

Test(train_state, a_renamed_one_is_not_taken_for_another_step)
{
    const char *folder = new_folder();
    save(folder, 10, 1);
    check_ok(qz_path_rename(state_path(folder, 10), state_path(folder, 20)));
    run r;
    int64_t step;
    fill(&r, 1);
    check_fails(QZ_FORMAT, "none of its 1", qz_state_load(&step, folder, &r.state));
}

/* ---- another run ---- */

static void refuses(const char *folder, run *r, const char *part)
{
    int64_t step;
    const run before = *r;
    check_fails(QZ_ARG, part, qz_state_load(&step, folder, &r->state));
    cr_assert_eq(step, 0);
    check_same(&before, r);
}

Test(train_state, another_model_or_text_is_named)
{
    const char *folder = new_folder();
    run r;
    save(folder, 10, 1);
    fill(&r, 5);
    r.text[0].value = "cc";
    refuses(folder, &r, "model changed: the file says aa, this run cc");
    r.text[1].value = "dd";
    refuses(folder, &r, "model changed");
    refuses(folder, &r, "training data changed: the file says bb, this run dd");
    fill(&r, 5);
    r.text[2].value = "qat 2"; /* not compared */
    int64_t step;
    check_ok(qz_state_load(&step, folder, &r.state));
}

Test(train_state, changed_keys_of_the_recipe_are_named)
{
    const char *folder = new_folder();
    run r;
    save(folder, 10, 1);
    fill(&r, 5);
    r.state.recipe = "{\"model\":\"demo\",\"train\":{\"steps\":200,\"betas\":[0.9,0.99],\"seed\":1}}";
    refuses(folder, &r, "recipe: train.betas.1 changed: the file says 0.95, this run 0.99");
    refuses(folder, &r, "recipe: train.shuffle changed: the file says true, this run nothing");
    refuses(folder, &r, "recipe: train.seed changed: the file says nothing, this run 1");
    r.state.recipe = "{\"model\":[\"demo\"],\"train\":{\"steps\":100,\"betas\":[0.9],\"shuffle\":true}}";
    refuses(folder, &r, "recipe: model changed: the file says \"demo\", this run an array of 1 elements");
    refuses(folder, &r, "recipe: train.betas changed");
}

Test(train_state, the_order_of_keys_is_no_change)
{
    const char *folder = new_folder();
    run r;
    int64_t step;
    save(folder, 10, 1);
    fill(&r, 5);
    r.state.recipe = "{\"train\":{\"shuffle\":true,\"betas\":[0.9,0.95],\"steps\":100},\"model\":\"demo\"}";
    check_ok(qz_state_load(&step, folder, &r.state));
}

Test(train_state, another_shape_is_refused)
{
    const char *folder = new_folder();
    run r;
    save(folder, 10, 1);
    fill(&r, 5);
    r.tensor[0].view = qz_tensor_2d(r.weights, QZ_F32, COLS, ROWS);
    refuses(folder, &r, "parameters/model.norm.weight: has another shape or type");
}

Test(train_state, a_foreign_hdf5_file)
{
    const char *path = test_path("statistics.h5");
    qz_h5 *h5;
    run r;
    int64_t step;
    fill(&r, 1);
    check_ok(qz_h5_create(&h5, path));
    check_ok(qz_h5_close(h5));
    check_fails(QZ_FORMAT, "is no whole state file", qz_state_read(&step, path, &r.state));
}

Test(train_state, a_failed_write_leaves_the_states_alone)
{
    const char *folder = new_folder();
    run r;
    save(folder, 10, 1);
    fill(&r, 20);
    r.number[1].name = r.number[0].name; /* HDF5 refuses a second attribute of a name */
    check_fails(QZ_IO, "cannot be written", qz_state_save(folder, &r.state, 20, 1));
    cr_assert_not(qz_path_exists(state_path(folder, 20)));
    check_loads(folder, 10);
}

static size_t files_in(const char *folder)
{
    qz_arena *arena;
    char **names;
    size_t count;
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_folder_list(&names, &count, folder, arena));
    qz_arena_free(arena);
    return count;
}

#ifdef __has_feature
#define SANITIZES_THREADS __has_feature(thread_sanitizer)
#else
#define SANITIZES_THREADS 0
#endif

/* The end of the child. HDF5 keeps memory of a file that it could not close, which LeakSanitizer would tell at exit,
 * and what ThreadSanitizer knows of OpenMP's threads does not survive fork; elsewhere all handlers run, since HDF5's
 * own would crash over that file. */
static void end_child(int code)
{
#if defined(__SANITIZE_ADDRESS__) || SANITIZES_THREADS
    _exit(code);
#else
    exit(code);
#endif
}

/* A full disk, as far as a test can have one: a process whose files may not be longer than `limit`. */
static void check_save_fails(const char *folder, rlim_t limit)
{
    int status;
    const pid_t pid = fork();
    if (pid == 0) {
        run r;
        fill(&r, 20);
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit}) != 0) _exit(2);
        const bool fails = qz_state_save(folder, &r.state, 20, 1) == QZ_IO;
        end_child(fails && strstr(qz_error_message(), "cannot be") ? 0 : 1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "limit %llu: %#x", (unsigned long long)limit, status);
}

Test(train_state, a_disk_without_room_leaves_the_states_alone)
{
    const char *folder = new_folder();
    uint64_t size;
    save(folder, 10, 1);
    check_ok(qz_file_size(state_path(folder, 10), &size));
    const rlim_t limits[] = {size / 4, size - 10 /* HDF5's part fits, the last line does not */};
    for (int i = 0; i < 2; i++) {
        check_save_fails(folder, limits[i]);
        cr_assert_eq(files_in(folder), 1);
        check_loads(folder, 10);
    }
}

/* Every allocation fails once: an error, never a crash, and the state before it stays. */
Test(train_state, memory_that_is_short)
{
    const char *folder = new_folder();
    run r;
    int64_t step;
    save(folder, 10, 2);
    qz_status saved = QZ_MEMORY, loaded = QZ_MEMORY;
    for (long n = 1; saved != QZ_OK || loaded != QZ_OK; n++) {
        cr_assert_lt(n, 500);
        fill(&r, 20);
        qz_alloc_fail_at(n);
        saved = qz_state_save(folder, &r.state, 20, 2);
        qz_alloc_fail_at(n);
        loaded = qz_state_load(&step, folder, &r.state);
        qz_alloc_fail_at(0);
        cr_assert(saved == QZ_OK || saved == QZ_MEMORY, "%s", qz_error_message());
        cr_assert(loaded == QZ_OK || loaded == QZ_MEMORY, "%s", qz_error_message());
    }
    check_loads(folder, 20);
}

/* ---- kill ---- */

/* Goes on from the newest state for ever, telling each state that is safe. */
static void child(const char *folder, int pipe_end)
{
    run r;
    int64_t step;
    fill(&r, 1);
    if (qz_state_load(&step, folder, &r.state) != QZ_OK) _exit(1);
    for (;;) {
        fill(&r, ++step);
        if (qz_state_save(folder, &r.state, step, 2) != QZ_OK) _exit(1);
        if (write(pipe_end, &step, sizeof step) != sizeof step) _exit(1);
    }
}

/* Kills a child after `seconds`; the last step that it told, or 0. */
static int64_t kill_after(const char *folder, useconds_t microseconds)
{
    int ends[2], status;
    int64_t told = 0, step;
    cr_assert_eq(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) child(folder, ends[1]);
    close(ends[1]);
    usleep(microseconds);
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "the child ended with %d", WEXITSTATUS(status));
    while (read(ends[0], &step, sizeof step) == sizeof step) told = step;
    close(ends[0]);
    return told;
}

Test(train_state, killed_at_random_moments)
{
    const char *folder = new_folder();
    qz_rng rng;
    int64_t last = 0, step;
    qz_rng_seed(&rng, (uint64_t)getpid(), 0);
    for (int i = 0; i < 40; i++) {
        const int64_t told = kill_after(folder, (useconds_t)qz_rng_below(&rng, 30000));
        run found, want;
        fill(&found, -1);
        check_ok(qz_state_load(&step, folder, &found.state));
        cr_assert_geq(step, told ? told : last, "state %lld was safe", (long long)told);
        cr_assert_leq(step, (told ? told : last) + 1);
        last = step;
        if (step == 0) continue; /* killed before the first state */
        fill(&want, step);
        check_same(&found, &want);
    }
    cr_assert_gt(last, 1);
}
