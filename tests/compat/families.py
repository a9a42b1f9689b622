#!/usr/bin/env python3
"""Checks that wmtp reads tiny models of every family as transformers does, and that what it writes loads again.

    families.py WMTP TEXT_FILE WORK_DIR [NAME...]

WMTP is the built program. For each family a tiny model with random weights is made by transformers, with the
tokenizer of make_llama.py (trained on TEXT_FILE), and

  * `wmtp score` gives transformers' cross-entropies and logits (see loads_in_transformers.py);
  * `wmtp generate` writes transformers' greedy continuation;
  * a run of a few steps with two heads leaves a checkpoint, and `wmtp export` a directory, that transformers loads
    as the same class with the same fields of the family and without a missing or unexpected tensor, and that
    compute there what they compute in wmtp.

Texts are longer than the sliding windows and than the original context lengths. One line for each family; exit
code 1 at the first disagreement.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config)

from loads_in_transformers import Mismatch, agree  # noqa: E402
from make_llama import TEMPLATE, VOCABULARY, fast, train  # noqa: E402

BASE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5, initializer_range=0.1,
    bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=True)
ORIGINAL = 16
FAMILIES = {
    "mistral": (MistralConfig, dict(sliding_window=8, tie_word_embeddings=False)),
    "qwen2": (Qwen2Config, dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    "qwen3": (Qwen3Config, dict(head_dim=16, use_sliding_window=True, sliding_window=8, max_window_layers=2)),
    "smollm3": (SmolLM3Config, dict(no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=8)),
    "yarn": (LlamaConfig, dict(rope_parameters=dict(
        rope_type="yarn", rope_theta=1000.0, factor=64.0, original_max_position_embeddings=ORIGINAL))),
    "linear": (LlamaConfig, dict(rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=4.0))),
}
# Fields that a saved directory must keep.
KEPT = ["model_type", "architectures", "sliding_window", "use_sliding_window", "layer_types", "no_rope_layers",
        "attention_bias", "rope_parameters"]
TEXT = "def add(a, b):\n    return a + b\n\n\nprint([add(i, 2 * i) for i in range(10)])\n"
NEW_TOKENS = 32


def make(name, directory, lines):
    """A base model, with norms away from 1 and biases away from 0."""
    kind, changes = FAMILIES[name]
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(kind(**{**BASE, **changes}))
    for parameter, weight in model.named_parameters():
        if "norm" in parameter or parameter.endswith(".bias"):
            weight.data += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(directory)
    serialised = train(lines)
    tokenizer, _ = fast(serialised)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "add_bos_token": True, "add_eos_token": False, "legacy": True, "model_max_length": 1024,
        "clean_up_tokenization_spaces": False}) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return type(model)


def load(directory, expected):
    """The model in float32, every tensor accounted for, as the class that is expected."""
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, local_files_only=True)
    if type(model) is not expected:
        raise Mismatch(f"{directory} loads as {type(model).__name__}, not as {expected.__name__}")
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(what):
            raise Mismatch(f"{directory} loads with {what}: {sorted(map(str, info[what]))}")
    return model.eval()


class Wmtp:
    """The built program."""

    def __init__(self, program, work):
        self.program, self.work = program, work

    def run(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Mismatch(f"wmtp {arguments[0]}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def score(self, directory):
        path = self.work / "text.py"
        path.write_text(TEXT, encoding="utf-8")
        score = self.work / "score.json"
        score.write_text(self.run("score", "--model", directory, "--text", path, "--json"), encoding="utf-8")
        return score


def same_computation(wmtp, directory, expected, base=None):
    """Compares score and, with a base, the fields of the family."""
    model = load(directory, expected)
    if base is not None:
        saved, original = (AutoConfig.from_pretrained(at).to_dict() for at in (directory, base))
        for field in KEPT:
            if saved.get(field) != original.get(field):
                raise Mismatch(f"{directory}: {field} is {saved.get(field)}, was {original.get(field)}")
    return model, agree(model, wmtp.score(directory))


def same_ids(wmtp, directory, model):
    """Compares the greedy continuation, without a KV cache in transformers."""
    made = json.loads(wmtp.run("generate", "--model", directory, "--prompt", TEXT, "--temperature", 0,
                               "--max-new-tokens", NEW_TOKENS, "--json"))["token_ids"]
    prompt = json.loads(wmtp.score(directory).read_text(encoding="utf-8"))["token_ids"]
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if following == BASE["eos_token_id"]:
                break
            ids.append(following)
    if made != ids[len(prompt):]:
        raise Mismatch(f"{directory}: wmtp writes {made}, transformers {ids[len(prompt):]}")


def check(wmtp, name, lines):
    directory = wmtp.work / name
    expected = make(name, directory, lines)
    model, found = same_computation(wmtp, directory, expected)
    same_ids(wmtp, directory, model)
    runs = wmtp.work / "runs"
    wmtp.run("train", "baseline", "--plain", "--model", directory, "--output", runs, "--run-name", name,
             "--max-steps", 4, "--set", "data.seq_len=512", "--set", "batching.micro_batch=1",
             "--set", "data.valid_tasks=[511,513]", "--set", "model.mtp.n_heads=2")
    checkpoint = runs / name / "checkpoints" / "last"
    same_computation(wmtp, checkpoint, expected, directory)
    exported = wmtp.work / f"{name}-exported"
    wmtp.run("export", checkpoint, exported, "--heads", "drop", "--dtype", "bf16")
    same_computation(wmtp, exported, expected, directory)
    print(f"compat: ok: {name}: {found}; checkpoint and export load as {expected.__name__}")


def main():
    if len(sys.argv) < 4 or set(sys.argv[4:]) - set(FAMILIES):
        sys.exit(__doc__)
    wmtp = Wmtp(sys.argv[1], Path(sys.argv[3]))
    lines = [line for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines() if line.strip()]
    wmtp.work.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[4:] or FAMILIES:
        try:
            check(wmtp, name, lines)
        except Mismatch as mismatch:
            print(f"compat: FAILED: {name}: {mismatch}")
            sys.exit(1)


if __name__ == "__main__":
    main()
