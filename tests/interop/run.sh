#!/bin/sh
# Do the real programs read what we write? Every shipped recipe runs on the demo model into out/interop; then, for each
# folder: our dequantized weights against an independent decoder's, bit for bit, and the perplexity that qcal finds
# against that of the decoded weights as a plain model, of vLLM and of transformers (gptqmodel). One table; exit code 1
# when a row fails. What may be refused, by which words, and what each program computes with is in rows.txt; recipes that
# train take a few steps, in the variants of trained.txt, and the perplexity is the one that qat printed.
# RECIPES="gptq-w4 nf4": only those rows. WINDOWS=N: windows of text (8). STEPS=N: of training (20). KEEP=1: do not make
# folders again that are there.
# For developers: needs the interop scripts in $QZ_SHARED/interop (default ../shared) and the Python environments that
# their setup.sh makes (vllm, hf, gptq; several GB).
set -eu
cd "$(dirname "$0")/../.."
unset OPENBLAS_CORETYPE
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
scripts=${QZ_SHARED:-../shared}/interop
home=${QZ_INTEROP_HOME:-$HOME/.cache/quartz-interop}
qcal=${QCAL:-build/release/bin/qcal}
qat=${QAT:-build/release/bin/qat}
out=out/interop
text=demo/text/test.txt
windows=${WINDOWS:-8}
steps=${STEPS:-20}
[ -f "$scripts/check_vllm.py" ] || { echo "interop: no $scripts; set QZ_SHARED to the folder that holds interop/" >&2; exit 1; }
for name in vllm hf gptq; do
    [ -x "$home/$name/bin/python" ] || {
        echo "interop: no environment $home/$name: run $scripts/setup.sh $name (it is large)" >&2
        exit 1
    }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out/checks"

# The recipe as it is shipped, but for the place of its outputs.
run_recipe() { # recipe
    sed "s#\"out/#\"$out/#" "recipes/$1.json" >"$work/$1.json"
    "$qcal" run "$work/$1.json" --overwrite --quiet --set evaluate.windows="$windows" >"$out/checks/$1.run" 2>&1
}
# A row of trained.txt, by name.
trained() { # name
    grep -v '^#' tests/interop/trained.txt | tr -s ' ' | sed 's/ *| */|/g' | grep "^$1|"
}
# Trains, and merges where it is an adapter that was trained.
run_trained() ( # name, recipe, settings; in a shell of its own, with names of its own
    name=$1 recipe=recipes/$2.json settings=$3
    set -- --overwrite --quiet --set train.steps="$steps" --set evaluate.windows="$windows" --set evaluate.accept=null \
        --set train.validation=null --set train.evaluate_every=0 --set evaluate.data=$text
    for setting in $settings; do set -- "$@" --set "$setting"; done
    if grep -q '"adapter"' "$recipe"; then
        "$qat" train "$recipe" --output "$out/adapters/$name" "$@" &&
            "$qat" merge "$recipe" --adapter "$out/adapters/$name" --output "$out/$name" "$@"
    else
        "$qat" train "$recipe" --output "$out/$name" "$@"
    fi
)
make_folders() { # name of a row
    if row=$(trained "$1"); then
        mkdir -p "$out/adapters"
        run_trained "$1" "$(echo "$row" | cut -d '|' -f 2)" "$(echo "$row" | cut -d '|' -f 3)" >"$out/checks/$1.run" 2>&1
    else
        run_recipe "$1"
    fi
}
# The perplexity that qat printed, in full.
printed() { # folder
    sed -n '/"quantized": {/,/}/s/.*"perplexity": *\([0-9.eE+-]*\).*/\1/p' "$out/$1/report.json"
}
# One program's figure on a folder, or "refused" when it fails with the words that are expected, or "failed".
figure() { # folder, name of the check, expected words, command...
    result=$out/checks/$(echo "$1" | tr / -).$2 words=$3
    shift 3
    if "$@" >"$result" 2>"$work/err"; then
        sed -n 's/.*"\(ppl\|perplexity\)": *\([0-9.eE+-]*\).*/\2/p' "$result" | tail -n 1
    elif [ -n "$words" ] && cat "$result" "$work/err" | grep -qF -- "$words"; then
        echo refused
    else
        tail -n 5 "$result" "$work/err" >&2
        echo failed
    fi
}
# The same names, shapes and bits; a head that is tied may be stored or not.
same_bits='
import sys; sys.path.insert(0, sys.argv[1]); import decode
a, b = (decode.read_safetensors(f) for f in sys.argv[2:])
names = (set(a) | set(b)) - ({"lm_head.weight"} if ("lm_head.weight" in a) != ("lm_head.weight" in b) else set())
for n in sorted(names):
    if n not in a or n not in b: sys.exit(n + ": in one of the two only")
    x, y = a[n], b[n]
    if x.dtype != "F32" or x.dtype != y.dtype or x.shape != y.shape: sys.exit(n + ": another type or shape")
    if x.raw.tobytes() != y.raw.tobytes(): sys.exit(n + ": other bits")
