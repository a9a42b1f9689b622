#!/usr/bin/env python3
"""Do vLLM's and SGLang's loaders find exactly the tensors that they can place?

    loader_rules.py model DIR             a model directory
    loader_rules.py adapter BASE_DIR DIR  a LoRA adapter of it

vLLM and SGLang need a GPU build, so this script does not run them: it follows the rules of their loaders,
as published in the sources named at each function, without any of their code. What it shows is which
files they read and whether every tensor in them has a place; it does not show that they then serve the
model. Needs no package but the standard library. One line for each rule; exit code 0, 1 or 2 (bad usage).
"""
import fnmatch
import json
import re
import struct
import sys
from pathlib import Path

INDEX = "model.safetensors.index.json"
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class Refused(Exception):
    """What the loader would stop at."""


def header(path):
    """Name to (type, shape) of a safetensors file: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    return {name: (entry["dtype"], entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}


def parameters(config):
    """Name to shape of the parameters of both servers' LlamaForCausalLM: query, key and value projections
    are one matrix, gate and up projections are one."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or d // heads
    kv = config.get("num_key_value_heads", heads) * width
    table = {"model.embed_tokens.weight": [v, d], "model.norm.weight": [d]}
    if not config.get("tie_word_embeddings", False):
        table["lm_head.weight"] = [v, d]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        table |= {
            layer + "input_layernorm.weight": [d],
            layer + "post_attention_layernorm.weight": [d],
            layer + "self_attn.qkv_proj.weight": [heads * width + 2 * kv, d],
            layer + "self_attn.o_proj.weight": [d, heads * width],
            layer + "mlp.gate_up_proj.weight": [2 * f, d],
            layer + "mlp.down_proj.weight": [d, f],
        }
        if config.get("attention_bias", False):
            table |= {
                layer + "self_attn.qkv_proj.bias": [heads * width + 2 * kv],
                layer + "self_attn.o_proj.bias": [d],
            }
    return table


def selected_files(directory):
    """Files that are read: every `*.safetensors` of the directory; if there is an index, those of them that
    its weight_map names. SGLang without an index leaves out `consolidated.safetensors` next to a single
    `model.safetensors`, which is no case of ours. vLLM with `consolidated*.safetensors` changes to Mistral's
    format, so such a file is refused here.

    vLLM: model_executor/model_loader/default_loader.py (`_prepare_weights`) and weight_utils.py
    (`filter_duplicate_safetensors_files`); SGLang: srt/model_loader, the same names.
    """
    files = sorted(path for path in directory.iterdir() if fnmatch.fnmatch(path.name, "*.safetensors"))
    if any(path.name.startswith("consolidated") for path in files):
        raise Refused("a consolidated*.safetensors file changes the format")
    index = directory / INDEX
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        files = [path for path in files if path.name in named]
    if not files:
        raise Refused("no weights are found")
    return files


def place(name, shape, config, table, strict):
    """The parameter that a tensor goes to, None for one that is left out.

    Stacked projections are renamed first; then the name must be a parameter's. Where it is not, vLLM stops
    (models/utils.py, `AutoWeightsLoader`); SGLang stops for a stacked projection (models/llama.py,
    `load_weights` looks it up without a default) and warns for others, so `strict` says which.
    """
    if "rotary_emb.inv_freq" in name or "rotary_emb.cos_cached" in name or "rotary_emb.sin_cached" in name:
        return None
    if config.get("tie_word_embeddings", False) and name.startswith("lm_head."):
        return None
    target = re.sub(r"\.(q|k|v)_proj\.", ".qkv_proj.", name)
    target = re.sub(r"\.(gate|up)_proj\.", ".gate_up_proj.", target)
    if target not in table:
        if strict or target != name:
            raise Refused(f"there is no parameter `{target}` for tensor `{name}`")
        return None
    if shape[1:] != table[target][1:]:
        raise Refused(f"tensor `{name}` has shape {shape}, parameter `{target}` {table[target]}")
    return target


