#!/usr/bin/env python3
"""Tests loader_rules.py itself: directories that the servers load pass, and each reason to refuse one does
refuse it. Needs no package but the standard library.

    python test_loader_rules.py
"""
import json
import struct
import tempfile
import unittest
from pathlib import Path

from loader_rules import LINEAR, Refused, adapter, adapter_sglang, model

D, F, V, KV = 8, 12, 10, 4
SHAPES = {"q_proj": [D, D], "k_proj": [KV, D], "v_proj": [KV, D], "o_proj": [D, D],
          "gate_proj": [F, D], "up_proj": [F, D], "down_proj": [D, F]}


def write(path, tensors, dtype="BF16"):
    entries, end = {}, 0
    for name, shape in tensors.items():
        size = 2
        for n in shape:
            size *= n
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def layer(prefix):
    tensors = {prefix + "input_layernorm.weight": [D], prefix + "post_attention_layernorm.weight": [D]}
    for name, shape in SHAPES.items():
        block = "self_attn" if name[0] in "qkvo" else "mlp"
        tensors[f"{prefix}{block}.{name}.weight"] = shape
    return tensors


def factors(prefix, rank=2):
    tensors = {}
    for name, (rows, columns) in SHAPES.items():
        block = "self_attn" if name[0] in "qkvo" else "mlp"
        stem = f"base_model.model.{prefix}{block}.{name}"
        tensors |= {f"{stem}.lora_A.weight": [rank, columns], f"{stem}.lora_B.weight": [rows, rank]}
    return tensors


class Rules(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = Path(temporary.name)
        self.config = {
            "architectures": ["LlamaForCausalLM"], "hidden_size": D, "intermediate_size": F, "vocab_size": V,
            "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2, "torch_dtype": "bfloat16",
            "tie_word_embeddings": True}
        self.tensors = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D]}
        for i in range(2):
            self.tensors |= layer(f"model.layers.{i}.")
        self.save()

    def save(self, tensors=None):
        (self.dir / "config.json").write_text(json.dumps(self.config))
        write(self.dir / "model.safetensors", tensors or self.tensors)

    def index(self, names=("model.safetensors",)):
        table = {name: names[i % len(names)] for i, name in enumerate(self.tensors)}
        (self.dir / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))

    def refused(self, why, strict=True):
        with self.assertRaisesRegex(Refused, why):
            model(self.dir, strict)

    def test_a_plain_llama_passes_with_and_without_an_index(self):
        for strict in (True, False):
            self.assertIn("20 tensors", model(self.dir, strict))
        self.index()
        self.assertIn("20 tensors", model(self.dir, True))
        self.tensors["lm_head.weight"] = [V, D]
        self.save()
        self.assertIn("20 tensors", model(self.dir, True))
        self.config["tie_word_embeddings"] = False
        self.save()
        self.assertIn("21 tensors", model(self.dir, True))

    def test_heads_need_an_index_that_does_not_name_them(self):
        write(self.dir / "mtp_heads.safetensors", layer("mtp.heads.2."))
        for strict in (True, False):
            self.refused("no parameter `mtp.heads.2.*_proj.weight`" if not strict else "no parameter `mtp.", strict)
        self.index()
        for strict in (True, False):
            self.assertIn("20 tensors of model.safetensors", model(self.dir, strict))
        self.index(("model.safetensors", "mtp_heads.safetensors"))
        self.refused("no parameter `mtp.")

    def test_what_is_missing_misshapen_or_untrue_is_refused(self):
        without = {k: v for k, v in self.tensors.items() if k != "model.layers.1.self_attn.v_proj.weight"}
        self.save(without)
        self.refused("not filled exactly.*qkv_proj")
        self.save(self.tensors | {"model.norm.weight": [D + 1]})
        self.refused("not filled exactly.*model.norm.weight")
        self.save(self.tensors | {"model.layers.0.mlp.up_proj.weight": [F, D + 1]})
        self.refused("has shape")
        self.config["torch_dtype"] = "float32"
        self.save()
        self.refused("config.json says float32")
        self.config["architectures"] = ["MtpLlama"]
        self.save()
        self.refused("architecture")

    def test_adapters(self):
        self.assertEqual(set(SHAPES), LINEAR)
        lora = self.dir / "adapter"
        lora.mkdir()
        config = {"r": 2, "lora_alpha": 4, "bias": "none", "modules_to_save": None}
        (lora / "adapter_config.json").write_text(json.dumps(config))
        good = factors("model.layers.0.") | factors("model.layers.1.")
        write(lora / "adapter_model.safetensors", good)
        write(lora / "mtp_adapter.safetensors", factors("mtp.heads.2."))
        self.assertEqual(adapter(self.dir, lora), "14 adapted modules")
        self.assertEqual(adapter_sglang(self.dir, lora), "28 factors used, 14 read and not used")
        for wrong, why in [
            (good | factors("mtp.heads.2."), "belongs to no module"),
            (good | factors("model.layers.2."), "belongs to no module"),
            (factors("model.layers.0.", rank=3), "rank is 2"),
            (dict(list(good.items())[1:]), "only one of its two factors"),
        ]:
            write(lora / "adapter_model.safetensors", wrong)
            with self.subTest(why), self.assertRaisesRegex(Refused, why):
                adapter(self.dir, lora)
        write(lora / "adapter_model.safetensors", factors("model.layers.2."))
        with self.assertRaisesRegex(Refused, "no layer"):
            adapter_sglang(self.dir, lora)
        (lora / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": ["lm_head"]}))
        with self.assertRaisesRegex(Refused, "modules_to_save"):
            adapter(self.dir, lora)


if __name__ == "__main__":
    unittest.main()
