#!/bin/sh
# Do the real programs read what we write? Quantizes the demo model, then compares the perplexity that qcal, vLLM,
# transformers (gptqmodel) and an independent decoder find (all within 0.1 %), and our dequantized weights with that
# decoder's. For developers: needs the interop scripts in $QZ_SHARED/interop (default ../shared) and the Python
# environments that their setup.sh makes (vllm, hf, gptq; several GB).
set -eu
cd "$(dirname "$0")/../.."
shared=${QZ_SHARED:-../shared}
scripts=$shared/interop
home=${QZ_INTEROP_HOME:-$HOME/.cache/quartz-interop}
qcal=$PWD/build/release/bin/qcal
text=demo/text/test.txt
windows=80
[ -f "$scripts/check_vllm.py" ] || { echo "interop: no $scripts; set QZ_SHARED to the folder that holds interop/" >&2; exit 1; }
for name in vllm hf gptq; do
    [ -x "$home/$name/bin/python" ] || {
        echo "interop: no environment $home/$name: run $scripts/setup.sh $name (it is large)" >&2
        exit 1
    }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${1:-$work/awq}
[ -d "$out" ] || "$qcal" run recipes/awq-llama.json --output "$out" --quiet

# A check prints one line of JSON among others; the figure of a key in it.
figure() {
    sed -n 's/.*"'"$1"'": *\([0-9.eE+-]*\).*/\1/p' "$2" | tail -n 1
}
check() { # name, key, command...
    name=$1 key=$2
    shift 2
    echo "interop: $name"
    "$@" >"$work/$name.out" 2>"$work/$name.err" || {
        tail -n 20 "$work/$name.out" "$work/$name.err" >&2
        echo "interop: $name FAILED" >&2
        exit 1
    }
    printf '%s %s\n' "$name" "$(figure "$key" "$work/$name.out")" >>"$work/figures"
}
check qcal perplexity "$qcal" eval "$out" --data $text --windows $windows --json
check dense ppl "$home/hf/bin/python" "$scripts/ppl_dense.py" "$out" --text $text --windows $windows
check vllm ppl "$home/vllm/bin/python" "$scripts/check_vllm.py" "$out" --text $text --windows $windows
check transformers ppl "$home/gptq/bin/python" "$scripts/check_hf.py" "$out" --text $text --windows $windows
awk '{ if (NR == 1) first = $2
       ratio = $2 / first; bad = !(ratio > 0.999 && ratio < 1.001); failed = failed || bad
       printf "%-14s %10.4f %+8.3f %% %s\n", $1, $2, 100 * (ratio - 1), bad ? "FAILED: more than 0.1 %" : "" }
     END { exit failed || NR != 4 }' "$work/figures"

echo "interop: our dequantized weights against decode.py's"
"$qcal" decode "$out" --output "$work/ours.safetensors"
"$home/hf/bin/python" "$scripts/decode.py" "$out" -o "$work/theirs.safetensors" >/dev/null
"$home/hf/bin/python" "$scripts/compare.py" "$work/ours.safetensors" "$work/theirs.safetensors" --fail-above 1e-6 \
    >"$work/compare.out" || { cat "$work/compare.out"; exit 1; }
tail -n 1 "$work/compare.out"
echo "interop: all of it agrees"
