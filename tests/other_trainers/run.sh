#!/usr/bin/env bash
# Trains on the demo files of other trainers, as they are: three steps of `baseline` on each, and of `critic`
# where the rows have labels.
#
#     tests/other_trainers/run.sh [PROGRAM]     PROGRAM: target/release/wmtp
#
# The files come from GitHub, at the commits below (LLaMA-Factory, TRL and axolotl: Apache-2.0, torchtune:
# BSD-3-Clause). RAW=file:///DIR takes them from DIR/OWNER/REPOSITORY/COMMIT/PATH instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$(realpath "${1:-target/release/wmtp}")
here=$PWD/tests/other_trainers
raw=${RAW:-https://raw.githubusercontent.com}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export WMTP_PATHS__CACHE=$work/cache

factory="hiyouga/LLaMA-Factory/ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30/data"
axolotl="axolotl-ai-cloud/axolotl/067b021c8b87a9e5e380b9173c704cf7340e30f5/tests/fixtures"
tune="pytorch/torchtune/bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1/tests/assets"
trl="huggingface/trl/f2cd57710ae345ea6428ae95363267fcf38a3dc8/scripts"
plain=(
    "$factory"/{alpaca_en_demo,alpaca_zh_demo,glaive_toolcall_en_demo,glaive_toolcall_zh_demo,identity}.json
    "$factory"/{c4_demo,reason_tool_use_demo_50,v1_sft_demo}.jsonl
    "$axolotl"/alpaca/alpaca.json
    "$tune"/{alpaca_tiny,instruct_tiny}.json
    zen/{standard,conversational}_{language_modeling,prompt_completion}.jsonl
)
labelled=(
    "$factory"/{dpo_en_demo,dpo_zh_demo,kto_en_demo}.json
    "$factory"/v1_dpo_demo.jsonl
    "$tune"/stack_exchange_paired_tiny.json
    zen/{standard,conversational}_{preference,implicit_prompt_preference,unpaired_preference}.jsonl
    zen/standard_stepwise_supervision.jsonl
)
# Columns that the other trainer has to be told as well.
columns() {
    case $1 in
        *instruct_tiny*) echo 'data.columns={prompt: instruction, completion: response}' ;;
        *stack_exchange*) echo 'data.columns={prompt: question, chosen: response_j, rejected: response_k}' ;;
        *) echo 'data.columns={}' ;;
    esac
}

get() { curl -fsSL --retry 3 "$raw/$1" -o "$2"; }
get "$trl"/generate_zen_dataset.py "$work/zen.py"
python3 "$here/zen.py" "$work/zen.py" "$work/zen"
for file in "${plain[@]}" "${labelled[@]}"; do
    [[ $file == zen/* ]] && continue
    mkdir -p "$work/$(dirname "$file")"
    get "$file" "$work/$file"
done

# The built-in model, with a chat template.
"$program" train baseline --plain --model builtin:micro --max-steps 1 --output "$work/runs" --run-name first \
    --set 'data.train_tasks=[602,605]' --set 'data.valid_tasks=[511,512]' 2>/dev/null
cp -r "$work/cache/builtin/micro-1" "$work/model"
python3 - "$work/model/tokenizer_config.json" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))
config["chat_template"] = (
    "{% for m in messages %}{{ '### ' + m['role'] + '\n' + (m['content'] or '') + '\n' }}"
    "{% if m['tool_calls'] %}{{ m['tool_calls'] | tojson }}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)
json.dump(config, open(sys.argv[1], "w"))
PY

failed=0
train() {
    rm -rf "$work/runs/run"
    if said=$("$program" train "$1" --plain --model "$work/model" --data "$work/$2" --max-steps 3 \
        --output "$work/runs" --run-name run --set batching.micro_batch=1 --set train.record.documents=0 \
        --set "$(columns "$2")" "${@:3}" 2>&1); then
        echo "ok      $1 $2: $(sed -n 's/.* on [a-z]*: \(.* documents\).*/\1/p' <<<"$said" | head -1)"
    else
        echo "FAILED  $1 $2: $(grep -m1 '^error' <<<"$said")"
        failed=1
    fi
}
for file in "${plain[@]}" "${labelled[@]}"; do train baseline "$file"; done
for file in "${labelled[@]}"; do train critic "$file" --set scorer.max_steps=2; done
exit $failed
