/* Regular expressions over module names, as configs of GPTQ (`dynamic`) and compressed-tensors ("re:...") hold them.
 *
 * The part of Python's syntax that such names need: characters, `.`, classes, \d \w \s and escapes, groups, `|`, `*`,
 * `+`, `?`, {m,n}, ^ and $. Look-around, back-references and flags are refused. Matched as Python's re.match does: from
 * the start, not up to the end. Time is proportional to pattern times name whatever they are (Thompson 1968), since
 * both come from files. */
#ifndef QZ_CHECKPOINTS_NAME_REGEX_H
#define QZ_CHECKPOINTS_NAME_REGEX_H

#include <stdbool.h>

#include "base/status.h"

/* QZ_FORMAT or QZ_UNSUPPORTED naming the pattern when it cannot be read. */
QZ_NODISCARD qz_status qz_name_regex_match(bool *out, const char *pattern, const char *name);

#endif
