# A thin front door: every target is one or two commands that can be typed as well. `make` alone lists them.
# Variables: FUZZ_SECONDS (per fuzz target), QZ_GOLDEN (another folder of golden fixtures), QZ_SHARED (for interop),
# RECIPES="gptq-w4 nf4" (for interop: only those).

QCAL = build/release/bin/qcal

.PHONY: help setup build demo test golden check format schema bench peer interop peft asan tsan clang fuzz coverage clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 18

setup: ## install missing Debian packages
	@scripts/setup.sh

build: setup ## build everything: build/release
	@scripts/build.sh release

demo: setup ## build qcal and quantize the bundled model
	@scripts/build.sh release qcal
	$(QCAL) run recipes/awq-llama.json --overwrite

test: setup ## build and run every test, then again under ASan and UBSan
	@scripts/test.sh release asan

golden: setup ## run the golden tests and list their cases (QZ_GOLDEN=folder: other fixtures)
	@scripts/golden.sh

check: ## format, ladder, doors, symbols, sizes, names, documents, schema
	@scripts/setup.sh check
	@scripts/build.sh release
	@scripts/check.sh

format: ## let clang-format rewrite the sources
	@scripts/setup.sh check
	@scripts/check_format.sh --fix

schema: build ## write recipes/recipe.schema.json and the table in docs/recipes.md
	@scripts/check_schema.sh --fix

bench: setup ## speed and memory of calibration and training, quality of calibration, beside the machine's limits and PyTorch
	@bench/run.sh

peer: setup ## the same job by llm-compressor, side by side (developers; needs QZ_SHARED)
	@bench/peer.sh

interop: build ## load what every recipe writes in vLLM and transformers (developers; needs QZ_SHARED)
	@tests/interop/run.sh

peft: build ## adapters in peft, and peft's here (developers; needs the environment hf of QZ_SHARED/interop)
	@tests/interop/adapter.sh

asan: setup ## every test under ASan and UBSan
	@scripts/test.sh asan

tsan: ## every test under TSan (clang)
	@scripts/setup.sh clang
	@scripts/test.sh tsan

clang: ## every test, built by clang
	@scripts/setup.sh clang
	@scripts/test.sh clang

fuzz: ## libFuzzer, FUZZ_SECONDS=60 for each target (clang)
	@scripts/setup.sh clang
	@scripts/fuzz.sh

coverage: setup ## lines covered by the tests, by folder
	@scripts/coverage.sh

clean: ## remove build/
	rm -rf build
