/* Where the statistics of a recipe and a session come from, or would: what the statistics file records, and what it is
 * compared with. */
#ifndef QZ_PROGRAMS_STATISTICS_SOURCE_H
#define QZ_PROGRAMS_STATISTICS_SOURCE_H

#include "programs/session.h"

/* The calibration text's fingerprint is that of the file that the recipe names; without one it is left NULL, and the
 * samples are 0, so that neither is compared. */
QZ_NODISCARD qz_status qz_statistics_source(qz_stats_source *out, const qz_session *s, const qz_recipe *recipe,
                                            qz_arena *arena);
/* Bytes that the file takes at most, with the layers that recipe.statistics keeps. */
QZ_NODISCARD qz_status qz_statistics_bytes(uint64_t *out, const qz_session *s, const qz_recipe *recipe,
                                           qz_arena *arena);

#endif
