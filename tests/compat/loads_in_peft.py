#!/usr/bin/env python3
"""Checks that peft loads an adapter that wmtp wrote, and computes the same with it.

    loads_in_peft.py BASE_DIR ADAPTER_DIR SCORE_JSON BASE_SCORE_JSON

SCORE_JSON is what `wmtp score --model ADAPTER_DIR --text FILE --json` printed, BASE_SCORE_JSON the same
for BASE_DIR. peft must find a weight for each of its own factors and have no use for none of the file's,
must give the figures of SCORE_JSON (as loads_in_transformers.py compares them, merged and not), and the
adapter must change them. One line; exit code 0, 1 (does not agree) or 2 (bad usage).
"""
import argparse
import copy
import sys
import warnings
from pathlib import Path

from loads_in_transformers import Mismatch, agree, load, read_score


def adapted(base, directory):
    """The base with the adapter, every tensor of the file accounted for."""
    from peft import PeftConfig, PeftModel
    from safetensors import safe_open

    PeftConfig.from_pretrained(directory)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            model = PeftModel.from_pretrained(base, directory)
        except Exception as error:  # whatever it is, it does not load  # noqa: BLE001
            raise Mismatch(f"peft cannot load {directory}: {error}") from error
    for warning in said:
        if "adapter" in str(warning.message) and "keys" in str(warning.message):
            raise Mismatch(f"peft loads {directory} with: {str(warning.message)[:300]}")
    with safe_open(directory / "adapter_model.safetensors", framework="pt") as stored:
        names = set(stored.keys())
    own = {name.replace(".default.", ".") for name, _ in model.named_parameters() if ".lora_" in name}
    if names != own:
        raise Mismatch(f"{directory}: the file and peft's factors differ in {sorted(names ^ own)[:10]}")
    return model.eval()


def compare(base_dir, adapter, score, base_score):
    """Raises Mismatch, or returns the figures as a sentence."""
    _, ce, _, _ = read_score(score)
    _, base_ce, _, _ = read_score(base_score)
    change = max(abs(a - b) for a, b in zip(ce, base_ce, strict=True))
    if not change > 0.01:
        raise Mismatch(f"the adapter changes no token's cross-entropy by more than {change:.1e}: it shows nothing")
    base = load(base_dir)
    figures = agree(adapted(copy.deepcopy(base), adapter), score)
    merged = adapted(base, adapter).merge_and_unload()
    return f"{figures}; merged by peft: {agree(merged, score)}; the adapter's largest change {change:.2f} nats"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("score", type=Path)
    parser.add_argument("base_score", type=Path)
    options = parser.parse_args()
    try:
        print("peft: ok:", compare(options.base, options.adapter, options.score, options.base_score))
    except Mismatch as mismatch:
        print("peft: FAILED:", mismatch)
        sys.exit(1)


if __name__ == "__main__":
    main()
