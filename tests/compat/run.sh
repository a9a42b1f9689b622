#!/usr/bin/env bash
# Trains a tiny Llama with the built program, exports and converts what that leaves, and gives all of it to
# other tools: transformers, peft, llama.cpp's converters, and the loader rules of vLLM and SGLang.
#
#     tests/compat/run.sh
#     tests/compat/run.sh --only-install     fetches the other tools, runs nothing
#
# COMPAT_PYTHON=/path/to/python   use this interpreter, which has requirements.txt installed,
#                                 instead of making a virtual environment
# COMPAT_LLAMA_CPP=DIR            use this llama.cpp (its converters) instead of fetching one
# COMPAT_BASE=DIR                 use this Llama directory instead of making a tiny one
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
here=tests/compat
# Its source distribution holds llama.cpp with the converters.
llama_cpp_source=llama-cpp-python==0.3.36
say() { printf 'compat: %s\n' "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }

if [[ -n ${COMPAT_PYTHON:-} ]]; then
    python=$(command -v "$COMPAT_PYTHON") || fail "COMPAT_PYTHON=$COMPAT_PYTHON is not an interpreter"
    python=$(realpath -s "$python")
else
    venv=$target/compat-venv
    python=$venv/bin/python
    # The copy of the requirements is written last, so it marks a complete installation.
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        say "making $venv (torch and transformers, some minutes)"
        mkdir -p "$target"
        python3 -m venv --clear "$venv"
        "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
fi
"$python" -c 'import peft, sentencepiece, tokenizers, torch, transformers' ||
    fail "$python lacks a package of $here/requirements.txt"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

llama_cpp=${COMPAT_LLAMA_CPP:-$target/compat-llama.cpp}
if [[ -z ${COMPAT_LLAMA_CPP:-} ]] && [[ $(cat "$llama_cpp/version.txt" 2>/dev/null) != "$llama_cpp_source" ]]; then
    say "fetching llama.cpp's converters ($llama_cpp_source)"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
        --dest "$work/source" "$llama_cpp_source" || fail "llama.cpp's converters could not be fetched"
    rm -rf "$llama_cpp"
    mkdir -p "$llama_cpp"
    tar xzf "$work"/source/*.tar.gz -C "$llama_cpp" --strip-components=3 --wildcards \
        '*/vendor/llama.cpp/convert_*' '*/vendor/llama.cpp/conversion/*' '*/vendor/llama.cpp/gguf-py/*'
    echo "$llama_cpp_source" >"$llama_cpp/version.txt"
fi
[[ ${1:-} != --only-install ]] || exit 0
[[ -f $llama_cpp/convert_hf_to_gguf.py && -f $llama_cpp/convert_lora_to_gguf.py ]] ||
    fail "$llama_cpp has no converters"

say "testing the checkers"
"$python" "$here/test_loads_in_transformers.py"
(cd "$here" && "$python" test_loader_rules.py)

cargo build --release --locked --quiet
wmtp() { "$target/release/wmtp" "$@"; }
score() { wmtp score --model "$1" --text "$work/text.py" --json; }
transformers() { "$python" "$here/loads_in_transformers.py" "$@"; }
peft() { "$python" "$here/loads_in_peft.py" "$@"; }
rules() { "$python" "$here/loader_rules.py" "$@"; }
gguf() { "$python" "$here/converts_to_gguf.py" "$llama_cpp" "$@"; }
# A check that must fail shows that the check sees the fault.
refused() {
    local why=$1 out
    shift
    if out=$("$@" 2>&1); then fail "passed, but must not: $why"; fi
    say "refused as it must be: $why: $(grep -E "FAILED|[Ee]rror" <<<"$out" | tail -1 | cut -c1-160)"
}

printf 'def add(a, b):\n    return a + b\n\n\nprint([add(i, 2 * i) for i in range(10)])\n' >"$work/text.py"
"$python" - "$work/lines.txt" <<'PY'
import json, sys
rows = [json.loads(line) for line in open("data/mbpp/mbpp.jsonl", encoding="utf-8")]
text = "\n".join(row["text"] + "\n" + row["code"] for row in rows[:400])
open(sys.argv[1], "w", encoding="utf-8").write(text.replace("\r", ""))
PY
base=${COMPAT_BASE:-$work/base}
if [[ -z ${COMPAT_BASE:-} ]]; then
    say "making a tiny Llama"
    "$python" "$here/make_llama.py" "$work/lines.txt" "$base"
fi

biased=$work/biased
say "making a tiny Llama with biases"
"$python" "$here/make_llama.py" "$work/lines.txt" "$biased" --attention-bias

# train NAME SETTING...: a run of a few steps, its checkpoint `last`. `from` is the base model.
from=$base
train() {
    local name=$1
    shift
    say "training $name"
    local sets=()
    for set in "$@"; do sets+=(--set "$set"); done
    wmtp train baseline --plain --model "$from" --output "$work/runs" --run-name "$name" --max-steps 6 \
        --set data.seq_len=512 --set batching.micro_batch=1 --set 'data.valid_tasks=[511,513]' \
        "${sets[@]}" 2>"$work/$name.log" || { cat "$work/$name.log" >&2; fail "training $name"; }
}
last() { echo "$work/runs/$1/checkpoints/last"; }

train full4
train bf16 train.precision=pure-bf16
train lora1 model.mtp.n_heads=1 train.lora.rank=4 optim.lr=0.02
train lora4 train.lora.rank=4 optim.lr=0.02
train kept train.checkpoint.only_model=true train.checkpoint.dtype=bf16
from=$biased
train biased4
train biased-lora1 model.mtp.n_heads=1 train.lora.rank=4 optim.lr=0.02

say "model directories, as training leaves them and exported"
wmtp export "$work/runs/full4" "$work/plain-bf16" --heads drop --dtype bf16
wmtp export "$(last full4)" "$work/heads-f16" --dtype f16
wmtp export "$(last lora4)" "$work/merged4" --merge --dtype f32
wmtp export "$work/runs/lora1" "$work/merged1" --merge
wmtp export "$base" "$work/base-again"
for model in "$(last full4)" "$(last bf16)" "$work/runs/kept/checkpoints/best" "$work/plain-bf16" \
    "$work/heads-f16" "$work/merged4" "$work/merged1" "$work/base-again" "$(last biased4)"; do
    say "checking ${model#"$work/"}"
    score "$model" >"$work/score.json"
    transformers "$model" "$work/score.json"
    rules model "$model"
    gguf model "$model"
done
"$python" "$here/same_model.py" "$base" "$work/base-again"

say "adapters"
score "$base" >"$work/base-score.json"
wmtp export "$(last lora4)" "$work/adapter1" --heads drop
for adapter in "$(last lora1)" "$(last lora4)" "$work/adapter1"; do
    say "checking ${adapter#"$work/"}"
    score "$adapter" >"$work/score.json"
    peft "$base" "$adapter" "$work/score.json" "$work/base-score.json"
    rules adapter "$base" "$adapter"
    gguf adapter "$base" "$adapter"
done
say "checking an adapter of a model with biases"
score "$biased" >"$work/biased-score.json"
score "$(last biased-lora1)" >"$work/score.json"
peft "$biased" "$(last biased-lora1)" "$work/score.json" "$work/biased-score.json"
rules adapter "$biased" "$(last biased-lora1)"
say "merged here, computed by transformers, against the adapter here"
score "$(last lora4)" >"$work/score.json"
transformers "$work/merged4" "$work/score.json"

say "other families"
"$python" "$here/families.py" "$target/release/wmtp" "$work/lines.txt" "$work/families"

say "there and back"
for name in full4 bf16; do
    wmtp convert "$(last $name)" "$work/meta-$name"
    "$python" "$here/torch_loads_meta.py" "$work/meta-$name" "$(last $name)"
    wmtp convert "$work/meta-$name" "$work/back-$name"
    "$python" "$here/same_model.py" "$(last $name)" "$work/back-$name"
    cmp "$(last $name)/mtp_heads.safetensors" "$work/back-$name/mtp_heads.safetensors"
done

say "pushed to a stand-in for the hub, read by Hugging Face's client"
HUB_PYTHON=$python cargo test --release --locked --quiet --test push_hub_client

say "what must be refused"
refused "biases in Meta's layout" wmtp convert "$(last biased4)" "$work/meta-biased"
cp -r "$(last full4)" "$work/no-index"
rm "$work/no-index/model.safetensors.index.json"
refused "a directory with heads and no index" rules model "$work/no-index"
cp -r "$(last lora4)" "$work/old-adapter"
"$python" - "$work/old-adapter" <<'PY'
import pathlib, sys
from safetensors.torch import load_file, save_file
at = pathlib.Path(sys.argv[1])
heads = at / "mtp_adapter.safetensors"
save_file(load_file(at / "adapter_model.safetensors") | load_file(heads), at / "adapter_model.safetensors")
heads.unlink()
PY
refused "an adapter with the heads in its main file, to vLLM" rules adapter "$base" "$work/old-adapter"
refused "an adapter with the heads in its main file, to llama.cpp" gguf adapter "$base" "$work/old-adapter"
wmtp export "$work/old-adapter" "$work/new-adapter"
cmp "$work/new-adapter/adapter_model.safetensors" "$(last lora4)/adapter_model.safetensors"
gguf adapter "$base" "$work/new-adapter"
refused "an export over something" wmtp export "$base" "$work/base-again"
say "all passed"
