/* A data file -> batches of windows for training. Windows are numbered in file order; an epoch goes through all of them
 * once, in file order or in an order of its own (loader_order.c). So (epoch, index) says all about what comes next, and
 * any place is reached at once.
 *
 * STREAM: window w is BOS and the ids [w step, w step + step), step = length - 1, or length ids without BOS: the
 * calibration rule (windows.c). DOCUMENTS: window w is [w length, w length + length) of all documents, each framed in
 * BOS and EOS. What a label is: docs/training-data.md. */
#include <string.h>

#include "data/loader_impl.h"

struct qz_loader {
    qz_token_file tokens;
    char *path; /* for messages */
    int64_t length, windows;
    int32_t bos; /* put in front of every window; -1: none */
    bool packs, shuffle;
    uint64_t seed;
    qz_loader_position at;
    qz_order order; /* of epoch at.epoch, where shuffled */
};

static bool decide_pack(const qz_loader_rule *rule)
{
    if (rule->pack != QZ_LOADER_AUTO) return rule->pack == QZ_LOADER_DOCUMENTS;
    return qz_data_has_lines(rule->path);
}

static qz_status check_rule(const qz_loader_rule *rule, bool packs)
{
    qz_windows_rule w = {.length = rule->length, .bos = packs ? -1 : rule->bos, .vocabulary = rule->vocabulary};
    if (!rule->folder) return QZ_FAIL(QZ_ARG, "%s: no folder is named to keep its tokens in", rule->path);
    QZ_TRY(qz_windows_check_rule(&w));
    int32_t largest = rule->bos > rule->eos ? rule->bos : rule->eos;
    if (rule->vocabulary > 0 && largest >= rule->vocabulary)
        return QZ_FAIL(QZ_ARG, "BOS id %d or EOS id %d is not below the vocabulary's size %lld", (int)rule->bos,
                       (int)rule->eos, (long long)rule->vocabulary);
    return QZ_OK;
}

static int64_t step_of(const qz_loader *s)
{
    return s->bos < 0 ? s->length : s->length - 1;
}

static qz_status check_enough(const qz_loader *s, int64_t sequences)
{
    if (s->windows > 0 && sequences <= s->windows) return QZ_OK;
    if (s->windows == 0)
        return QZ_FAIL(QZ_FORMAT,
                       "%s has %lld tokens, less than one window, which takes %lld: give more text or lower "
                       "train.sequence_length",
                       s->path, (long long)s->tokens.count, (long long)step_of(s));
    return QZ_FAIL(QZ_FORMAT,
                   "%s has %lld tokens, that is %lld windows of %lld; a batch takes %lld (%lld tokens): give more text "
                   "or lower train.batch or train.sequence_length",
                   s->path, (long long)s->tokens.count, (long long)s->windows, (long long)s->length,
                   (long long)sequences, (long long)(sequences * step_of(s)));
}

static void go_to(qz_loader *s, qz_loader_position to)
{
    bool anew = s->shuffle && (s->order.count == 0 || s->at.epoch != to.epoch);
    s->at = to;
    if (anew) qz_order_make(&s->order, s->windows, s->seed, to.epoch);
}

static qz_status open_loader(qz_loader *s, const qz_loader_rule *rule, const qz_tokenizer *tokenizer)
{
    s->packs = decide_pack(rule);
    QZ_TRY(check_rule(rule, s->packs));
    s->path = qz_strdup(rule->path);
    if (!s->path) return QZ_FAIL(QZ_MEMORY, "out of memory: %s", rule->path);
    s->length = rule->length;
    s->bos = s->packs ? -1 : rule->bos;
    s->shuffle = rule->shuffle;
    s->seed = rule->seed;
    QZ_TRY(qz_token_file_make(&s->tokens, rule, s->packs, tokenizer));
    s->windows = s->tokens.count / step_of(s);
    QZ_TRY(check_enough(s, rule->batch));
    go_to(s, (qz_loader_position){0});
    return QZ_OK;
}

/* The label of the token before token `i`. */
static int32_t label_at(const qz_loader *s, int64_t i)
{
    if (i >= s->tokens.count) return QZ_LABEL_NONE;
    int flags = qz_token_flags(&s->tokens, i);
    bool other = s->packs && (flags & QZ_TOKEN_BEGINS);
    return other || !(flags & QZ_TOKEN_COUNTS) ? QZ_LABEL_NONE : qz_token_id(&s->tokens, i);
}

