/* N steps are k steps, an end by SIGKILL at a moment that chance picks, and what is left, bit for bit: the last state
 * and the log, with 1 thread or 8, with everything on that a step remembers. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/parallel.h"
#include "testing/train_run.h"
#include "train/telemetry.h"

enum { STEPS = 24, SAVE_EVERY = 2, KILLS = 6, IDS = 1500 };

typedef struct setup {
    const char *name;
    qz_scheme scheme;
    qz_act_scheme activation;
    qz_kv_scheme kv;
    qz_recipe_quantizer quantizer;
    bool recompute, moments_8bit, keep_best;
} setup;

static const setup setups[] = {
    {.name = "lsqplus",
     .scheme = {.format = QZ_FORMAT_INT3, .piece_rows = 1, .piece_cols = 32, .scale_type = QZ_BF16},
     .activation = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_INT8, .divisor = 127.5f},
     .kv = {.wanted = true, .format = QZ_FORMAT_INT8, .per_head = true},
     .quantizer = {.method = QZ_TRAIN_LSQ_PLUS,
                   .scales = QZ_TRAIN_LEARNED,
                   .learned_activations = true,
                   .after = 3,
                   .freeze = 0.015},
     .recompute = true,
     .keep_best = true},
    {.name = "fitted",
     .scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .piece_cols = 32, .symmetric = true, .scale_type = QZ_F16},
     .activation = {.mode = QZ_ACT_TENSOR, .format = QZ_FORMAT_FP8_E4M3, .symmetric = true},
     .kv = {.wanted = true, .format = QZ_FORMAT_FP8_E4M3},
     .quantizer = {.method = QZ_TRAIN_STE, .scales = QZ_TRAIN_DYNAMIC, .freeze = 0.009},
     .moments_8bit = true},
    {.name = "kept",
     .scheme = {.format = QZ_FORMAT_INT4, .piece_rows = 1, .scale_type = QZ_F32},
     .activation = {.mode = QZ_ACT_TOKEN, .format = QZ_FORMAT_INT8, .symmetric = true, .divisor = 127},
     .quantizer = {.method = QZ_TRAIN_STE, .scales = QZ_TRAIN_FROZEN, .after = 5},
     .keep_best = true},
};

static qz_recipe recipe_of(const setup *s)
{
    qz_recipe r = train_run_recipe(STEPS);
    r.train.micro_batch = 1;
    r.train.shuffle = true;
    r.train.learning_rate = 0.01;
    r.train.scale_learning_rate = 0.003;
    r.train.offset_learning_rate = 0.1;
    r.train.schedule = QZ_TRAIN_COSINE;
    r.train.warmup = 0.1;
    r.train.final_rate = 0.1;
    r.train.moments_8bit = s->moments_8bit;
    r.train.recompute = s->recompute;
    r.train.quantizer = s->quantizer;
    r.train.quantizer.wanted = true;
    r.train.save_every = SAVE_EVERY;
    r.train.evaluate_every = 4;
    r.train.keep_best = s->keep_best;
    return r;
}

/* What the program prints at the end, for same_file. */
static const char result_name[] = "result";

static void write_result(const qz_train_result *r, const char *folder)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, result_name);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL);
    fprintf(file, "%a %a %a %a %lld of %lld", r->loss, r->first_perplexity, r->last_perplexity, r->best_perplexity,
            (long long)r->best_step, (long long)r->steps);
    cr_assert(fclose(file) == 0);
}

static qz_status train(const setup *s, const char *data, const char *folder)
{
    const qz_recipe recipe = recipe_of(s);
    train_case c = train_case_new(&s->scheme, &s->activation, &s->kv);
    qz_trained *trained;
    train_case_batch(&c, 77);
    QZ_TRY(train_run(&trained, &recipe, &c, data, folder, NULL));
    write_result(qz_trained_result(trained), folder);
    qz_trained_free(trained);
    train_case_free(&c);
    return QZ_OK;
}

