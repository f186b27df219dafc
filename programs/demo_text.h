/* A model of the user's own, calibrated on the text that comes with Quartz, deserves a warning. */
#ifndef QZ_PROGRAMS_DEMO_TEXT_H
#define QZ_PROGRAMS_DEMO_TEXT_H

#include "programs/session.h"

/* Warns when `path` (with fingerprint `hash`) is the demo's text and the session's model is not the demo's. */
QZ_NODISCARD qz_status qz_demo_text_warn(const qz_session *s, const char *path, const char *hash);

#endif
