#!/bin/sh
# Installs the Debian packages that Quartz needs and that are missing; says what it does. Safe to run again: when nothing
# is missing it changes nothing and asks no server.
#
#   scripts/setup.sh             to build, run and test
#   scripts/setup.sh check       also what `make check` needs
#   scripts/setup.sh clang       also what the presets clang, tsan and fuzz need
set -eu

build="cmake ninja-build gcc libc6-dev pkg-config libcjson-dev libhdf5-dev libopenblas-openmp-dev libpcre2-dev
libutf8proc-dev libxxhash-dev libcriterion-dev xz-utils"
check="clang-format"
clang="clang libclang-rt-dev libomp-dev"

wanted=$build
for group; do
    case $group in
    check) wanted="$wanted $check" ;;
    clang) wanted="$wanted $clang" ;;
    *) echo "usage: scripts/setup.sh [check] [clang]" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "setup: this is not a Debian system; please see to the equivalents of:" $wanted
    exit 0
fi

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=
for package in $wanted; do
    installed "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "setup: all packages are there"
    exit 0
fi

root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "setup: these packages are missing; as root, run: apt-get install$missing" >&2
        exit 1
    }
    root=sudo
fi

# Another package manager may be at work (a fresh machine updates itself): wait for it.
apt() {
    $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@"
}

echo "setup: installing$missing"
apt update >/dev/null || echo "setup: apt-get update failed; trying with the lists that are there" >&2
apt install --no-install-recommends $missing
echo "setup: done"
