#!/bin/sh
# The table of docs/results.md that compares quantization after training with training through it, on the demo model:
#
#     bench/qat.sh TEXT [STEPS]        TEXT trains (2000 steps of 4096 tokens), demo/text/test.txt judges
#
# For int3 (groups of 128) and int2 (groups of 64): our GPTQ, the same trained on from there to predict what the bf16
# model predicts, and beside them the bf16 model trained by as many steps on the same text, so that what the text itself
# teaches is not taken for recovery. A run that was interrupted goes on with the same command.
set -eu
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
text=$1
steps=${2:-2000}
folder=${QZ_BENCH:-${TMPDIR:-/tmp}/quartz-bench}/qat-$steps
bin=build/release/bin
scripts/build.sh release qcal qat
mkdir -p "$folder"

# NAME PROGRAM COMMAND RECIPE...: once; unfinished work is taken up again
make_once() {
    name=$1
    shift
    [ -d "$folder/$name" ] && return
    [ -d "$folder/$name.partial" ] && set -- "$@" --resume
    "$@" --output "$folder/$name" || [ $? -eq 3 ] # 3: finished, but not accepted
}

make_once ptq-w3 $bin/qcal run recipes/gptq-w3.json
make_once ptq-w2 $bin/qcal run recipes/gptq-w3.json --set weights.format=int2 --set weights.group=64
for bits in 3 2; do
    make_once qat-w$bits $bin/qat train recipes/qat-w$bits.json --set train.data="$text" --set train.steps="$steps" \
        --set train.save_every=100
done
make_once bf16-trained $bin/qat train recipes/pretrain-demo.json --set train.data="$text" --set train.start=model \
    --set train.learning_rate=1e-4 --set train.weight_decay=0 --set train.steps="$steps" --set train.save_every=100
$bin/qcal compare demo/model "$folder/bf16-trained" "$folder/ptq-w3" "$folder/qat-w3" "$folder/ptq-w2" \
    "$folder/qat-w2" --data demo/text/test.txt --windows 80
