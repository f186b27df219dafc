/* bench_report FOLDER: the costs of a run as a table, from FOLDER/report.json and FOLDER/config.json.
 * bench_report --calibration-seconds FOLDER: one number, what other programs' calibration does as well: statistics,
 * transforms, rounding and propagation, without plan, evaluation and files.
 *
 * Operations counted are those of matrix products: linears, attention, the lower triangles of Gram matrices, and in
 * the evaluation the head. What a search or an exponential costs is not counted, so the share of the machine's
 * matrix-product rate is what a phase leaves unused, whatever the reason. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "models/models.h"

typedef struct figures {
    const qz_json_node *report;
    qz_model_config config;
    double samples, length; /* of the calibration */
    double windows, window; /* of the evaluation; 0: none */
    double rate;            /* GFLOP/s of the machine */
} figures;

static const qz_json_node *at(const qz_json_node *node, const char *first, const char *second)
{
    return qz_json_get(qz_json_get(node, first), second);
}

static double number(const qz_json_node *node)
{
    return qz_json_is(node, QZ_JSON_NUMBER) ? qz_json_double(node) : 0;
}

static const char *text(const qz_json_node *node)
{
    return qz_json_is(node, QZ_JSON_STRING) ? qz_json_text(node) : "?";
}

/* Operations of one token in one layer: all linears, and those before `down`. */
static double linears(const qz_model_config *c, int with_down)
{
    double hidden = (double)c->hidden, ffn = (double)c->ffn, head = (double)c->head_dim;
    double q = (double)c->heads * head, kv = (double)c->kv_heads * head;
    return 2 * hidden * (2 * q + 2 * kv + 2 * ffn + (with_down ? ffn : 0));
}

/* Scores and weighted sums over half of all pairs. */
static double attention(const qz_model_config *c, double length)
{
    return 2 * (double)(c->heads * c->head_dim) * length;
}

static double grams(const qz_model_config *c)
{
    double hidden = (double)c->hidden, ffn = (double)c->ffn, q = (double)(c->heads * c->head_dim);
    return 2 * hidden * hidden + q * q + ffn * ffn;
}

static double phase_tokens(const figures *f, const char *phase)
{
    return strcmp(phase, "perplexity") == 0 ? 2 * f->windows * f->window : f->samples * f->length;
}

/* What a calibration in stages runs beyond a look: down, in all layers but the last. A second pass is a phase of its
 * own.
 */
static double down_in_stages(const figures *f)
{
    const qz_model_config *c = &f->config;
    if (qz_json_get(qz_json_get(f->report, "phases"), "propagate")) return 0;
    return (double)(c->layers - 1) * f->samples * f->length * (linears(c, 1) - linears(c, 0));
}

/* 0: not counted. */
static double phase_flops(const figures *f, const char *phase)
{
    const qz_model_config *c = &f->config;
    double layers = (double)c->layers, tokens = phase_tokens(f, phase);
    if (strcmp(phase, "calibrate") == 0)
        return layers * tokens * (linears(c, 0) + attention(c, f->length) + grams(c)) + down_in_stages(f);
    if (strcmp(phase, "propagate") == 0) return (layers - 1) * tokens * (linears(c, 1) + attention(c, f->length));
    if (strcmp(phase, "perplexity") == 0)
        return tokens * (layers * (linears(c, 1) + attention(c, f->window)) + 2 * (double)(c->vocabulary * c->hidden));
    return 0;
}

static int is_calibration(const char *phase)
{
    static const char *const names[] = {"calibrate", "transform", "quantize", "propagate"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], phase) == 0) return 1;
    return 0;
}

static double calibration_seconds(const figures *f)
{
    double sum = 0;
    for (const qz_json_node *p = qz_json_first(qz_json_get(f->report, "phases")); p; p = qz_json_next(p))
        if (is_calibration(qz_json_key(p))) sum += qz_json_double(p);
    return sum;
}

static void print_row(const figures *f, const char *name, double seconds, double tokens, double flops)
{
    printf("  %-12s %8.2f", name, seconds);
    if (tokens > 0 && seconds > 0) printf(" %10.0f", tokens / seconds);
    if (flops > 0 && seconds > 0)
        printf(" %9.1f  %5.1f %%", flops / seconds / 1e9, 100 * flops / seconds / 1e9 / f->rate);
    printf("\n");
}

