#!/bin/sh
# Every #include "folder/..." points down the ladder (cmake/ladder.txt). Tests may include anything.
set -eu
cd "$(dirname "$0")/.."
awk '
    FILENAME == "cmake/ladder.txt" {
        if ($0 ~ /^#/ || NF < 2) next
        floor[$2] = $1
        for (i = 3; i <= NF; i++) {
            if ($i ~ /^-/) hidden[$2, substr($i, 2)] = 1
            else public[$2 "/" substr($i, 2)] = 1
        }
        public[$2 "/" $2 ".h"] = 1
        next
    }
    function wrong(why) { print FILENAME ":" FNR ": includes \"" path "\": " why; bad = 1 }
    FNR == 1 { from = FILENAME; sub(/\/.*/, "", from)
               if (!(from in floor)) { print FILENAME ": its folder is not in cmake/ladder.txt"; bad = 1 } }
    /^[ \t]*#[ \t]*include[ \t]*"/ && from in floor {
        split($0, part, "\""); path = part[2]; to = path; sub(/\/.*/, "", to)
        if (path !~ /\//) wrong("a quoted include names the folder as well")
        else if (!(to in floor)) wrong("no such folder in cmake/ladder.txt")
        else if (to == from) next
        else if (floor[to] >= floor[from]) wrong(to " is on floor " floor[to] ", " from " on floor " floor[from])
        else if ((from, to) in hidden) wrong(from " must not see " to)
        else if (floor[to] >= 2 && !(path in public)) wrong("that header is private to " to)
    }
    END { exit bad }' cmake/ladder.txt $(git ls-files '*.c' '*.h' '*.cu' '*.def' | grep -v '^tests/')
