#!/bin/sh
# Training steps of ours and of PyTorch, one after the other in ROUNDS (2): tokens a second and peak memory of
# MODES (full qat lora qlora) on SHAPES (demo mid) in PRECISIONS (fp32 bf16), batches of 8 x 512 tokens. Where PyTorch is
# not found (environment hf under $QZ_INTEROP_HOME, $QZ_SHARED/bench/torch_train.py) ours stands alone.
set -eu
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE
shared=${QZ_SHARED:-../shared}
python=${QZ_INTEROP_HOME:-$HOME/.cache/quartz-interop}/hf/bin/python
folder=${QZ_BENCH:-${TMPDIR:-/tmp}/quartz-bench}
steps=${STEPS:-8}
bin=build/release/bin
scripts/build.sh release make_model bench_train
mid=$folder/mid
[ -f "$mid/model.safetensors" ] || $bin/make_model "$mid" --layers 6 --hidden 512 --ffn 1536 --heads 8 --kv-heads 4 \
    --head-dim 64 --vocab 8192
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT

field() { sed -n "s/.*\"$1\": *\([0-9.]*\).*/\1/p"; }

one_round() {
    case $shape in demo) model=demo/model ;; *) model=$mid ;; esac
    ours=$($bin/bench_train "$model" "$mode" 8 512 "$steps" "$precision")
    theirs=
    [ -x "$python" ] && [ -f "$shared/bench/torch_train.py" ] &&
        theirs=$("$python" "$shared/bench/torch_train.py" --shape "$shape" --mode "$mode" --precision "$precision" \
            --batch 8 --tokens 512 --steps "$steps" --threads "$(nproc)" 2>/dev/null | tail -1)
    echo "$shape $precision $mode" \
        "$(echo "$ours" | field tokens_per_s_median) $(echo "$ours" | field peak_rss_mb)" \
        "$(echo "$theirs" | field tokens_per_s_median) $(echo "$theirs" | field peak_rss_mb)" >>"$figures"
}

for round in $(seq "${ROUNDS:-2}"); do
    for shape in ${SHAPES:-demo mid}; do
        for precision in ${PRECISIONS:-fp32 bf16}; do
            for mode in ${MODES:-full qat lora qlora}; do one_round; done
        done
    done
done
echo "shape precision mode: ours tokens/s, MB; PyTorch tokens/s, MB; ours / PyTorch"
awk '{ k = $1 " " $2 " " $3; if (!(k in n)) order[++rows] = k; n[k]++; a[k] += $4; am[k] = $5; b[k] += $6; bm[k] = $7 }
     END { for (i = 1; i <= rows; i++) { k = order[i]
           if (b[k] > 0) printf "%-18s %8.0f %6d   %8.0f %6d   %.2f\n", k, a[k] / n[k], am[k], b[k] / n[k], bm[k], a[k] / b[k]
           else printf "%-18s %8.0f %6d\n", k, a[k] / n[k], am[k] } }' "$figures"
