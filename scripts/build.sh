#!/bin/sh
# build.sh PRESET [TARGET...]: configures and builds quietly; on a failure shows everything.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
echo "build: $preset (in build/$preset)"
mkdir -p "build/$preset"
log=build/$preset/configure.log
cmake --preset "$preset" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
if [ $# -gt 0 ]; then
    cmake --build --preset "$preset" --target "$@"
else
    cmake --build --preset "$preset"
fi
