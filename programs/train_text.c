/* The texts that a training recipe names -> a loader of batches, and one batch to judge by. */
#include "programs/train_text.h"

#include "base/parallel.h"

static qz_loader_pack pack_of(qz_train_pack pack)
{
    static const qz_loader_pack packs[] = {[QZ_TRAIN_PACK_AUTO] = QZ_LOADER_AUTO,
                                           [QZ_TRAIN_PACK_DOCUMENTS] = QZ_LOADER_DOCUMENTS,
                                           [QZ_TRAIN_PACK_STREAM] = QZ_LOADER_STREAM};
    return packs[pack];
}

/* "eos_token_id" of config.json, the first of a list; -1: none. */
static int32_t end_of_text(const qz_ckpt *c)
{
    const qz_json_node *node = qz_json_get(qz_json_root(qz_ckpt_config(c)), "eos_token_id");
    if (qz_json_is(node, QZ_JSON_ARRAY)) node = qz_json_first(node);
    return qz_json_is(node, QZ_JSON_NUMBER) ? (int32_t)qz_json_double(node) : -1;
}

/* What both texts have in common: the model and where the tokens are kept. */
static qz_loader_rule rule_of(const qz_run *r)
{
    const qz_session *s = &r->job.session;
    const qz_model_config *config = qz_model_config_of(s->model);
    return (qz_loader_rule){.model = qz_ckpt_folder(s->ckpt),
                            .bos = config->bos,
                            .eos = end_of_text(s->ckpt),
                            .pack = pack_of(r->job.recipe->train.pack),
                            .vocabulary = config->vocabulary,
                            .folder = qz_output_work(r->made[0].output),
                            .progress = r->progress};
}

static qz_status open_loader(qz_loader **out, const qz_run *r, const qz_loader_rule *rule, const char *key)
{
    QZ_TRY_CTX(qz_session_can_read(&r->job.session, rule->path), "%s", key);
    QZ_TRY_CTX(qz_loader_open(out, rule, r->job.session.tokenizer), "%s", key);
    return QZ_OK;
}

qz_status qz_run_open_training_text(qz_loader **out, const qz_run *r)
{
    const qz_recipe_train *t = &r->job.recipe->train;
    qz_loader_rule rule = rule_of(r);
    rule.path = t->data;
    rule.field = t->field;
    rule.length = t->sequence_length;
    rule.batch = t->batch;
    rule.shuffle = t->shuffle;
    rule.seed = t->seed;
    return open_loader(out, r, &rule, "train.data");
}

static qz_status load_documents(qz_run *r)
{
    const qz_recipe_train *t = &r->job.recipe->train;
    qz_loader *loader;
    qz_loader_rule rule = rule_of(r);
    rule.path = t->validation.data;
    rule.field = t->validation.field;
    rule.length = t->validation.sequence_length;
    QZ_TRY(open_loader(&loader, r, &rule, "train.validation.data"));
    qz_status status =
        qz_step_batch_read(&r->validation.batch, loader, t->validation.windows, rule.length, r->cli->arena);
    snprintf(r->validation.hash, sizeof r->validation.hash, "%s", qz_loader_hash(loader));
    qz_loader_close(loader);
    QZ_TRY_CTX(status, "train.validation.data: %s", rule.path);
    return QZ_OK;
}

static qz_status load_windows(qz_run *r)
{
    const qz_recipe_train *t = &r->job.recipe->train;
    const qz_windows_rule rule = {.path = t->validation.data,
                                  .field = t->validation.field,
                                  .count = t->validation.windows,
                                  .length = t->validation.sequence_length,
                                  .allow_fewer = true};
    const double began = qz_seconds();
    qz_windows windows;
    QZ_TRY_CTX(qz_session_windows(&windows, &r->job.session, &rule), "train.validation.data");
    qz_progress_book(r->progress, "tokenize", qz_seconds() - began);
    snprintf(r->validation.hash, sizeof r->validation.hash, "%s", windows.hash);
    return qz_step_batch_of(&r->validation.batch, &windows, r->cli->arena);
}

qz_status qz_run_load_validation_text(qz_run *r)
{
    const qz_recipe_train *t = &r->job.recipe->train;
    if (!t->validation.wanted) return QZ_OK;
    return qz_data_has_lines(t->validation.data) ? load_documents(r) : load_windows(r);
}