print(len(names), "tensors, the same bits")'
decode_equal() { # folder
    rm -f "$work/ours.safetensors"
    "$qcal" decode "$1" --output "$work/ours.safetensors" &&
        "$home/hf/bin/python" "$scripts/decode.py" "$1" -o "$work/theirs.safetensors" &&
        "$home/hf/bin/python" -c "$same_bits" "$scripts" "$work/ours.safetensors" "$work/theirs.safetensors" &&
        "$home/hf/bin/python" "$scripts/compare.py" "$1" "$work/ours.safetensors" --fail-above 0
}
check_folder() { # folder, rounded, vLLM: reference, flags, words; transformers: reference, environment, words
    dir=$out/$1 scored="--text $text --windows $windows"
    name=$(echo "$1" | tr / -)
    equal=no act=-
    if decode_equal "$dir" >"$out/checks/$name.decode" 2>&1; then equal=yes; else tail -n 5 "$out/checks/$name.decode" >&2; fi
    if trained "$1" >/dev/null; then
        ours=$(printed "$1")
    else
        ours=$(figure "$1" qcal "" "$qcal" eval "$dir" --data $text --windows "$windows" --json)
    fi
    # shellcheck disable=SC2086
    {
        dense=$(figure "$1" dense "" "$home/hf/bin/python" "$scripts/ppl_dense.py" "$dir" $scored)
        [ "$2" = inputs ] && act=$(figure "$1" act "" "$home/hf/bin/python" "$scripts/ppl_dense.py" "$dir" --act $scored)
        vllm=$(figure "$1" vllm "$5" "$home/vllm/bin/python" "$scripts/check_vllm.py" "$dir" $4 $scored)
        hf=$(figure "$1" transformers "$8" "$home/$7/bin/python" "$scripts/check_hf.py" "$dir" $scored)
    }
    echo "$1|$2|$ours|$dense|$act|$3|$vllm|$6|$hf|$equal|$4|$5|$8" >>"$work/figures"
}

: >"$work/figures"
made=
grep -v '^#' tests/interop/rows.txt | tr -s ' ' | sed 's/ *| */|/g' >"$work/rows"
for recipe in ${RECIPES:-}; do
    grep -q "^$recipe|" "$work/rows" || { echo "interop: tests/interop/rows.txt has no row for $recipe" >&2; exit 1; }
done
for file in recipes/*.json; do
    [ -z "${RECIPES:-}" ] || break # only those, which have rows
    recipe=$(basename "$file" .json)
    [ "$recipe" = recipe.schema ] || grep -q "^$recipe|" "$work/rows" || { echo "interop: no row for $file" >&2; exit 1; }
done
while IFS='|' read -r recipe folder rounded vllm flags vllm_words hf environment hf_words <&3; do
    case " ${RECIPES:-$recipe} " in *" $recipe "*) ;; *) continue ;; esac
    echo "interop: $folder" >&2
    if [ "$recipe" != "$made" ] && ! { [ -n "${KEEP:-}" ] && [ -d "$out/$folder" ]; } && ! make_folders "$recipe"; then
        tail -n 5 "$out/checks/$recipe.run" >&2
        echo "$folder|$rounded|failed|-|-|ours|-|ours|-|-" >>"$work/figures"
        continue
    fi
    made=$recipe
    check_folder "$folder" "$rounded" "$vllm" "$flags" "$vllm_words" "$hf" "$environment" "$hf_words"
done 3<"$work/rows"
awk -F'|' -f tests/interop/table.awk "$work/figures"
