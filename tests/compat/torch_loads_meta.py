"""Does torch load the consolidated.pth that `wmtp convert` writes, with the right values?

    wmtp convert HF_DIR META_DIR
    python tests/compat/torch_loads_meta.py META_DIR HF_DIR

Needs torch and safetensors. Loads the checkpoint with torch.load(weights_only=True), plain and
memory-mapped, and wants every tensor of HF_DIR in it, bit for bit and of the same type, under
Meta's names, with query and key rows in Meta's order (computed here with whole-tensor views), and
nothing else. Prints one line; exit code 0, 1 (does not agree) or 2 (bad usage).
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

PARTS = {
    "input_layernorm.weight": "attention_norm.weight",
    "self_attn.q_proj.weight": "attention.wq.weight",
    "self_attn.k_proj.weight": "attention.wk.weight",
    "self_attn.v_proj.weight": "attention.wv.weight",
    "self_attn.o_proj.weight": "attention.wo.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "feed_forward.w1.weight",
    "mlp.up_proj.weight": "feed_forward.w3.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
}
WHOLE = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}


def meta_name(name):
    if name in WHOLE:
        return WHOLE[name]
    *prefix, index, rest = name.split(".", 3)
    if prefix == ["model", "layers"]:
        return f"layers.{index}.{PARTS[rest]}"
    return f"extra_heads.{int(index) - 2}.{PARTS[rest]}"


def neighbouring_pairs(weight, heads):
    rows, columns = weight.shape
    view = weight.view(heads, 2, rows // heads // 2, columns)
    return view.transpose(1, 2).reshape(rows, columns)


def expected(hf_dir):
    config = json.loads((hf_dir / "config.json").read_text())
    heads = config["num_attention_heads"]
    rotated = {"q_proj": heads, "k_proj": config.get("num_key_value_heads", heads)}
    tensors = {}
    for path in sorted(hf_dir.glob("*.safetensors")):
        if path.name.startswith("model") or path.name == "mtp_heads.safetensors":
            tensors |= load_file(path)
    wanted = {}
    for name, tensor in tensors.items():
        kind = name.split(".")[-2]
        wanted[meta_name(name)] = neighbouring_pairs(tensor, rotated[kind]) if kind in rotated else tensor
    wanted.setdefault("output.weight", wanted["tok_embeddings.weight"])
    return wanted


def differences(found, wanted):
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found or name not in wanted:
            yield f"{name} is {'missing' if name not in found else 'surplus'}"
        elif found[name].dtype != wanted[name].dtype or found[name].shape != wanted[name].shape:
            yield f"{name} is {found[name].dtype} {tuple(found[name].shape)}"
        elif not torch.equal(found[name].contiguous().view(torch.uint8), wanted[name].contiguous().view(torch.uint8)):
            yield f"{name} has other values"


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    meta_dir, hf_dir = map(pathlib.Path, sys.argv[1:])
    wanted = expected(hf_dir)
    for mapped in (False, True):
        found = torch.load(meta_dir / "consolidated.pth", weights_only=True, map_location="cpu", mmap=mapped)
        wrong = list(differences(found, wanted))
        if wrong:
            print(f"does not agree (mmap={mapped}): " + "; ".join(wrong[:20]))
            return 1
    print(f"agrees: {len(wanted)} tensors, {sum(t.numel() for t in wanted.values())} values, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
