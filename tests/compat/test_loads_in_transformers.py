#!/usr/bin/env python3
"""Tests the checker itself: tiny Llamas that transformers wrote must pass it (tied and untied, in
shards, in bfloat16, beside an extra-heads file, with an additional section in config.json), and
each thing it looks for must make it fail. The expected values come from NumPy, not from torch.

    python test_loads_in_transformers.py
"""
import copy
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from loads_in_transformers import Mismatch, compare

CHECK = Path(__file__).with_name("loads_in_transformers.py")
logging.disable_progress_bar()
IDS = [5, 17, 3, 60, 9, 9, 42, 0, 31]


def tiny(tied):
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3)
    return LlamaForCausalLM(config).eval()


def score(model):
    """What `wmtp score --json` would print, for two heads."""
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].double().numpy()
    peak = logits.max(-1, keepdims=True)
    log_p = logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))
    ce = [-log_p[i, IDS[i + 1]] for i in range(len(IDS) - 1)]
    top = np.argsort(-logits[-1], kind="stable")[:20]
    return {"token_ids": list(IDS), "ce": [ce, ce[:-1]], "top20_ids": top.tolist(),
            "top20_logits": logits[-1][top].tolist()}


class Checker(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.model_dir = Path(self.dir.name) / "model"

    def save(self, model, **how):
        model.save_pretrained(self.model_dir, **how)
        path = self.model_dir / "config.json"
        config = json.loads(path.read_text())
        config["wmtp"] = {"n_heads": 2, "format": 1}
        path.write_text(json.dumps(config))
        save_file({"mtp.heads.2.input_layernorm.weight": torch.ones(32)}, self.model_dir / "mtp_heads.safetensors")

    def check(self, values):
        self.score = Path(self.dir.name) / "score.json"
        self.score.write_text(json.dumps(values))
        return compare(self.model_dir, self.score)

    def passes(self, values):
        self.assertIn("9 tokens", self.check(values))

    def fails(self, values, why):
        with self.assertRaisesRegex(Mismatch, why):
            self.check(values)

    def test_good_directories_pass(self):
        for name, tied, how in [("plain", False, {}), ("tied", True, {}), ("shards", False, {"max_shard_size": "20KB"})]:
            with self.subTest(name):
                self.model_dir = Path(self.dir.name) / name
                model = tiny(tied)
                self.save(model, **how)
                self.passes(score(model))
        self.assertTrue((Path(self.dir.name) / "shards/model.safetensors.index.json").exists())

    def test_a_bfloat16_directory_is_compared_in_float32(self):
        model = tiny(False)
        for weight in model.parameters():
            weight.data = weight.data.bfloat16().float()
        self.save(copy.deepcopy(model).to(torch.bfloat16))
        self.assertEqual(load_file(self.model_dir / "model.safetensors")["model.norm.weight"].dtype, torch.bfloat16)
        self.passes(score(model))

    def test_the_program_prints_one_line_and_an_exit_code(self):
        model = tiny(False)
        self.save(model)
        values = score(model)
        for change, code, start in [(0.0, 0, "compat: ok: 9 tokens"), (1.0, 1, "compat: FAILED: cross-entropy")]:
            values["ce"][0][2] += change
            self.check(values) if code == 0 else self.fails(values, "token 3")
            done = subprocess.run([sys.executable, CHECK, self.model_dir, self.score], capture_output=True, text=True)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(len(done.stdout.splitlines()), 1, done.stdout)
            self.assertTrue(done.stdout.startswith(start), done.stdout)

    def test_wrong_figures_fail(self):
        model = tiny(False)
        self.save(model)
        for field, change, why in [
            ("ce", lambda v: v[0].__setitem__(4, v[0][4] + 2e-3), "cross-entropy of token 5"),
            ("ce", lambda v: v[0].__setitem__(0, float("nan")), "cross-entropy of token 1"),
            ("ce", lambda v: v[0].pop(), "need 8 values"),
            ("top20_logits", lambda v: v.__setitem__(3, v[3] - 2e-2), "the logit of token"),
            ("top20_ids", lambda v: v.reverse(), "the logit of token"),
            ("top20_ids", lambda v: v.pop(), "do not hold 20 entries"),
            ("token_ids", lambda v: v.__setitem__(0, 64), "outside the vocabulary"),
        ]:
            values = score(model)
            change(values[field])
            with self.subTest(why):
                self.fails(values, why)
        values = score(model)
        with torch.no_grad():
            logits = model(torch.tensor([IDS])).logits[0, -1]
        other = logits.argsort(descending=True)[30].item()
        values["top20_ids"][0], values["top20_logits"][0] = other, logits[other].item()
        self.fails(values, "belongs to the 20 largest")
        self.fails({"token_ids": IDS}, "is not the output of")

    def test_a_wrong_main_file_fails(self):
        model = tiny(False)
        self.save(model)
        path = self.model_dir / "model.safetensors"
        tensors = load_file(path)
        norm = "model.norm.weight"
        for change, why in [
            ({k: v for k, v in tensors.items() if k != norm}, "missing_keys"),
            (tensors | {"mtp.heads.2.input_layernorm.weight": torch.ones(32)}, "unexpected_keys"),
            (tensors | {norm: torch.ones(31)}, "cannot load|mismatched"),
            (tensors | {norm: tensors[norm] * 1.5}, "cross-entropy of token"),
        ]:
            save_file(change, path, metadata={"format": "pt"})
            with self.subTest(why):
                self.fails(score(model), why)
        path.unlink()
        self.fails(score(model), "cannot load")


if __name__ == "__main__":
    unittest.main()
