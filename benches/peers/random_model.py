#!/usr/bin/env python3
"""Writes a model directory with seeded random weights, so that all peers start from the same ones.

    random_model.py DIR [--layers 30 --vocab 49152 … --heads-count 4]

The default sizes are SmolLM2-135M's, with 4 prediction heads.
"""
import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

SIZES = {"vocab": 49152, "hidden": 576, "intermediate": 1536, "layers": 30, "heads": 9, "kv-heads": 3,
         "heads-count": 4}


def layer(rng, prefix, sizes):
    """A decoder layer's tensors, small normal numbers; norms near 1."""
    hidden, inner = sizes["hidden"], sizes["intermediate"]
    keys = hidden // sizes["heads"] * sizes["kv-heads"]
    shapes = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (keys, hidden),
              "self_attn.v_proj": (keys, hidden), "self_attn.o_proj": (hidden, hidden),
              "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    out = {f"{prefix}{name}.weight": normal(rng, shape, shape[1] ** -0.5) for name, shape in shapes.items()}
    for name in ("input_layernorm", "post_attention_layernorm"):
        out[f"{prefix}{name}.weight"] = 1 + normal(rng, (hidden,), 0.1)
    return out


def normal(rng, shape, scale):
    """Normal numbers in f32."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def write(directory, sizes=SIZES, seed=1):
    """Writes config.json, model.safetensors and mtp_heads.safetensors."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    main = {"model.embed_tokens.weight": normal(rng, (sizes["vocab"], sizes["hidden"]), 0.02)}
    for i in range(sizes["layers"]):
        main |= layer(rng, f"model.layers.{i}.", sizes)
    main["model.norm.weight"] = 1 + normal(rng, (sizes["hidden"],), 0.1)
    extra = {}
    for k in range(2, sizes["heads-count"] + 1):
        extra |= layer(rng, f"mtp.heads.{k}.", sizes)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": sizes["hidden"],
        "head_dim": sizes["hidden"] // sizes["heads"], "intermediate_size": sizes["intermediate"],
        "num_hidden_layers": sizes["layers"], "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv-heads"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "float32", "vocab_size": sizes["vocab"],
        "wmtp": {"n_heads": sizes["heads-count"], "format": 1},
    }
    save_file(main, directory / "model.safetensors", metadata={"format": "pt"})
    if extra:
        save_file(extra, directory / "mtp_heads.safetensors", metadata={"format": "pt"})
    # Written last: its presence marks a complete directory.
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, default=1)
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    sizes = {name: getattr(args, name.replace("-", "_")) for name in SIZES}
    if min(sizes.values()) < 1 or sizes["hidden"] % sizes["heads"] or sizes["heads"] % sizes["kv-heads"]:
        parser.error("sizes must be at least 1, --heads must divide --hidden and --kv-heads must divide --heads")
    write(args.directory, sizes, args.seed)


if __name__ == "__main__":
    main()
