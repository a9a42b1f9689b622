//! What `--help` says below the flags: examples that can be pasted, and where to read on.

/// Below `wmtp --help`.
pub const TOP: &str = "\
Examples:
  wmtp train critic                       train a small model from scratch, in minutes
  wmtp train critic --model DIR           fine-tune a Llama directory
  wmtp eval mbpp                          evaluate the newest run's best checkpoint
  wmtp report auto                        write the newest run's report again
  wmtp doctor                             check this machine

Settings: `wmtp inspect recipe critic` prints them all, `wmtp schema recipe` describes them;
set one with `--set optim.lr=1e-5` or WMTP_OPTIM__LR=1e-5. Guides are in docs/.";

/// Below `wmtp train --help`.
pub const TRAIN: &str = "\
Examples:
  wmtp train baseline --dry-run
  wmtp train critic --model hf://HuggingFaceTB/SmolLM2-135M --run-name first
  wmtp train rho1 --set model.reference=runs/BASELINE/checkpoints/best
  wmtp train critic --resume auto

A run is resumed with the settings that it was started with; docs/training.md lists what may change.";

/// Below `wmtp sweep --help`.
pub const SWEEP: &str = "\
Examples:
  wmtp sweep configs/sweep.lambda.yaml --dry-run
  wmtp sweep configs/sweep.lambda.yaml --parallel 2
  wmtp sweep configs/sweep.lora.yaml --emit jobs > jobs.txt
  wmtp sweep configs/sweep.lora.yaml --collect runs/lora";

/// Below `wmtp eval --help`.
pub const EVAL: &str = "\
Examples:
  wmtp eval mbpp --profile quick
  wmtp eval humaneval --model DIR --samples 20 --k 1,10 --temperature 0.2,0.8
  wmtp eval contest --predictions completions.jsonl
  wmtp eval mbpp --resume auto";

/// Below `wmtp generate --help`.
pub const GENERATE: &str = "\
Examples:
  wmtp generate --model DIR --prompt 'def fib(n):'
  wmtp generate --model DIR < prompt.txt
  wmtp generate --model DIR --prompt 'def fib(n):' --speculative
  wmtp generate --model DIR --chat --system 'Be brief.' --prompt 'Reverse a list'
  wmtp generate --model runs/NAME --chat --messages turns.json";

/// Below `wmtp chat --help`.
pub const CHAT: &str = "\
Examples:
  wmtp chat --model DIR
  wmtp chat --model auto --system 'Answer in Python.' --temperature 0.7
  wmtp chat --model runs/NAME --json < questions.txt > conversation.json";

/// Below `wmtp sample --help`.
pub const SAMPLE: &str = "\
Examples:
  wmtp sample tasks.jsonl --n 8
  wmtp sample tasks.jsonl --model DIR --n 20 --temperature 1.0 --output candidates.jsonl
  wmtp sample tasks.jsonl --model DIR --stop '[DONE]' --max-new-tokens 256

The same command continues a file that was interrupted. docs/rejection-sampling.md has the loop of sample, label
and train.";

/// Below `wmtp label --help`.
pub const LABEL: &str = "\
Examples:
  wmtp label candidates.jsonl
  wmtp label candidates.jsonl --output labelled.jsonl --timeout 5
  wmtp label rows.parquet --set 'data.columns={completion: answer}'

Candidates run in the sandbox. docs/rejection-sampling.md has the loop of sample, label and train.";

/// Below `wmtp score --help`.
pub const SCORE: &str = "\
Examples:
  wmtp score --model DIR --text program.py
  wmtp score --model DIR --text program.py --json > scores.json";

/// Below `wmtp inspect --help`.
pub const INSPECT: &str = "\
Examples:
  wmtp inspect recipe critic --set optim.lr=1e-5
  wmtp inspect data --against humaneval,contest
  wmtp inspect heads --model DIR --text held-out.py";

/// Below `wmtp convert --help`.
pub const CONVERT: &str = "\
Examples:
  wmtp convert llama-7b-meta/ llama-7b-hf/
  wmtp convert runs/NAME/checkpoints/best meta-layout/";

/// Below `wmtp export --help`.
pub const EXPORT: &str = "\
Examples:
  wmtp export runs/NAME model --heads drop --dtype bf16   an ordinary Llama in bf16
  wmtp export runs/NAME model --merge                     a LoRA run as a whole model
  wmtp export runs/NAME adapter --heads drop              the adapter of trunk and head 1 alone

Served models, GGUF: docs/deploy.md";

/// Below `wmtp report --help`.
pub const REPORT: &str = "\
Examples:
  wmtp report auto
  wmtp report BASELINE CRITIC --output comparison";

/// Below `wmtp track --help`.
pub const TRACK: &str = "\
Example:
  wmtp track sync NAME --set 'tracking.kinds=[mlflow]' --set tracking.mlflow.uri=http://127.0.0.1:5000";

/// Below `wmtp promote --help`.
#[cfg(feature = "mlflow")]
pub const PROMOTE: &str = "\
Examples:
  wmtp promote NAME --to staging --card card.yaml
  wmtp promote NAME --to production

card.yaml:
  intended_use: Completing short Python functions in our editor.
  limits: Not tested on other languages; never run its output without a sandbox.
  licence: apache-2.0";

/// Below `wmtp push --help`.
pub const PUSH: &str = "\
Examples:
  wmtp push NAME hf://OWNER/MODEL --dry-run           what would be sent
  wmtp push NAME hf://OWNER/MODEL                     a private repository
  wmtp push NAME hf://OWNER/MODEL --public --card card.yaml
  wmtp push model hf://OWNER/MODEL --revision bf16    an exported directory, to a branch

The token comes from HF_TOKEN and needs write access. Model cards: docs/model-card.md";

/// Below `wmtp cache --help`.
pub const CACHE: &str = "\
Examples:
  wmtp cache fetch hf://HuggingFaceTB/SmolLM2-135M
  wmtp cache list
  wmtp cache clean --keep 20GB";

/// Below `wmtp doctor --help`.
pub const DOCTOR: &str = "\
Examples:
  wmtp doctor
  wmtp doctor --device cuda:0
  wmtp doctor --config configs/config.mlflow.yaml     also asks the MLflow server

Exit code 1 if a check fails.";

/// Below `wmtp schema --help`.
pub const SCHEMA: &str = "\
Example:
  wmtp schema recipe > recipe.schema.json

With `# yaml-language-server: $schema=recipe.schema.json` as the first line of a recipe, editors
with a YAML language server complete and check it.";

/// Below `wmtp completions --help`.
pub const COMPLETIONS: &str = "\
Examples:
  wmtp completions bash > ~/.local/share/bash-completion/completions/wmtp
  wmtp completions zsh > \"${fpath[1]}/_wmtp\"
  wmtp completions fish > ~/.config/fish/completions/wmtp.fish

Completed are commands, flags, words that a flag takes, devices and the keys of --set.";

/// Below `wmtp man --help`.
pub const MAN: &str = "\
Examples:
  wmtp man ~/.local/share/man/man1
  man wmtp-train";
