#!/bin/sh
# Ours and llm-compressor side by side on one machine: 2 layers of hidden 2048 and ffn 8192, SAMPLES (32) of 512 tokens,
# METHOD awq (default) or gptq. The two alternate ROUNDS times (2); the ratio is of the time for the same phases: imports,
# loading and saving aside. Memory is the peak of anonymous pages of ours and of resident pages of theirs.
# For developers: needs $QZ_SHARED/bench/peer_llmc.py (default ../shared) and the environment hf under $QZ_INTEROP_HOME.
set -eu
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE
shared=${QZ_SHARED:-../shared}
python=${QZ_INTEROP_HOME:-$HOME/.cache/quartz-interop}/hf/bin/python
folder=${QZ_BENCH:-${TMPDIR:-/tmp}/quartz-bench}
threads=$(nproc)
samples=${SAMPLES:-32}
method=${METHOD:-awq}
case $method in
awq) scheme=W4A16_AWQ ;;
gptq) scheme=W4A16_GPTQ ;;
*) echo "peer: METHOD is $method; it is awq or gptq" >&2; exit 1 ;;
esac
bin=build/release/bin
[ -f "$shared/bench/peer_llmc.py" ] || { echo "peer: no $shared/bench/peer_llmc.py: set QZ_SHARED" >&2; exit 1; }
[ -x "$python" ] || { echo "peer: no $python: run $shared/interop/setup.sh hf (it is large)" >&2; exit 1; }
scripts/build.sh release qcal make_model bench_report
model=$folder/2-layers
[ -f "$model/model.safetensors" ] || $bin/make_model "$model" --layers 2
figures=$(mktemp)
trap 'rm -f "$figures"' EXIT
for round in $(seq "${ROUNDS:-2}"); do
    $bin/qcal run "bench/$method-bench.json" --model "$model" --output "$folder/ours" --overwrite --quiet \
        --threads "$threads" --set calibration.samples="$samples" >/dev/null
    ours=$($bin/bench_report --calibration-seconds "$folder/ours")
    memory=$(sed -n 's/.*"anonymous_peak": *\([0-9]*\).*/\1/p' "$folder/ours/report.json")
    rm -rf "$folder/theirs"
    line=$("$python" "$shared/bench/peer_llmc.py" "$model" "$folder/theirs" --scheme "$scheme" --samples "$samples" \
        --seq 512 --threads "$threads" --text demo/text/calib.txt 2>/dev/null | grep calibrate_s)
    theirs=$(echo "$line" | sed -n 's/.*"calibrate_s": *\([0-9.]*\).*/\1/p')
    peak=$(echo "$line" | sed -n 's/.*"peak[a-z_]*": *\([0-9.]*\).*/\1/p')
    echo "round $round: ours $ours s and $((memory / 1000000)) MB, llm-compressor $theirs s and $peak MB"
    echo "$ours $theirs" >>"$figures"
done
$bin/bench_report "$folder/ours"
awk '{ ours += $1; theirs += $2 } END { printf "ours is %.1f times as fast\n", theirs / ours }' "$figures"
