#!/usr/bin/env bash
# Lowers every CubeCL kernel to CUDA C++ for sm_80 and sm_90 and compiles it with NVRTC and ptxas, no GPU
# needed. Fails if one does not compile or spills, or if docs/cuda-kernels.md says something else. Arguments go to
# cargo build.
set -euo pipefail
cd "$(dirname "$0")"
target=$(realpath -m "${CARGO_TARGET_DIR:-../../../target}")
venv=$target/cuda-venv
nvidia() { compgen -G "$venv/lib/python3*/site-packages/nvidia" | head -1; }
ptxas() { find "$(nvidia)" -name ptxas -path '*/bin/*' | head -1; }
if ! { [ -n "$(nvidia)" ] && [ -n "$(ptxas)" ]; }; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet nvidia-cuda-nvrtc-cu12==12.8.93 nvidia-cuda-runtime-cu12==12.8.90 \
        nvidia-cuda-nvcc-cu12==12.8.93
fi
# The package comes without its execution bit.
chmod +x "$(ptxas)"
rm -rf "$target/cuda-sources"
# The features of `just test-devices` and the whole workspace, so that both share one build of burn.
(cd ../../.. && cargo build --release --locked --features wgpu,ndarray,cuda-check --example cuda_check "$@")
"$target/release/examples/cuda_check" "$target/cuda-sources"
"$venv/bin/python" check.py "$(nvidia)" "$target/cuda-sources" --ptxas "$(ptxas)" --documented ../../../docs/cuda-kernels.md
