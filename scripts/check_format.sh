#!/bin/sh
# Every *.c and *.h is as clang-format writes it; --fix rewrites them. (*.def are tables, laid out by hand.)
set -eu
cd "$(dirname "$0")/.."
version=$(clang-format --version | sed -E 's/.*version ([0-9]+).*/\1/')
[ "$version" = 14 ] || echo "clang-format $version, but the sources are formatted with 14" >&2
if [ "${1-}" = --fix ]; then
    git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i
else
    git ls-files -z '*.c' '*.h' | xargs -0 clang-format --dry-run -Werror
fi
