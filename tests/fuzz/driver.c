/* Runs a fuzz target without libFuzzer: every file of a corpus folder, then mutations of each.
 *
 *     fuzz_json FOLDER      all files, then mutations for at most two seconds
 *     fuzz_json FILE        that input alone, to look at a failure
 *
 * The sequence of mutations is the same on every machine (a seeded generator, files in name order); only how far it
 * gets in the time depends on the machine, and the first round over all files is always run. Each input is a block of
 * exactly its size, so AddressSanitizer sees the first byte read beyond it. When the process dies, the input at fault
 * is left in $TMPDIR/<program>-failure. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifdef SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROUNDS = 100000, LARGEST = 1 << 16 }; /* mutations of a file; larger files run once, as they are */
static const double seconds_allowed = 2;

static struct {
    const uint8_t *data;
    size_t size;
    char report[512];
} current;

/* Only calls that are safe in a signal handler. */
static void leave_input(void)
{
    int file = open(current.report, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return;
    ssize_t n = write(file, current.data, current.size);
    (void)n;
    close(file);
    const char *text[] = {"\nthe input at fault is in ", current.report, "\n"};
    for (int i = 0; i < 3; i++) n = write(2, text[i], strlen(text[i]));
}

static void on_signal(int number)
{
    leave_input();
    signal(number, SIG_DFL);
    raise(number);
}

static void watch(const char *program)
{
    const char *folder = getenv("TMPDIR"), *name = strrchr(program, '/');
    snprintf(current.report, sizeof current.report, "%s/%s-failure", folder && *folder ? folder : "/tmp",
             name ? name + 1 : program);
    signal(SIGABRT, on_signal);
#ifdef SANITIZED
    __sanitizer_set_death_callback(leave_input);
#else
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGFPE, on_signal);
#endif
}

static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact) exit(1);
    memcpy(exact, bytes, size);
    current.data = exact;
    current.size = size;
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

typedef struct input {
    char path[512];
    uint8_t *bytes;
    size_t size;
} input;

static void load(input *in)
{
    struct stat info;
    FILE *f = fopen(in->path, "rb");
    if (!f || fstat(fileno(f), &info) != 0) {
        fprintf(stderr, "%s: cannot be read\n", in->path);
        exit(1);
    }
    in->size = (size_t)info.st_size;
    in->bytes = malloc(in->size + 1);
    if (!in->bytes || fread(in->bytes, 1, in->size, f) != in->size) exit(1);
    fclose(f);
}

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t below(uint64_t n)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17; /* Marsaglia 2003, xorshift64 */
    return state % n;
}

/* Values where parsers go wrong: signs, limits, quotes, brackets, digits. */
static uint8_t odd_byte(void)
{
    static const uint8_t odd[] = {0,   1,   0x7f, 0x80, 0xff, '"', '\\', '{', '}',
                                  '[', ']', ',',  ':',  '-',  '9', 'e',  '.', '\n'};
    return odd[below(sizeof odd)];
}

/* Into `out`, which has room for twice `size` bytes and 16 more. */
static size_t mutate(uint8_t *out, const uint8_t *in, size_t size)
{
    memcpy(out, in, size);
    if (size == 0) {
        out[0] = odd_byte();
        return 1;
    }
    size_t at = below(size), length = 1 + below(size - at);
    switch (below(6)) {
    case 0:
        return at; /* cut off */
    case 1:
        out[at] ^= (uint8_t)(1 << below(8));
        return size;
    case 2:
        out[at] = odd_byte();
        return size;
    case 3: /* leave a piece out */
        memmove(out + at, in + at + length, size - at - length);
        return size - length;
    case 4: /* say a piece twice */
        memmove(out + at + length, in + at, size - at);
        return size + length;
    default:
        for (uint64_t n = 1 + below(8); n > 0; n--) out[below(size)] = (uint8_t)below(256);
        return size;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long run_mutations(const input *inputs, int count)
{
    uint8_t *scratch = malloc(2 * LARGEST + 16);
    if (!scratch) exit(1);
    double end = now() + seconds_allowed;
    long done = 0;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < count; i++) {
            if (inputs[i].size > LARGEST) continue;
            if (round > 0 && now() > end) goto out_of_time;
            run(scratch, mutate(scratch, inputs[i].bytes, inputs[i].size));
            done++;
        }
out_of_time:
    free(scratch);
    return done;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_folder(const char *path)
{
    struct dirent **names;
    int count = scandir(path, &names, visible, alphasort);
    if (count <= 0) {
        fprintf(stderr, "%s: no corpus there\n", path);
        return 1;
    }
    input *inputs = calloc((size_t)count, sizeof *inputs);
    if (!inputs) return 1;
    for (int i = 0; i < count; i++) {
        snprintf(inputs[i].path, sizeof inputs[i].path, "%s/%s", path, names[i]->d_name);
        load(&inputs[i]);
        run(inputs[i].bytes, inputs[i].size);
        free(names[i]);
    }
    free(names);
    long mutations = run_mutations(inputs, count);
    printf("%d files, %ld mutations\n", count, mutations);
    for (int i = 0; i < count; i++) free(inputs[i].bytes);
    free(inputs);
    return 0;
}

int main(int argc, char **argv)
{
    struct stat info;
    if (argc != 2 || stat(argv[1], &info) != 0) {
        fprintf(stderr, "usage: %s FOLDER|FILE\n", argv[0]);
        return 2;
    }
    watch(argv[0]);
    if (S_ISDIR(info.st_mode)) return run_folder(argv[1]);
    input in = {0};
    snprintf(in.path, sizeof in.path, "%s", argv[1]);
    load(&in);
    run(in.bytes, in.size);
    free(in.bytes);
    return 0;
}
