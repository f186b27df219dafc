/* A data file -> its ids in a file without a name, mapped: two bytes an id where the vocabulary allows it, else four.
 * Beside it, where documents are packed or prompts may be there, a byte for each id says what it is. Both are written
 * in one pass, so neither the text nor its ids need fit into memory. */
#include <stdio.h>
#include <string.h>

#include "data/loader_impl.h"

enum { BLOCK = 4096 };

typedef struct writer {
    const qz_loader_rule *rule;
    const qz_windows_rule *checks; /* path and vocabulary */
    const qz_tokenizer *tokenizer;
    qz_spill *ids, *flags; /* flags NULL: not kept */
    qz_hasher *hash;
    bool wide, packs;
    int64_t count;
    uint64_t size, told; /* of the file, in bytes; how many were told to be read */
    bool framed, begun;  /* of the document at hand: it gets BOS and EOS; one of its ids is written */
} writer;

static qz_status add_ids(writer *w, const int32_t *ids, size_t count)
{
    uint16_t narrow[BLOCK];
    const void *data = ids;
    for (size_t i = 0; i < count && !w->wide; i++) narrow[i] = (uint16_t)ids[i];
    if (!w->wide) data = narrow;
    size_t size = count * (w->wide ? sizeof *ids : sizeof *narrow);
    qz_hasher_add(w->hash, data, size);
    return qz_spill_add(w->ids, data, size);
}

static qz_status add_flags(writer *w, size_t count, bool counts)
{
    uint8_t flags[BLOCK];
    if (!w->flags) return QZ_OK;
    memset(flags, counts ? QZ_TOKEN_COUNTS : 0, count);
    if (!w->begun) flags[0] |= QZ_TOKEN_BEGINS;
    qz_hasher_add(w->hash, flags, count);
    return qz_spill_add(w->flags, flags, count);
}

static qz_status add(writer *w, const int32_t *ids, size_t count, bool counts)
{
    QZ_TRY(add_ids(w, ids, count));
    QZ_TRY(add_flags(w, count, counts));
    w->begun = true;
    w->count += (int64_t)count;
    return QZ_OK;
}

static qz_status begin(void *self, bool conversation)
{
    writer *w = self;
    w->framed = w->packs && !conversation;
    w->begun = false;
    return QZ_OK;
}

/* BOS waits for the first id, because an empty document is none. */
static qz_status take(void *self, const int32_t *ids, size_t count, bool counts)
{
    writer *w = self;
    QZ_TRY(qz_ids_check(w->checks, w->tokenizer, (size_t)w->count, ids, count));
    if (!w->begun && w->framed && w->rule->bos >= 0 && count) QZ_TRY(add(w, &w->rule->bos, 1, true));
    for (size_t done = 0, n; done < count; done += n) {
        n = count - done < BLOCK ? count - done : BLOCK;
        QZ_TRY(add(w, ids + done, n, counts));
    }
    return QZ_OK;
}

static qz_status end(void *self)
{
    writer *w = self;
    return w->begun && w->framed && w->rule->eos >= 0 ? add(w, &w->rule->eos, 1, true) : QZ_OK;
}

static qz_status passed(void *self, uint64_t done, uint64_t all)
{
    writer *w = self;
    char line[64];
    const uint64_t now = all ? (uint64_t)((double)w->size * (double)done / (double)all) : 0;
    const uint64_t more = now > w->told ? now - w->told : 0;
    w->told += more;
    snprintf(line, sizeof line, "%.1f of %.1f MB", (double)w->told * 1e-6, (double)w->size * 1e-6);
    return qz_progress_step(w->rule->progress, more, line);
}

/* An id may be more than two bytes hold. Ids, BOS and EOS are checked against a vocabulary that is known. */
static bool is_wide(const qz_loader_rule *rule)
{
    return rule->vocabulary <= 0 || rule->vocabulary > UINT16_MAX + 1;
}

static qz_status map(qz_token_file *out, writer *w)
{
    out->wide = w->wide;
    out->count = w->count;
    QZ_TRY(qz_spill_map(&out->ids, w->ids));
    return w->flags ? qz_spill_map(&out->flags, w->flags) : QZ_OK;
}

static qz_status write(writer *w, const qz_loader_rule *rule)
{
    qz_document_taker taker = {.self = w, .begin = begin, .take = take, .end = end, .folder = rule->folder};
    taker.passed = passed;
    taker.training = true;
    taker.apart = w->packs;
    QZ_TRY(qz_spill_open(&w->ids, rule->folder));
    if (w->packs || qz_data_has_lines(rule->path)) QZ_TRY(qz_spill_open(&w->flags, rule->folder));
    return qz_documents_visit(w->checks, w->tokenizer, SIZE_MAX, &taker);
}

qz_status qz_token_file_make(qz_token_file *out, const qz_loader_rule *rule, bool packs, const qz_tokenizer *tokenizer)
{
    qz_windows_rule checks = {.path = rule->path, .field = rule->field, .model = rule->model, .bos = rule->bos};
    checks.vocabulary = rule->vocabulary;
    writer w = {.rule = rule, .checks = &checks, .tokenizer = tokenizer, .packs = packs};
    w.wide = is_wide(rule);
    *out = (qz_token_file){0};
    QZ_TRY(qz_file_size(rule->path, &w.size));
    QZ_TRY(qz_hasher_new(&w.hash));
    qz_progress_begin(rule->progress, "tokenize", w.size);
    qz_status status = write(&w, rule);
    qz_progress_end(rule->progress);
    if (status == QZ_OK) status = map(out, &w);
    qz_hasher_finish(w.hash, out->hash);
    qz_spill_close(w.ids);
    qz_spill_close(w.flags);
    return status;
}

void qz_token_file_close(qz_token_file *f)
{
    qz_map_close(&f->ids);
    qz_map_close(&f->flags);
}
