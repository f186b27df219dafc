#!/bin/sh
# File names are unique in the tree, so that a name says which file. (tests/<kind>/ is a name space of its own: the
# program there is called test_<kind>_<name>.)
set -eu
cd "$(dirname "$0")/.."
git ls-files '*.c' '*.h' '*.cu' '*.def' | awk '
    { n = split($0, part, "/"); name = part[n]
      if (part[1] == "tests") name = part[2] "/" name
      if (name in seen) { print $0 ": the name is taken by " seen[name]; bad = 1 }
      seen[name] = $0 }
    END { exit bad }'
