#!/usr/bin/env bash
# Our verdicts on HumanEval+ and MBPP+ against those of PyPI's evalplus, on reference solutions and mutants,
# base and added inputs.
#
#   bash tests/agreement/plus.sh HumanEvalPlus.jsonl[.gz] MbppPlus.jsonl[.gz] [MUTANTS]
#
# Either file may be `-`, which leaves that set out. 500 mutants of each set unless said otherwise.
# AGREEMENT_PYTHON names a Python that has evalplus 0.3.1; without it a virtual environment is made. It should
# be of the same version as the python3 that the sandbox runs. evalplus runs what it judges in plain
# processes: nothing hostile is among the samples. Time limits are evalplus' own (a second, or four times the
# reference's time): run it on an idle machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${AGREEMENT_DIR:-$root/target/agreement}
wmtp=${WMTP:-$root/target/release/wmtp}
[ $# -ge 2 ] || { sed -n 2,14p "$0" >&2; exit 2; }
[ -x "$wmtp" ] || { echo "build first: cargo build --release --locked" >&2; exit 2; }
mkdir -p "$work"
python=${AGREEMENT_PYTHON:-$work/venv-evalplus/bin/python}
if [ ! -x "$python" ]; then
    python3 -m venv "$work/venv-evalplus"
    "$python" -m pip install --quiet -r "$here/requirements-evalplus.txt"
fi
status=0
both() { # data set, file, mutants
    [ "$2" = - ] && return
    samples=$work/$1-plus.jsonl
    python3 "$here/build_plus.py" "$2" "$samples" --mutants "$3"
    # The order of a set is part of some verdicts; the sandbox has this seed as well.
    PYTHONHASHSEED=0 "$python" "$here/evalplus_judge.py" "$1" "$2" "$samples" "$work/$1-plus-theirs.jsonl"
    rm -rf "$work/$1-plus-run"
    "$wmtp" eval "$1+" --data "$2" --predictions "$samples" --no-verdict-cache --output "$work/$1-plus-run" \
        --json > "$work/$1-plus.json"
    cat "$work/$1-plus-run"/*/samples.jsonl > "$work/$1-plus-ours.jsonl"
    local files=("$work/$1-plus-ours.jsonl" "$work/$1-plus-theirs.jsonl" "$work/$1-plus-differing.jsonl")
    if ! python3 "$here/compare_plus.py" "${files[@]}"; then
        # Which of them are differences of time limits?
        PYTHONHASHSEED=0 "$python" "$here/evalplus_judge.py" "$1" "$2" "${files[2]}" "$work/$1-plus-patient.jsonl" \
            --patient
        python3 "$here/compare_plus.py" "${files[@]}" "$work/$1-plus-patient.jsonl" || status=1
    fi
}
both humaneval "$1" "${3:-500}"
both mbpp "$2" "${3:-500}"
exit $status