static void print_phases(const figures *f)
{
    double flops = 0;
    printf("  %-12s %8s %10s %9s  %s\n", "phase", "seconds", "tokens/s", "GFLOP/s", "of sgemm");
    for (const qz_json_node *p = qz_json_first(qz_json_get(f->report, "phases")); p; p = qz_json_next(p)) {
        const char *name = qz_json_key(p);
        if (qz_json_double(p) < 0.005) continue;
        int counts = is_calibration(name) || strcmp(name, "perplexity") == 0;
        if (is_calibration(name)) flops += phase_flops(f, name);
        print_row(f, name, qz_json_double(p), counts ? phase_tokens(f, name) : 0, phase_flops(f, name));
    }
    print_row(f, "calibration", calibration_seconds(f), f->samples * f->length, flops);
    printf("  (calibration: calibrate, transform, quantize and propagate)\n");
}

static void print_rest(const figures *f)
{
    const qz_json_node *r = f->report;
    printf("peak memory, anonymous pages  %8.0f MB\n", number(at(r, "memory", "anonymous_peak")) / 1e6);
    printf("  its bound                   %8.0f MB\n", number(at(r, "memory", "bound")) / 1e6);
    printf("  with mapped files           %8.0f MB\n", number(at(r, "memory", "resident_peak")) / 1e6);
    printf("machine  %s, %.0f threads, sgemm %.0f GFLOP/s\n", text(at(r, "environment", "cpu")),
           number(at(r, "environment", "threads")), f->rate);
    printf("  %s\n", text(at(r, "environment", "arithmetic")));
    const qz_json_node *result = qz_json_get(r, "result");
    if (f->windows > 0)
        printf("perplexity  %.3f, quantized %.3f\n", number(at(result, "original", "perplexity")),
               number(at(result, "quantized", "perplexity")));
    for (const qz_json_node *w = qz_json_first(qz_json_get(r, "warnings")); w; w = qz_json_next(w))
        printf("warning: %s\n", text(w));
}

static qz_status read_json(qz_json **out, const char *folder, const char *name, qz_arena *arena)
{
    char *bytes;
    size_t size;
    const char *path = qz_path_join(arena, folder, name);
    if (!path) return qz_arena_failed(arena);
    QZ_TRY(qz_file_read(&bytes, &size, path, (size_t)64 << 20, arena));
    QZ_TRY_CTX(qz_json_parse(out, bytes, size), "%s", path);
    return QZ_OK;
}

static qz_status read_figures(figures *f, const qz_json *report, const qz_json *config, qz_arena *arena)
{
    f->report = qz_json_root(report);
    QZ_TRY(qz_model_config_read(&f->config, qz_json_root(config), arena));
    const qz_json_node *calibration = at(f->report, "recipe", "calibration");
    f->samples = number(qz_json_get(calibration, "samples"));
    f->length = number(qz_json_get(calibration, "sequence_length"));
    f->windows = number(qz_json_get(at(f->report, "result", "original"), "windows"));
    f->window = number(qz_json_get(at(f->report, "recipe", "evaluate"), "sequence_length"));
    f->rate = number(at(f->report, "environment", "gflops_measured"));
    if (f->length == 0 || f->rate == 0)
        return QZ_FAIL(QZ_FORMAT, "report.json has no calibration or no measured rate: was it written by this qcal?");
    return QZ_OK;
}

static qz_status show(const char *folder, int only_seconds, qz_arena *arena)
{
    figures f = {0};
    qz_json *report = NULL, *config = NULL;
    qz_status status = read_json(&report, folder, "report.json", arena);
    if (status == QZ_OK) status = read_json(&config, folder, "config.json", arena);
    if (status == QZ_OK) status = read_figures(&f, report, config, arena);
    if (status == QZ_OK && only_seconds) {
        printf("%.2f\n", calibration_seconds(&f));
    } else if (status == QZ_OK) {
        print_phases(&f);
        print_rest(&f);
    }
    qz_json_close(config);
    qz_json_close(report);
    return status;
}

int main(int argc, char **argv)
{
    int only_seconds = argc == 3 && strcmp(argv[1], "--calibration-seconds") == 0;
    if (argc != 2 + only_seconds) {
        fprintf(stderr, "usage: bench_report [--calibration-seconds] FOLDER\n");
        return 2;
    }
    qz_arena *arena;
    qz_status status = qz_arena_new(&arena, "bench_report");
    if (status == QZ_OK) status = show(argv[argc - 1], only_seconds, arena);
    if (status != QZ_OK) fprintf(stderr, "bench_report: %s\n", qz_error_message());
    qz_arena_free(arena);
    return status != QZ_OK;
}
