#!/bin/sh
# `make bench`: calibration, AWQ and export of a Llama-shaped model (4 layers, hidden 2048, ffn 8192) with 128 samples of
# 512 tokens, then the whole of `qcal run` on the demo model, then training steps (bench/train_peer.sh). Figures of runs
# come from their own report.json.
# The model (750 MB) is kept in $QZ_BENCH (default $TMPDIR/quartz-bench) for the next time.
set -eu
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE
folder=${QZ_BENCH:-${TMPDIR:-/tmp}/quartz-bench}
bin=build/release/bin
scripts/build.sh release qcal make_model bench_report
model=$folder/4-layers
if [ ! -f "$model/model.safetensors" ]; then
    echo "bench: writing $model"
    $bin/make_model "$model"
fi
echo
echo "== 4 layers, hidden 2048, ffn 8192, 128 samples of 512"
$bin/qcal run bench/awq-bench.json --model "$model" --output "$folder/out" --overwrite --quiet >/dev/null
$bin/bench_report "$folder/out"
echo
echo "== the demo model, all of recipes/awq-llama.json"
$bin/qcal run recipes/awq-llama.json --output "$folder/demo" --overwrite --quiet >/dev/null
$bin/bench_report "$folder/demo"

echo
echo "== training steps, batches of 8 x 512 tokens"
ROUNDS=${ROUNDS:-1} bench/train_peer.sh
