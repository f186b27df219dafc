#!/bin/sh
# No file over 800 lines, no function over 80. A function begins at a line "{" and ends at a line "}", as the format has
# it. Exceptions are listed here by name, with a reason.
set -eu
cd "$(dirname "$0")/.."
git ls-files -z '*.c' '*.h' '*.cu' | xargs -0 awk '
    BEGIN {
        # long["file.c:function"] = "reason"
        limit = 80; file_limit = 800
    }
    FNR == 1 { depth = 0; head = "" }
    FNR == file_limit + 1 { print FILENAME ": more than " file_limit " lines"; bad = 1 }
    /^{$/ { start = FNR; next }
    /^}/ && start {
        lines = FNR - start + 1; start = 0
        name = head; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
        base = FILENAME; sub(/.*\//, "", base)
        if (lines > limit && !((base ":" name) in long)) {
            print FILENAME ":" FNR - lines + 1 ": " name " has " lines " lines, " limit " are allowed"; bad = 1
        }
        next
    }
    !start && /^[A-Za-z_]/ { head = $0 }
    END { exit bad }'
