#!/usr/bin/env bash
# Parity with transformers on SmolLM2-135M.
#
#     tests/compat/smollm2.sh BUILDER      # BUILDER: the script that builds the model directory
#
# BUILDER's folder also holds smollm2-reference.json, what transformers computes with that directory.
set -euo pipefail
cd "$(dirname "$0")/../.."
builder=$(realpath "$1")
reference=$(dirname "$builder")/smollm2-reference.json
venv=target/smollm2-venv
model=target/smollm2-135m
if [ ! -f "$model/model.safetensors" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy gguf safetensors
    "$venv/bin/python" "$builder" "$model"
fi
export WMTP_SMOLLM2_DIR="$PWD/$model" WMTP_SMOLLM2_REFERENCE="$reference"
cargo test --release --locked --test smollm2 -- --nocapture