/* A process of its own: threads do not outlive a fork, so this one never starts any. */
static pid_t begin(const setup *s, const char *data, const char *folder, int threads)
{
    const pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid) return pid;
    qz_threads_set(threads);
    const qz_status status = train(s, data, folder);
    if (status != QZ_OK) fprintf(stderr, "%s: %s\n", s->name, qz_error_message());
    _exit(status == QZ_OK ? 0 : 1);
}

static void end(pid_t pid, const setup *s)
{
    int status;
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: ended with %d", s->name, status);
}

static void wait_ms(double ms)
{
    const struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms * 1e6) % 1000000000};
    nanosleep(&t, NULL);
}

static int64_t newest(const char *folder)
{
    int64_t step;
    check_ok(qz_state_newest(&step, folder));
    return step;
}

/* Ends it a little after some state has appeared. */
static void kill_later(pid_t pid, const char *folder, int64_t state, double ms)
{
    enum { PATIENCE_MS = 60000 };
    int waited = 0, status;
    while (newest(folder) < state && waited++ < PATIENCE_MS) wait_ms(1);
    wait_ms(ms);
    kill(pid, SIGKILL); /* it may have ended */
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "ended with %d", status);
}

/* Do layers of the log say that some of their weights are frozen? */
static bool tells_of_frozen(const char *folder)
{
    char path[600], *text;
    size_t size;
    bool found = false;
    qz_arena *arena;
    snprintf(path, sizeof path, "%s/%s", folder, QZ_TELEMETRY_NAME);
    check_ok(qz_arena_new(&arena, "test"));
    check_ok(qz_file_read(&text, &size, path, 1 << 24, arena));
    for (const char *at = strstr(text, "\"frozen\":"); at; at = strstr(at + 1, "\"frozen\":"))
        found = found || strtod(at + strlen("\"frozen\":"), NULL) > 0;
    qz_arena_free(arena);
    return found;
}

static const char *folder_of(char *out, size_t size, const char *name)
{
    snprintf(out, size, "%s", test_path(name));
    cr_assert(mkdir(out, 0700) == 0);
    return out;
}

static void check_setup(const setup *s, uint64_t seed)
{
    char straight[512], cut[512], data[512], state[64];
    int64_t resumed = 0;
    qz_rng rng;
    qz_rng_seed(&rng, seed, 3);
    snprintf(data, sizeof data, "%s", test_path("ids.h5"));
    train_run_ids(data, IDS);
    folder_of(straight, sizeof straight, "straight");
    folder_of(cut, sizeof cut, "cut");
    end(begin(s, data, straight, 1), s);
    cr_assert(newest(straight) == STEPS);
    cr_assert(tells_of_frozen(straight) == (s->quantizer.freeze > 0), "%s", s->name);
    for (int i = 0; i < KILLS && newest(cut) < STEPS; i++) {
        const int64_t at = newest(cut), next = at + 2 * (int64_t)(qz_rng_double(&rng) * 3);
        resumed += at > 0;
        kill_later(begin(s, data, cut, i % 2 ? 1 : 8), cut, next, 30 * qz_rng_double(&rng));
    }
    end(begin(s, data, cut, 8), s);
    cr_assert(resumed > 0, "%s: never went on from a state", s->name);
    snprintf(state, sizeof state, "state-%08d.h5", STEPS);
    train_run_same(straight, cut, state);
    train_run_same(straight, cut, QZ_TELEMETRY_NAME);
    train_run_same(straight, cut, result_name);
    end(begin(s, data, cut, 1), s); /* nothing is left to do, but the figures are known */
    train_run_same(straight, cut, result_name);
}

Test(resume, lsqplus_with_all_that_is_remembered)
{
    check_setup(&setups[0], 1);
}

Test(resume, fitted_scales_and_frozen_weights)
{
    check_setup(&setups[1], 2);
}

Test(resume, scales_that_are_kept)
{
    check_setup(&setups[2], 3);
}
