#!/usr/bin/env bash
# Trains the micro model for a few steps, scores a text with the saved checkpoint, and checks that
# transformers loads that checkpoint as a plain Llama with the same figures.
#
#     tests/compat/run.sh
#
# COMPAT_PYTHON=/path/to/python   use this interpreter, which has requirements.txt installed,
#                                 instead of making a virtual environment of its own
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
here=tests/compat
say() { printf 'compat: %s\n' "$*" >&2; }

if [[ -n ${COMPAT_PYTHON:-} ]]; then
    python=$COMPAT_PYTHON
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

say "testing the checker"
"$python" "$here/test_loads_in_transformers.py"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
wmtp() { cargo run --release --locked --quiet -- "$@"; }

say "training the micro model for 5 steps"
wmtp train baseline --max-steps 5 --output "$work/out" --run-name compat

# The run's directory is found by what a checkpoint is, a main file under checkpoints/.
checkpoints=$(find "$work/out" -path '*/checkpoints/*/model.safetensors' -print | sort)
if [[ -z $checkpoints ]]; then
    say "FAILED: training left no checkpoint with a model.safetensors under --output"
    exit 1
fi

printf 'def add(a, b):\n    return a + b\n\n\nprint([add(i, 2 * i) for i in range(10)])\n' >"$work/text.py"
for file in $checkpoints; do
    model=$(dirname "$file")
    say "checking ${model#"$work/out/"}"
    wmtp score --model "$model" --text "$work/text.py" --json >"$work/score.json"
    "$python" "$here/loads_in_transformers.py" "$model" "$work/score.json"
done
