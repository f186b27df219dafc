/* A LoRA adapter as PEFT keeps one: adapter_config.json and adapter_model.safetensors, F32. */
#ifndef QZ_PROGRAMS_ADAPTER_FOLDER_H
#define QZ_PROGRAMS_ADAPTER_FOLDER_H

#include "recipes/recipes.h"
#include "train/student.h"

/* The student's adapter into `folder`. */
QZ_NODISCARD qz_status qz_adapter_write(const char *folder, qz_student *s, const qz_recipe *recipe);
/* The folder's adapter into the student, whose recipe must say the same of rank and factor; every tensor of one must be
 * in the other. */
QZ_NODISCARD qz_status qz_adapter_read(qz_student *s, const char *folder, const qz_recipe *recipe);

/* One file of tensors in `folder`, whole or not at all: `fill` declares them, then writes them (`writes`). */
typedef qz_status (*qz_adapter_fill)(qz_shards *shards, qz_student *s, const qz_export_plan *plan, bool writes);
QZ_NODISCARD qz_status qz_adapter_write_file(const char *folder, const char *name, qz_adapter_fill fill, qz_student *s,
                                             const qz_export_plan *plan);

#endif
