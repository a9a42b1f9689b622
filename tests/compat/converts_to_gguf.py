#!/usr/bin/env python3
"""Runs llama.cpp's own converters on what wmtp wrote and compares every value of the GGUF file.

    converts_to_gguf.py LLAMA_CPP model DIR
    converts_to_gguf.py LLAMA_CPP adapter BASE_DIR DIR

LLAMA_CPP holds convert_hf_to_gguf.py, convert_lora_to_gguf.py and gguf-py. Both convert to f32, which is
exact for f16, bf16 and f32. The file must have exactly the tensors of model.safetensors or
adapter_model.safetensors, bit for bit, with rows of query and key projections in Meta's order (computed
here with whole-array views), the number of layers, the vocabulary and the chat template. One line; exit
code 0, 1 or 2 (bad usage).
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class Mismatch(Exception):
    """The one sentence that says what does not agree."""


def gguf_name(module):
    if module in WHOLE:
        return WHOLE[module]
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}"


def meta_order(values, heads):
    """Rows of rotated halves become rows of neighbouring pairs."""
    rows = values.shape[0]
    return values.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def arranged(part, values, config):
    """A projection's rows as llama.cpp wants them."""
    heads = config["num_attention_heads"]
    kind = part.rsplit(".", 1)[-1]
    if kind == "q_proj":
        return meta_order(values, heads)
    if kind == "k_proj":
        return meta_order(values, config.get("num_key_value_heads", heads))
    return values


def of_model(directory):
    """GGUF name to values, from model.safetensors."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    wanted = {}
    for name, tensor in load_file(directory / "model.safetensors").items():
        module, part = name.rsplit(".", 1)
        wanted[f"{gguf_name(module)}.{part}"] = arranged(module, tensor.to(torch.float32).numpy(), config)
    return wanted, config


def of_adapter(base, directory):
    """GGUF name to values, from adapter_model.safetensors."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    wanted = {}
    for name, tensor in load_file(directory / "adapter_model.safetensors").items():
        module, part, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        values = tensor.to(torch.float32).numpy()
        # Only the left factor has the projection's rows.
        values = arranged(module, values, config) if part == "lora_B" else values
        wanted[f"{gguf_name(module)}.weight.{part.lower()}"] = values
    return wanted, config


def convert(llama_cpp, script, arguments, out):
    command = [sys.executable, str(llama_cpp / script), *map(str, arguments), "--outfile", str(out), "--outtype", "f32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not out.is_file():
        raise Mismatch(f"{script} failed with {done.returncode}: {done.stderr.strip()[-600:]}")


def compare(out, wanted):
    """Raises Mismatch, or returns the reader."""
    from gguf import GGUFReader

    reader = GGUFReader(out)
    found = {tensor.name: tensor for tensor in reader.tensors}
    if found.keys() != wanted.keys():
        raise Mismatch(f"the tensors differ: {sorted(found.keys() ^ wanted.keys())[:10]}")
    for name, values in wanted.items():
        stored = np.asarray(found[name].data, dtype=np.float32)
        if stored.size != values.size or stored.tobytes() != np.ascontiguousarray(values).tobytes():
            raise Mismatch(f"`{name}` has other values")
    return reader


def field(reader, name):
    entry = reader.get_field(name)
    if entry is None:
        raise Mismatch(f"the file has no `{name}`")
    return entry.contents()


def model(llama_cpp, out, directory):
    wanted, config = of_model(directory)
    convert(llama_cpp, "convert_hf_to_gguf.py", [directory], out)
    reader = compare(out, wanted)
    expected = {
        "general.architecture": "llama",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
    }
    template = directory / "chat_template.jinja"
    if template.is_file():
        expected["tokenizer.chat_template"] = template.read_text(encoding="utf-8")
    for name, value in expected.items():
        if field(reader, name) != value:
            raise Mismatch(f"`{name}` is {field(reader, name)!r}, expected {value!r}")
    if len(field(reader, "tokenizer.ggml.tokens")) != config["vocab_size"]:
        raise Mismatch("the vocabulary has another size")
    return f"{len(wanted)} tensors bit for bit, {len(expected)} fields"


def adapter(llama_cpp, out, base, directory):
    wanted, _ = of_adapter(base, directory)
    convert(llama_cpp, "convert_lora_to_gguf.py", ["--base", base, directory], out)
    reader = compare(out, wanted)
    alpha = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"]
    if field(reader, "adapter.lora.alpha") != alpha or field(reader, "general.type") != "adapter":
        raise Mismatch("alpha or the kind of file is another")
    return f"{len(wanted)} factors bit for bit, alpha {alpha}"


def main():
    kinds = {("model", 4): model, ("adapter", 5): adapter}
    run = kinds.get((sys.argv[2], len(sys.argv))) if len(sys.argv) > 2 else None
    if run is None:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    llama_cpp = Path(sys.argv[1])
    sys.path.insert(1, str(llama_cpp / "gguf-py"))
    with tempfile.TemporaryDirectory() as work:
        try:
            print("llama.cpp: ok:", run(llama_cpp, Path(work) / "out.gguf", *map(Path, sys.argv[3:])))
        except Mismatch as mismatch:
            print("llama.cpp: FAILED:", mismatch)
            sys.exit(1)


if __name__ == "__main__":
    main()
