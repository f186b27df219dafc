#!/bin/sh
# Does peft read what `qat train` writes, and the other way round? Short trainings of the demo model: on the weights as they
# are stored, of some linears only, on a folder that bitsandbytes wrote, and on an NF4 base of ours; then logits of base
# and adapter, ours against peft's; then the adapter as peft writes it again, whose logits must be the same bit for bit.
# The first is loaded in vLLM as well, where its environment is there.
# For developers: needs the Python environment hf of $QZ_SHARED/interop/setup.sh (several GB).
set -eu
cd "$(dirname "$0")/../.."
unset OPENBLAS_CORETYPE
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" HF_HUB_OFFLINE=1
home=${QZ_INTEROP_HOME:-$HOME/.cache/quartz-interop}
bin=${QZ_BIN:-build/release/bin}
python=$home/hf/bin/python
[ -x "$python" ] || { echo "interop: no environment $home/hf: run setup.sh hf of the interop scripts" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

recipe() { # name, model, further members of the adapter
    cat >"$work/$1.json" <<END
{ "version": 1, "model": "$2", "output": "$work/$1", "export": { "container": "dense" },
  "train": { "data": "demo/text/train.txt", "parameters": "adapter", "steps": 12, "batch": 4, "sequence_length": 64,
             "learning_rate": 0.005, "adapter": { "rank": 8, "alpha": 16, "rslora": true $3 } } }
END
}
check() { # name, model, limit, flags of adapter.py, further members of the adapter
    recipe "$1" "$2" "$5"
    "$bin/qat" train "$work/$1.json" --quiet >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    "$bin/adapter_logits" "$work/$1.json" "$work/$1" "$work/$1.f32"
    # shellcheck disable=SC2086
    "$python" tests/interop/adapter.py check "$2" "$work/$1" "$work/$1.f32" --limit "$3" --save "$work/$1-peft" $4 \
        2>"$work/err" || { tail -n 5 "$work/err" >&2; echo "FAILED: $1" >&2; bad=1; return; }
    "$bin/adapter_logits" "$work/$1.json" "$work/$1-peft" "$work/again.f32"
    cmp "$work/$1.f32" "$work/again.f32" || { echo "FAILED: $1, written again by peft" >&2; bad=1; }
}
"$python" tests/interop/adapter.py base demo/model "$work/nf4-model" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
cp demo/model/tokenizer*.json "$work/nf4-model"
check stored demo/model 1e-5 "" ""
if [ -x "$home/vllm/bin/python" ]; then
    "$home/vllm/bin/python" tests/interop/adapter_vllm.py demo/model "$work/stored" "$work/stored.f32" \
        >"$work/log" 2>"$work/err" || { tail -n 5 "$work/err" >&2; echo "FAILED: stored, in vLLM" >&2; bad=1; }
    grep '"vllm"' "$work/log" || true
else
    echo "no environment $home/vllm: the adapter was not loaded in vLLM" >&2
fi
check partial demo/model 1e-5 "" ', "targets": ["q_proj", "model.layers.0.mlp.up_proj"]'
check bitsandbytes "$work/nf4-model" 1e-5 "" ""
# Our codes of scales are the nearest, bitsandbytes' are one beside it for a few of a thousand blocks.
check nf4 demo/model 1e-3 --nf4 ', "base": { "format": "nf4", "group": 64, "double_quant": true }'
exit $bad
