#!/bin/sh
# Runs all tests with gcov's counters and prints the share of lines covered, by folder.
set -eu
cd "$(dirname "$0")/.."
scripts/build.sh coverage
find build/coverage -name '*.gcda' -exec rm -f {} +
ctest --preset coverage
# gcov's own lines "File '...'" and "Lines executed:P% of N" are summed up by folder.
find build/coverage/CMakeFiles -name '*.gcda' -exec gcov -n -r -s "$PWD" {} + 2>/dev/null | awk '
    /^File / { file = $2; gsub(/\047/, "", file); next }
    /^Lines executed/ && file ~ /\.[ch]$/ {
        split($2, part, ":"); percent = part[2] + 0; lines = $4 + 0
        if (lines > all[file]) { all[file] = lines }
        if (lines * percent / 100 > hit[file]) { hit[file] = lines * percent / 100 }
        file = ""
    }
    END {
        for (f in all) { folder = f; sub(/\/.*/, "", folder); total[folder] += all[f]; covered[folder] += hit[f] }
        for (d in total) printf "%-12s %5.1f %%  of %d lines\n", d, 100 * covered[d] / total[d], total[d]
    }' | sort
