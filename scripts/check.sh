#!/bin/sh
# Runs every scripts/check_*.sh and ends with a failure if any of them found something.
set -eu
cd "$(dirname "$0")/.."
failed=
for script in scripts/check_*.sh; do
    name=${script##*/check_}
    name=${name%.sh}
    if output=$("$script" 2>&1); then
        echo "check $name: ok${output:+ ($output)}"
    else
        printf '%s\n' "$output"
        echo "check $name: FAILED"
        failed="$failed $name"
    fi
done
[ -z "$failed" ] || { echo "checks failed:$failed" >&2; exit 1; }
