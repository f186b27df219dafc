#!/bin/sh
# Runs every libFuzzer target for FUZZ_SECONDS (60), starting from tests/fuzz/corpus. New inputs are kept in
# build/fuzz/corpus; an input that fails is written to build/fuzz/failures.
set -eu
cd "$(dirname "$0")/.."
scripts/build.sh fuzz
mkdir -p build/fuzz/failures
for program in build/fuzz/bin/fuzz_*; do
    name=${program##*/fuzz_}
    mkdir -p "build/fuzz/corpus/$name"
    echo "fuzz: $name for ${FUZZ_SECONDS:-60} s"
    "$program" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="build/fuzz/failures/$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
done
