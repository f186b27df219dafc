#!/bin/sh
# Runs the golden tests one after the other and shows the cases that they compared and skipped. QZ_GOLDEN=folder:
# fixtures of the same layout instead of tests/golden.
set -eu
cd "$(dirname "$0")/.."
scripts/build.sh release
echo "golden: fixtures of ${QZ_GOLDEN:-tests/golden}"
log=build/release/golden.log
status=0
ctest --preset release -L golden --verbose -j 1 >"$log" 2>&1 || status=$?
sed -nE '/Test (command|timeout)|Working Directory|Environment variables|CRITERION_JOBS=|OMP_WAIT_POLICY=|UBSAN_OPTIONS=/d
    s/^[0-9]+: //p; /^ *[0-9]+\/[0-9]+ Test|tests passed|tests failed/p' "$log"
exit $status
