#!/bin/sh
# test.sh PRESET...: builds each preset and runs all its tests; goes on after a failure and ends with a failure then.
set -eu
cd "$(dirname "$0")/.."
failed=
for preset; do
    scripts/build.sh "$preset"
    ctest --preset "$preset" || failed="$failed $preset"
done
[ -z "$failed" ] || { echo "tests failed in:$failed" >&2; exit 1; }
