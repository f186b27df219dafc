#!/bin/sh
# Every relative link in a *.md file leads to a file, and so does every path in backticks that begins with a folder of
# ours and holds no pattern.
set -eu
cd "$(dirname "$0")/.."
missing=$(
    git ls-files '*.md' | while read -r page; do
        {
            grep -oE '\]\([^):#]+' "$page" | sed "s#^](#$(dirname "$page")/#" || true
            grep -oE '`(base|numeric|kernels|checkpoints|recipes|data|quant|models|eval|calib|programs|tests|bench|scripts|cmake|docs)/[A-Za-z0-9_./-]+`' "$page" |
                tr -d '`' || true
        } | sort -u | while read -r path; do
            [ -e "$path" ] || echo "$page: there is no $path"
        done
    done
)
[ -z "$missing" ] || { echo "$missing"; exit 1; }