def model(directory, strict):
    """Raises Refused, or returns how many tensors of which files are placed. Every row of every parameter
    must be filled."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("architectures") != ["LlamaForCausalLM"]:
        raise Refused(f"the architecture is {config.get('architectures')}")
    table = parameters(config)
    rows = dict.fromkeys(table, 0)
    files, types, count = selected_files(directory), set(), 0
    for path in files:
        for name, (dtype, shape) in header(path).items():
            target = place(name, shape, config, table, strict)
            if target is None:
                continue
            rows[target] += shape[0]
            types.add(dtype)
            count += 1
    wrong = [name for name, found in rows.items() if found != table[name][0]]
    if wrong:
        raise Refused(f"not filled exactly: {wrong[:5]}")
    # Both servers keep weights in the type that config.json names, unless told otherwise.
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    said = config.get("dtype") or config.get("torch_dtype")
    if {names.get(dtype) for dtype in types} != {said}:
        raise Refused(f"config.json says {said}, the tensors are {sorted(types)}")
    return f"{count} tensors of {', '.join(path.name for path in files)}, {said}"


def adapter(base, directory):
    """A LoRA adapter by vLLM's rule: only `adapter_model.safetensors` is read; each name ends in a module
    and `lora_A.weight` or `lora_B.weight`, and the module must be one that the model lets be adapted; a
    configuration with modules_to_save or DoRA is refused. In addition each module must exist in the base,
    which vLLM does not check, and the ranks must be the configuration's.

    vLLM: lora/lora_model.py (`from_local_checkpoint`), lora/peft_helper.py.
    """
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("modules_to_save") or config.get("use_dora") or config.get("bias", "none") != "none":
        raise Refused("modules_to_save, use_dora or bias is set")
    layers = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    pattern = re.compile(
        r"base_model\.model\.(model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+))\.lora_(A|B)\.weight")
    found = {}
    for name, (_, shape) in header(directory / "adapter_model.safetensors").items():
        match = pattern.fullmatch(name)
        if match is None or int(match[2]) >= layers or match[3] not in LINEAR:
            raise Refused(f"`{name}` belongs to no module of the base model")
        if shape[0 if match[4] == "A" else 1] != config["r"]:
            raise Refused(f"`{name}` has shape {shape}, the configuration's rank is {config['r']}")
        found.setdefault(match[1], set()).add(match[4])
    if not found or any(parts != {"A", "B"} for parts in found.values()):
        raise Refused("a module has only one of its two factors")
    return f"{len(found)} adapted modules"


def adapter_sglang(base, directory):
    """By SGLang's rule every `*.safetensors` of an adapter directory is read. A tensor belongs to the layer
    whose number its name holds; one without a number is kept and never used. Here all of the numbered ones
    must be factors of the base's modules.

    SGLang: srt/lora/lora.py (`initialize_weights`).
    """
    layers = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    used, unused = 0, 0
    for path in selected_files(directory):
        for name in header(path):
            number = re.search(r"layers\.(\d+)\.", name)
            if number is None:
                unused += 1
            elif int(number[1]) >= layers:
                raise Refused(f"`{name}` belongs to no layer of the base model")
            else:
                used += 1
    if used == 0:
        raise Refused("no tensor belongs to a layer")
    return f"{used} factors used, {unused} read and not used"


def rules(arguments):
    """The rules for one command line, as (name, function)."""
    kind, *paths = arguments
    paths = [Path(path) for path in paths]
    if kind == "model" and len(paths) == 1:
        return [("vLLM", lambda: model(paths[0], True)), ("SGLang", lambda: model(paths[0], False))]
    if kind == "adapter" and len(paths) == 2:
        return [("vLLM", lambda: adapter(*paths)), ("SGLang", lambda: adapter_sglang(*paths))]
    print(__doc__, file=sys.stderr)
    sys.exit(2)


def main():
    failed = False
    for name, rule in rules(sys.argv[1:] or [""]):
        try:
            print(f"loader rule of {name}: ok: {rule()}")
        except (Refused, OSError, KeyError, ValueError) as error:
            print(f"loader rule of {name}: FAILED: {error}")
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
