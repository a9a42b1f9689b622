#!/usr/bin/env python3
"""Checks that a model directory written by wmtp is an ordinary Llama to transformers.

    loads_in_transformers.py MODEL_DIR SCORE_JSON

SCORE_JSON is what `wmtp score --model MODEL_DIR --text FILE --json` printed. The directory is
loaded with AutoModelForCausalLM, in float32 on the CPU, and must give, for the same token ids,

  * no missing, unexpected or misshapen tensors in the main file,
  * head 1's cross-entropy of every token within 1e-3 nats,
  * the last position's 20 largest logits within 1e-2, and no other token clearly above them.

It prints one line and exits with 0 if all hold, 1 if one does not, 2 for bad usage. It does not
look at the extra heads: transformers knows nothing of them.
"""
import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CE_TOLERANCE = 1e-3
LOGIT_TOLERANCE = 1e-2
TOP = 20


class Mismatch(Exception):
    """The one sentence that says what does not agree."""


def read_score(path):
    """The fields of `wmtp score --json` that are compared, checked."""
    try:
        score = json.loads(Path(path).read_text(encoding="utf-8"))
        ids, ce = score["token_ids"], score["ce"][0]
        top_ids, top_logits = score["top20_ids"], score["top20_logits"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise Mismatch(f"{path} is not the output of `wmtp score --json`: {error!r}") from error
    if len(ids) < 2 or len(ce) != len(ids) - 1:
        raise Mismatch(f"{path}: {len(ids)} tokens need {len(ids) - 1} values in ce[0], there are {len(ce)}")
    if len(top_ids) != len(top_logits) or len(set(top_ids)) != TOP:
        raise Mismatch(f"{path}: top20_ids and top20_logits do not hold {TOP} entries each")
    return ids, ce, top_ids, top_logits


def load(directory):
    """The model in float32, with every tensor accounted for."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, local_files_only=True)
    except Exception as error:  # whatever it is, it does not load  # noqa: BLE001
        raise Mismatch(f"transformers cannot load {directory}: {error}") from error
    if type(model).__name__ != "LlamaForCausalLM":
        raise Mismatch(f"{directory} loads as {type(model).__name__}, not as LlamaForCausalLM")
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(what):
            raise Mismatch(f"{directory} loads with {what}: {sorted(map(str, info[what]))}")
    return model.eval()


def compare(directory, score):
    """Raises Mismatch, or returns the figures as a sentence."""
    return agree(load(directory), score)


def agree(model, score):
    """The same for a loaded model."""
    ids, ce, top_ids, top_logits = read_score(score)
    import torch

    if max(ids) >= model.config.vocab_size:
        raise Mismatch(f"token id {max(ids)} is outside the vocabulary of {model.config.vocab_size}")
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    theirs = -torch.log_softmax(logits[:-1], -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    ce_gap = (theirs - torch.tensor(ce, dtype=torch.float64)).abs()
    # `not <=` so that a NaN is a mismatch too.
    if not bool((ce_gap <= CE_TOLERANCE).all()):
        at = int(torch.nan_to_num(ce_gap, nan=float("inf")).argmax())
        raise Mismatch(f"cross-entropy of token {at + 1} is {ce[at]:.6f} here and "
                       f"{float(theirs[at]):.6f} in transformers, more than {CE_TOLERANCE} apart")
    last = logits[-1]
    gap = (last[torch.tensor(top_ids)] - torch.tensor(top_logits, dtype=torch.float64)).abs()
    if not bool((gap <= LOGIT_TOLERANCE).all()):
        at = int(torch.nan_to_num(gap, nan=float("inf")).argmax())
        raise Mismatch(f"the logit of token {top_ids[at]} is {top_logits[at]:.5f} here and "
                       f"{float(last[top_ids[at]]):.5f} in transformers, more than {LOGIT_TOLERANCE} apart")
    others = last.clone()
    others[torch.tensor(top_ids)] = -float("inf")
    if float(others.max()) > min(top_logits) + LOGIT_TOLERANCE:
        raise Mismatch(f"token {int(others.argmax())} belongs to the {TOP} largest logits and is not listed")
    return (f"{len(ids)} tokens, largest gap in cross-entropy {float(ce_gap.max()):.1e} nats, "
            f"in the top {TOP} logits {float(gap.max()):.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model directory that wmtp saved")
    parser.add_argument("score", type=Path, help="output of `wmtp score --json` for it")
    options = parser.parse_args()
    try:
        print("compat: ok:", compare(options.model, options.score))
    except Mismatch as mismatch:
        print("compat: FAILED:", mismatch)
        sys.exit(1)


if __name__ == "__main__":
    main()
