/* The table at the end of a training: the original, what training started from, and what it made, side by side, with
 * the columns of `qcal compare`. */
#include <math.h>

#include "programs/run_result.h"
#include "programs/table.h"

static double bits_of(const qz_weight_count *n)
{
    return n->linear_numbers ? qz_bits(n->linear_bytes, n->linear_numbers) : qz_bits(n->bytes, n->numbers);
}

static void add_sizes(qz_table *t, const qz_weight_count *n, uint64_t folder_bytes)
{
    char size[32];
    if (n->numbers) qz_table_set(t, 6, "%.3f", bits_of(n));
    qz_table_set(t, 7, "%s", qz_text_bytes(size, folder_bytes));
}

static void add_original(qz_table *t, const qz_run_result *r)
{
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s, as it was", qz_run_source_type(r));
    if (r->made.evaluated) qz_table_set(t, 1, "%.4f", r->original.perplexity);
    add_sizes(t, &r->before, r->source_folder_bytes);
}

static void add_perplexity(qz_table *t, const qz_run_result *r, const char *what, double perplexity)
{
    qz_table_row_add(t);
    qz_table_set(t, 0, "%s", what);
    qz_table_set(t, 1, "%.4f", perplexity);
    qz_table_set(t, 2, "%.4f", perplexity / r->original.perplexity);
}

static void add_measured(qz_table *t, const qz_run_result *r, const char *what, const qz_measured *m)
{
    if (m->evaluated)
        add_perplexity(t, r, what, m->perplexity.perplexity);
    else {
        qz_table_row_add(t);
        qz_table_set(t, 0, "%s", what);
    }
    if (m->diverged) {
        qz_table_set(t, 3, "%.6f", m->divergence.kl_mean);
        qz_table_set(t, 4, "%.6f", m->divergence.kl_99);
        qz_table_set(t, 5, "%.2f %%", 100 * m->divergence.top1);
    }
    if (m->folder_bytes) add_sizes(t, &m->weights, m->folder_bytes);
}

static const char *name_of_start(const qz_recipe *recipe)
{
    if (recipe->train.adapter.wanted) return "base, as it is in memory";
    if (qz_recipe_starts_from_ptq(recipe)) return "quantized, not trained";
    return recipe->train.init ? recipe->train.init : "before the first step";
}

/* What training began with: a checkpoint, or the model as it computes in the first step. */
static void add_start(qz_table *t, const qz_run_result *r)
{
    if (r->merged.wanted) {
        if (!r->merged.measured) return;
        add_perplexity(t, r, "base, as it was adapted", exp(r->merged.base));
        add_perplexity(t, r, "with the adapter", exp(r->merged.adapted));
        if (r->merged.rounds) add_perplexity(t, r, "with the adapter, rounded", exp(r->merged.rounded));
        return;
    }
    if (r->start.evaluated) add_measured(t, r, name_of_start(r->recipe), &r->start);
}

static const char *name_of_result(const qz_run_result *r)
{
    const qz_recipe *recipe = r->recipe;
    if (r->merged.wanted) return "merged";
    if (recipe->train.adapter.merge_aware) return "with the adapter, rounded";
    if (recipe->train.adapter.wanted) return "with the adapter";
    return recipe->weights.wanted ? "quantized and trained" : "trained";
}

static void print_limits(const qz_run_result *r, FILE *out)
{
    static const struct {
        const char *name;
        qz_accept_figure figure;
    } figures[] = {{"perplexity ratio", QZ_ACCEPT_PERPLEXITY}, {"KL mean", QZ_ACCEPT_KL}, {"top-1", QZ_ACCEPT_TOP1}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        char note[64];
        const qz_accept_limit *limit = &r->acceptance.figure[figures[i].figure];
        if (limit->asked && limit->known)
            fprintf(out, "%s %.4f%s\n", figures[i].name, limit->found,
                    qz_accept_note(note, &r->acceptance, figures[i].figure));
    }
}

static void print_training(const qz_run_result *r, FILE *out)
{
    char time[32];
    const qz_train_result *t = &r->training;
    fprintf(out, "\n%lld steps, loss %.4f; %lld tokens", (long long)t->steps, t->loss, (long long)t->tokens);
    if (t->resumed_from)
        fprintf(out, "; went on after step %lld, since then %lld", (long long)t->resumed_from,
                (long long)t->tokens_of_run);
    fprintf(out, " in %s, %.0f tokens/s\n", qz_text_seconds(time, t->seconds), t->tokens_per_second);
    if (t->stopped_early)
        fprintf(out, "stopped early: no gain in %lld evaluations\n", (long long)r->recipe->train.patience);
    if (isfinite(t->first_perplexity))
        fprintf(out, "perplexity on %s: %.4f before, %.4f after the last step, %.4f at best (step %lld)\n",
                r->recipe->train.validation.data, t->first_perplexity, t->last_perplexity, t->best_perplexity,
                (long long)t->best_step);
    if (r->recipe->train.keep_best) fprintf(out, "kept: step %lld, the best evaluated\n", (long long)t->best_step);
}

double qz_run_gain(const qz_run_result *r)
{
    return r->merged.base - r->merged.adapted;
}

double qz_run_kept(const qz_run_result *r)
{
    const double gain = qz_run_gain(r), least = 1e-3, written = -r->made.perplexity.mean_log_prob;
    return gain >= least ? (r->merged.base - written) / gain : (double)NAN;
}

static void print_gain(const qz_run_result *r, FILE *out)
{
    const double kept = qz_run_kept(r);
    fprintf(out, "\ngain of the adapter: %.6f nats a token", qz_run_gain(r));
    if (isfinite(kept))
        fprintf(out, "; the merged checkpoint keeps %.1f %% of it\n", 100 * kept);
    else
        fprintf(out, ", so there is no gain to keep; loss of the merged checkpoint: %+.6f nats from the adapter's\n",
                -r->made.perplexity.mean_log_prob - r->merged.adapted);
}

qz_status qz_run_print_training(const qz_run_result *r, const qz_cli *cli)
{
    static const char *const heads[] = {"", "perplexity", "ratio", "KL mean", "KL 99 %", "top-1", "bits", "folder"};
    qz_table t = qz_table_new(cli->arena, 8);
    qz_table_row_add(&t);
    for (int i = 0; i < 8; i++) qz_table_set(&t, i, "%s", heads[i]);
    add_original(&t, r);
    add_start(&t, r);
    add_measured(&t, r, name_of_result(r), &r->made);
    QZ_TRY(qz_table_print(&t, cli->out, ""));
    if (r->trained) print_training(r, cli->out);
    if (r->merged.measured) print_gain(r, cli->out);
    print_limits(r, cli->out);
    return QZ_OK;
}
