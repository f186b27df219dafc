#!/bin/bash
# The tables of docs/results.md: every shipped recipe on one model, compared with the original on text that nothing was
# calibrated on.
#     bench/results.sh demo                      # demo/model, demo/text
#     bench/results.sh MODEL CALIB EVAL          # another model, 64 samples, groups of 64, 32 windows
# RECIPES="gptq-w4 nf4" limits it to some rows, KEEP=1 takes folders of an earlier run. OVERRIDES is for SmoothQuant with
# static activations: what the tool proposed when it was run without. Folders stay in $QZ_BENCH (default $TMPDIR/quartz-bench)/results.
set -eu
cd "$(dirname "$0")/.."
unset OPENBLAS_CORETYPE
bin=${QCAL:-build/release/bin/qcal}
[ -x "$bin" ] || scripts/build.sh release qcal
folder=${QZ_BENCH:-${TMPDIR:-/tmp}/quartz-bench}/results

# name | recipe | settings, for both models
rows='
awq-llama|awq-llama|
gptq-w4|gptq-w4|
awq-gptq-w4|gptq-w4|transforms=[{"method":"awq"}]
rtn-w4|gptq-w4|weights.solver="rtn" weights.range="minmax"
gptq-w3|gptq-w3|
gptq-w2|gptq-w3|weights.format="int2" weights.group=64
int8-dynamic|int8-dynamic|
sq-int8-dynamic|int8-dynamic|transforms=[{"method":"smoothquant","search":true}] weights.solver="gptq" weights.range="mse"
w8a8-static|smoothquant-w8a8-static|transforms=[]
smoothquant-w8a8-static|smoothquant-w8a8-static|
w4a8|w4a8|
fp8-static|fp8-static|
fp8-dynamic|fp8-dynamic|
fp8-block|fp8-block|
nf4|nf4|
kv-fp8|kv-fp8|
'

if [ "${1:-}" = demo ]; then
    model=demo/model data=demo/text/calib.txt text=demo/text/test.txt windows=80 samples=128 group=
else
    model=$1 data=$2 text=$3 windows=32 samples=64 group=64
fi
out=$folder/$(basename "$model")
mkdir -p "$out"
made=
while IFS='|' read -r name recipe settings; do
    [ -n "$name" ] || continue
    case " ${RECIPES:-$name} " in *" $name "*) ;; *) continue ;; esac
    set -- --model "$model" --output "$out/$name" --overwrite --quiet --set evaluate=null
    # Recipes without text need none.
    if grep -q '"calibration"' "recipes/$recipe.json" || [ -n "$settings" ]; then
        set -- "$@" --data "$data" --set calibration.samples="$samples"
    fi
    # A group of 128 does not divide 576 inputs; recipes with one scale a row, a block or a tensor keep that.
    if [ -n "$group" ] && grep -q '"group": 128, "symmetric"' "recipes/$recipe.json"; then
        set -- "$@" --set weights.group="$group"
    fi
    for s in $settings; do set -- "$@" --set "$s"; done
    [ "$name" = smoothquant-w8a8-static ] && [ -n "${OVERRIDES:-}" ] && set -- "$@" --set "overrides=$OVERRIDES"
    made="$made $out/$name"
    [ -n "${KEEP:-}" ] && [ -f "$out/$name/report.json" ] && continue
    began=$(date +%s)
    $bin run "recipes/$recipe.json" "$@" >"$out/$name.log" 2>&1 || { echo "$name failed:"; tail -5 "$out/$name.log"; exit 1; }
    echo "made $name in $(($(date +%s) - began)) s"
done <<END
$rows
END
# shellcheck disable=SC2086
$bin compare "$model" $made --data "$text" --windows "$windows"
