#include "train/train.h"
qz_status qz_train_plan_make(qz_train_plan *out, const qz_train_args *args)
{
    (void)args;
    *out = (qz_train_plan){.memory = {{"parameters", 1000}}, .rows = 1, .memory_bytes = 1000};
    return QZ_OK;
}
qz_status qz_train_run(qz_train_result *out, const qz_train_args *args)
{
    (void)args;
    (void)out;
    return QZ_FAIL(QZ_UNSUPPORTED, "stub");
}
qz_status qz_train_merge(qz_merge_result *out, const qz_merge_args *args)
{
    (void)args;
    (void)out;
    return QZ_FAIL(QZ_UNSUPPORTED, "stub");
}
