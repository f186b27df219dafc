/* The demo is recognised by fingerprints of its files (qz_ckpt_hash, qz_hash_file); a test holds them to demo/. */
#include "programs/demo_text.h"

#include <string.h>

#include "base/log.h"

static const char demo_model[] = "e7e4080038e716d355ca4a26f82e8003";
static const char demo_text[] = "f069a642a03442d83775ec068a0b64e7";
static const char demo_path[] = "demo/text/calib.txt";

qz_status qz_demo_text_warn(const qz_session *s, const char *path, const char *hash)
{
    char model[33];
    if (strcmp(hash, demo_text) != 0 && strcmp(path, demo_path) != 0) return QZ_OK;
    QZ_TRY(qz_ckpt_hash(s->ckpt, model));
    if (strcmp(model, demo_model) == 0) return QZ_OK;
    qz_warn("the calibration text %s is the demo's, but %s is another model; for a good result give text like that "
            "which the model will see: --data FILE",
            path, qz_ckpt_folder(s->ckpt));
    return QZ_OK;
}
