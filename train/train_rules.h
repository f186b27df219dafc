/* A recipe's `train` object -> the rules of student, step, optimizer and schedule. Private to train/. */
#ifndef QZ_TRAIN_TRAIN_RULES_H
#define QZ_TRAIN_TRAIN_RULES_H

#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/train.h"

typedef struct qz_train_rules {
    qz_student_rule student;
    qz_student_adapters adapters; /* student.adapters points here, or is NULL */
    qz_scheme base;
    qz_step_rule step;
    qz_optimizer_options optimizer;
    qz_schedule schedule;
} qz_train_rules;

/* `out` must stay where it is. Combinations that cannot be trained are refused. */
QZ_NODISCARD qz_status qz_train_rules_make(qz_train_rules *out, const qz_train_args *args, bool dry);

#endif
