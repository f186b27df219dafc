/* See identity.h. */
#include "calib/identity.h"

#include <stdio.h>

#include "base/hash.h"

enum { PROPERTIES = 8 };

typedef struct identity {
    qz_journal_text property[PROPERTIES];
    size_t count;
    char model[QZ_HASH_TEXT], layers[24];
} identity;

static void add(identity *id, const char *name, const char *value)
{
    id->property[id->count++] = (qz_journal_text){name, value ? value : ""};
}

static qz_status identify(identity *id, const qz_calib_args *a, const qz_calib_output *o)
{
    *id = (identity){0};
    QZ_TRY(qz_ckpt_hash(qz_model_ckpt(a->model), id->model));
    snprintf(id->layers, sizeof id->layers, "%lld", (long long)qz_model_config_of(a->model)->layers);
    add(id, "program version", QZ_VERSION);
    add(id, "recipe", o->recipe->hash);
    add(id, "model", id->model);
    add(id, "calibration text", a->windows ? a->windows->hash : "");
    add(id, "arithmetic", qz_model_backend(a->model)->describe());
    add(id, "layers", id->layers);
    add(id, "inputs of a layer", qz_calib_propagates_quantized(a) ? "quantized" : "original");
    return QZ_OK;
}

static int largest_layer(const qz_journal *j)
{
    int done = 0;
    for (size_t i = 0; i < qz_journal_layers(j); i++)
        if (qz_journal_layer_at(j, i)->layer >= done) done = qz_journal_layer_at(j, i)->layer + 1;
    return done;
}

qz_status qz_identity_journal(qz_journal **out, int *done, const qz_calib_args *args, const qz_calib_output *output,
                              bool resume)
{
    identity id;
    *done = 0;
    QZ_TRY(identify(&id, args, output));
    if (!resume) return qz_journal_create(out, output->folder, id.property, id.count);
    QZ_TRY(qz_journal_open(out, output->folder));
    *done = largest_layer(*out);
    return qz_journal_compare(*out, id.property, id.count);
}
