#!/bin/sh
# Each third party is included in one place only, its door. Tests may look at anything.
set -eu
cd "$(dirname "$0")/.."
# what an include line holds            the files that may (both are regular expressions)
doors='cJSON\.h                         base/json.*\.c
hdf5                                    base/h5\.c
xxhash\.h                               base/hash\.c
omp\.h                                  base/parallel\.h
(cblas|lapacke?|openblas_config)\.h     kernels/cpu_blas\.c
(pcre2|utf8proc)\.h                     data/tokenizer.*\.c
(cuda|cublas|cudnn|curand|cusolver)     kernels/cuda_.*
criterion/                              none'
files=$(git ls-files '*.c' '*.h' '*.cu' | grep -v '^tests/')
found=$(
    echo "$doors" | while read -r header door; do
        grep -nHE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$header" $files | grep -vE "^$door:" || true
    done
    grep -nHE '#[[:space:]]*pragma[[:space:]]+omp|_Pragma\("omp' $files | grep -v '^base/parallel\.h:' || true
)
[ -z "$found" ] && exit 0
echo "$found"
echo "these go through one file each: $doors"
exit 1
