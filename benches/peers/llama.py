"""A multi-token Llama in plain PyTorch, with Hugging Face's names and rotary embedding.

The trunk is every decoder layer but the last. Head 1 is the last layer, heads 2..H are one layer
each; all take the trunk's output and share the final norm and the unembedding.
"""
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn


@dataclass(frozen=True)
class Shape:
    """Sizes and constants of a model."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    theta: float
    tied: bool
    mtp_heads: int

    @classmethod
    def read(cls, directory, mtp_heads=None):
        """The shape in a directory's config.json; `mtp_heads` overrides the number of prediction heads."""
        path = Path(directory) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            rope = config.get("rope_parameters") or {}
            scaling = config.get("rope_scaling") or rope
            if scaling.get("rope_type", "default") != "default":
                raise SystemExit(f"{path}: rope type {scaling['rope_type']!r} is not supported by this bench")
            return cls(
                vocab=config["vocab_size"], hidden=config["hidden_size"], intermediate=config["intermediate_size"],
                layers=config["num_hidden_layers"], heads=config["num_attention_heads"],
                kv_heads=config["num_key_value_heads"],
                head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
                eps=config["rms_norm_eps"], theta=config.get("rope_theta") or rope["rope_theta"],
                tied=config.get("tie_word_embeddings", False),
                mtp_heads=mtp_heads or config.get("wmtp", {}).get("n_heads", 1))
        except (OSError, ValueError, KeyError) as error:
            raise SystemExit(f"{path} is not a Llama's configuration: {error!r}") from error


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape.hidden))
        self.eps = shape.eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal attention with grouped queries."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def forward(self, x, tables, mask=None):
        rows, length, _ = x.shape

        def split(t):
            return t.view(rows, length, -1, self.shape.head_dim).transpose(1, 2)

        q, k, v = rotate(split(self.q_proj(x)), tables), rotate(split(self.k_proj(x)), tables), split(self.v_proj(x))
        grouped = self.shape.heads != self.shape.kv_heads
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = Norm(shape)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape)
        self.mlp = Mlp(shape)

    def forward(self, x, tables, mask=None):
        x = x + self.self_attn(self.input_layernorm(x), tables, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class MtpLlama(nn.Module):
    """Trunk, prediction heads, final norm and unembedding; weights as `load` left them."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers - 1))
        self.heads = nn.ModuleList(Layer(shape) for _ in range(shape.mtp_heads))
        self.norm = Norm(shape)
        self.untied_unembedding = None if shape.tied else nn.Parameter(torch.empty(shape.vocab, shape.hidden))

    def unembedding(self):
        """`[V, D]`."""
        return self.embedding if self.shape.tied else self.untied_unembedding

    def trunk(self, tokens, tables, mask=None):
        """Hidden states before the heads, `[B, S, D]`; `mask` says which keys a query sees, by default all before."""
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = layer(x, tables, mask)
        return x

    def head(self, k, trunk, tables, mask=None):
        """Head k's hidden states after the final norm, k = 1..H."""
        return self.norm(self.heads[k - 1](trunk, tables, mask))


def sequential_heads(model, trunk, head_loss, precision):
    """Each head forward and backward into a detached trunk output, then the trunk's backward pass.

    `trunk()` gives the trunk's output and `head_loss(k, states)` head k's part of the loss; both run
    within `precision()`. Adds the gradients; returns the loss, seconds forward and seconds backward.
    """
    total, forward, backward = 0.0, 0.0, 0.0
    start = time.perf_counter()
    with precision():
        states = trunk()
    leaf = states.detach().requires_grad_()
    for k in range(1, model.shape.mtp_heads + 1):
        with precision():
            loss = head_loss(k, leaf)
        middle = time.perf_counter()
        loss.backward()
        total += loss.item()
        # Frees this head's graph before the next one's is made.
        del loss
        end = time.perf_counter()
        forward, backward, start = forward + middle - start, backward + end - middle, end
    states.backward(leaf.grad)
    return total, forward, backward + time.perf_counter() - start


def rope_tables(shape, length):
    """Cosine and sine of every position and dimension, `[S, head_dim]` each, in f32."""
    exponent = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), shape.theta**-exponent)
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x, tables):
    """Rotary embedding of `[B, heads, S, head_dim]`, pairing halves as Hugging Face does."""
    cos, sin = (table.to(x.dtype) for table in tables)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def load(directory, mtp_heads=None, dtype=torch.float32):
    """A directory's model in `dtype`. Heads that its files lack start as copies of the last layer."""
    shape = Shape.read(directory, mtp_heads)
    with torch.device("meta"):
        model = MtpLlama(shape)
    model.to(dtype=dtype).to_empty(device="cpu")
    main = tensors(Path(directory) / "model.safetensors")
    extra = tensors(Path(directory) / "mtp_heads.safetensors", optional=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            source, key = main, main_name(name, shape)
            if name.startswith("heads."):
                _, k, part = name.split(".", 2)
                own = f"mtp.heads.{int(k) + 1}.{part}"
                if own in extra:
                    source, key = extra, own
            if key not in source:
                raise SystemExit(f"{directory} lacks the tensor {key}")
            value = source[key]()
            if value.shape != parameter.shape:
                raise SystemExit(f"{directory}: {key} is {list(value.shape)}, not {list(parameter.shape)}")
            parameter.copy_(value)
    return model


def main_name(name, shape):
    """A parameter's name in model.safetensors; a head's is that of the last layer."""
    if name.startswith("heads."):
        return f"model.layers.{shape.layers - 1}.{name.split('.', 2)[2]}"
    fixed = {"embedding": "model.embed_tokens.weight", "untied_unembedding": "lm_head.weight"}
    return fixed.get(name, f"model.{name}")


def tensors(path, optional=False):
    """The file's tensors by name, as functions that read one each."""
    if optional and not path.exists():
        return {}
    try:
        file = safe_open(str(path), framework="pt")
    except Exception as error:  # noqa: BLE001  (the library has its own exception types)
        raise SystemExit(f"cannot read {path}: {error}") from error
    return {name: (lambda name=name: file.get_tensor(name)) for name in file.keys()}