/* Empty completions, say, leave prompts alone: every loss would be 0. */
static qz_status check_targets(const qz_loader *s)
{
    const int64_t first = s->bos < 0, end = s->windows * step_of(s) + 1;
    for (int64_t i = first; i < end; i++)
        if (label_at(s, i) != QZ_LABEL_NONE) return QZ_OK;
    return QZ_FAIL(QZ_FORMAT,
                   "%s has %lld tokens, and none of them is to be learned: all belong to prompts%s; give completions, "
                   "or answers of the assistant, that are not empty",
                   s->path, (long long)s->tokens.count, s->packs ? " or begin a document" : "");
}

qz_status qz_loader_open(qz_loader **out, const qz_loader_rule *rule, const qz_tokenizer *tokenizer)
{
    *out = NULL;
    qz_loader *s = qz_calloc(1, sizeof *s);
    if (!s) return QZ_FAIL(QZ_MEMORY, "out of memory: %s", rule->path);
    qz_status status = open_loader(s, rule, tokenizer);
    if (status == QZ_OK) status = check_targets(s);
    if (status == QZ_OK)
        *out = s;
    else
        qz_loader_close(s);
    return status;
}

void qz_loader_close(qz_loader *s)
{
    if (!s) return;
    qz_token_file_close(&s->tokens);
    qz_free(s->path);
    qz_free(s);
}

/* ---- windows ---- */

static void fill_ids(const qz_loader *s, int32_t *ids, int64_t start, int64_t count)
{
    for (int64_t i = 0; i < count; i++) ids[i] = qz_token_id(&s->tokens, start + i);
}

static int64_t fill_labels(const qz_loader *s, int32_t *labels, int64_t start)
{
    int64_t targets = 0;
    for (int64_t i = 0; i < s->length; i++) {
        labels[i] = label_at(s, start + i);
        targets += labels[i] != QZ_LABEL_NONE;
    }
    return targets;
}

static void fill_first(const qz_loader *s, int32_t *first, int64_t start)
{
    for (int64_t i = 0; i < s->length; i++) {
        bool begins = s->packs && (qz_token_flags(&s->tokens, start + i) & QZ_TOKEN_BEGINS);
        first[i] = begins ? (int32_t)i : i > 0 ? first[i - 1] : 0;
    }
}

static int64_t fill_window(const qz_loader *s, qz_loader_batch *b, int64_t row, int64_t window)
{
    int64_t start = window * step_of(s), lead = s->bos >= 0;
    int32_t *ids = b->ids + row * s->length;
    if (lead) ids[0] = s->bos;
    fill_ids(s, ids + lead, start, step_of(s));
    fill_first(s, b->first + row * s->length, start);
    return fill_labels(s, b->labels + row * s->length, start + 1 - lead);
}

qz_status qz_loader_next(qz_loader *s, qz_loader_batch *batch, int64_t sequences)
{
    QZ_TRY(check_enough(s, sequences));
    batch->sequences = sequences;
    batch->length = s->length;
    batch->targets = 0;
    for (int64_t row = 0; row < sequences; row++) {
        int64_t index = s->at.index, window = s->shuffle ? qz_order_at(&s->order, index) : index;
        batch->targets += fill_window(s, batch, row, window);
        bool last = index + 1 == s->windows;
        go_to(s, (qz_loader_position){s->at.epoch + last, last ? 0 : index + 1});
    }
    return QZ_OK;
}

/* ---- position ---- */

qz_loader_position qz_loader_position_of(const qz_loader *s)
{
    return s->at;
}

qz_status qz_loader_seek(qz_loader *s, qz_loader_position to)
{
    if (to.epoch < 0 || to.index < 0 || to.index >= s->windows)
        return QZ_FAIL(QZ_FORMAT, "%s: there is no window %lld in epoch %lld: an epoch has %lld windows", s->path,
                       (long long)to.index, (long long)to.epoch, (long long)s->windows);
    go_to(s, to);
    return QZ_OK;
}

const char *qz_loader_hash(const qz_loader *s)
{
    return s->tokens.hash;
}

int64_t qz_loader_windows(const qz_loader *s)
{
    return s->windows;
}

int64_t qz_loader_tokens(const qz_loader *s)
{
    return s->tokens.count;
}

bool qz_loader_packs(const qz_loader *s)
{
    return s->packs;
}
