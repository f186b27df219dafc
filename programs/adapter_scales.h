/* The static scales of inputs and cache that a merge_aware adapter was trained with: activation_scales.safetensors
 * beside it, which PEFT does not look at. */
#ifndef QZ_PROGRAMS_ADAPTER_SCALES_H
#define QZ_PROGRAMS_ADAPTER_SCALES_H

#include "train/student.h"

/* Does the plan round anything with scales that only text can give? */
bool qz_adapter_scales_needed(const qz_export_plan *plan);
bool qz_adapter_scales_exist(const char *folder);
/* What the student rounds with now -> the file. */
QZ_NODISCARD qz_status qz_adapter_scales_write(const char *folder, qz_student *s, const qz_export_plan *plan);
/* The file -> what the student rounds and exports with. Every scale of the plan must be there. */
QZ_NODISCARD qz_status qz_adapter_scales_read(qz_student *s, const char *folder, const qz_export_plan *plan);

#endif
