#!/bin/sh
# What the libraries may not do, seen in their symbols (of build/release, or the folder given):
#   - end the process or write to standard output or error: that is for programs;
#   - keep global state that changes: the exceptions are listed with their reasons;
#   - export a name without the prefix qz_.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-build/release}
libraries=$(find "$folder" -maxdepth 1 -name 'libqz_*.a' ! -name 'libqz_programs.a')
[ -n "$libraries" ] || { echo "$folder has no libraries: run \`make build\` first"; exit 1; }
nm -A --format=sysv $libraries 2>/dev/null | awk -F '|' '
    BEGIN {
        # state["file.c.o:name"]: global state that changes, and why it has to be there
        state["arena.c.o:fail_at"] = "the switch that makes the n-th allocation fail in tests"
        state["arena.c.o:count"] = "its counter"
        state["status.c.o:message"] = "the message of the last failure, one for each thread"
        state["log.c.o:sink"] = "where warnings go, set once by the program"
        n = split("exit _exit _Exit quick_exit abort printf vprintf puts putchar perror stdout stderr __printf_chk " \
                  "__vprintf_chk psignal warn err errx warnx", names, " ")
        for (i = 1; i <= n; i++) forbidden[names[i]] = 1
    }
    {
        # FILE.a:member.c.o:name  |value|class|type|size|line|section
        split($1, at, ":"); member = at[2]; name = at[3]; class = $3; type = $4; section = $7
        gsub(/ /, "", name); gsub(/ /, "", class); gsub(/ /, "", type); gsub(/ /, "", section)
        plain = name; sub(/\.[0-9]+$/, "", plain)
    }
    class == "U" && name in forbidden { print member ": refers to " name; bad = 1 }
    (type == "OBJECT" || type == "TLS") && section ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ &&
        section !~ /^\.data\.rel\.ro/ && !((member ":" plain) in state) {
        print member ": " name " is state that changes (" section ")"; bad = 1
    }
    class ~ /^[TDBRC]$/ && name !~ /^qz_/ { print member ": exports " name " without qz_"; bad = 1 }
    END { exit bad }'
