#!/usr/bin/env python3
"""Do two directories hold the same model for transformers?

    same_model.py DIR DIR

Both are loaded with AutoModelForCausalLM in their own type. Every weight must be equal bit for bit and in
type; the configurations, the generation settings, the token ids of a text and the text that the chat
template makes must be equal. One line; exit code 0, 1 (differ) or 2 (bad usage).
"""
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

TEXT = "def add(a, b):\n    return a + b  # ünïcödé\n"
MESSAGES = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "5"}]


def read(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    chat = tokenizer.apply_chat_template(MESSAGES, tokenize=False) if tokenizer.chat_template else None
    return {
        "config": config,
        "generation settings": model.generation_config.to_dict(),
        "token ids": tokenizer(TEXT).input_ids,
        "chat": chat,
        "weights": {name: tensor for name, tensor in model.state_dict().items()},
    }


def differences(a, b):
    for what in a:
        if what == "weights":
            for name in a[what].keys() | b[what].keys():
                one, other = a[what].get(name), b[what].get(name)
                if one is None or other is None or one.dtype != other.dtype:
                    yield f"{name} is missing or has another type"
                elif not torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)):
                    yield f"{name} has other values"
        elif isinstance(a[what], dict):
            yield from (f"{what}: {key} is {a[what].get(key)!r} and {b[what].get(key)!r}"
                        for key in sorted(a[what].keys() | b[what].keys()) if a[what].get(key) != b[what].get(key))
        elif a[what] != b[what]:
            yield f"{what}: {a[what]!r} and {b[what]!r}"


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    one, other = (read(Path(path)) for path in sys.argv[1:])
    found = list(differences(one, other))
    if found:
        print("same model: FAILED:", "; ".join(found[:10]))
        return 1
    print(f"same model: ok: {len(one['weights'])} weights bit for bit, {len(one['config'])} configuration fields")
    return 0


if __name__ == "__main__":
    sys.exit(main())
