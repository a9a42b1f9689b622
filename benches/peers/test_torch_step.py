#!/usr/bin/env python3
"""Checks the PyTorch peers on a tiny model: `python test_torch_step.py`, silent but for the last line.

The reference is written out position by position in f64, from the files' tensors, and shares no code
with the peers.
"""
import math
import tempfile

import torch
from safetensors.torch import load_file

import llama
import random_model
import torch_ce
from torch_step import Step, tokens

SIZES = {"vocab": 512, "hidden": 48, "intermediate": 80, "layers": 3, "heads": 6, "kv-heads": 2, "heads-count": 4}
ROWS, LENGTH = 2, 13


def norm(x, weight):
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def turn(x):
    """Rotary embedding of `[S, d]`, dimension i with dimension i + d/2."""
    half, out = x.shape[1] // 2, x.clone()
    for t in range(x.shape[0]):
        for i in range(half):
            angle = t * 10000.0 ** (-i / half)
            a, b = x[t, i], x[t, i + half]
            out[t, i] = a * math.cos(angle) - b * math.sin(angle)
            out[t, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def layer(x, w, prefix):
    """A decoder layer on one row, `[S, D]`, one attention head after the other."""
    get = {name.removeprefix(prefix): t for name, t in w.items() if name.startswith(prefix)}
    h = norm(x, get["input_layernorm.weight"])
    q, k, v = (h @ get[f"self_attn.{n}_proj.weight"].T for n in "qkv")
    size, mixed = SIZES["hidden"] // SIZES["heads"], []
    for head in range(SIZES["heads"]):
        group = head // (SIZES["heads"] // SIZES["kv-heads"])
        own, shared = slice(head * size, head * size + size), slice(group * size, group * size + size)
        scores = turn(q[:, own]) @ turn(k[:, shared]).T / math.sqrt(size)
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
        mixed.append(scores.softmax(-1) @ v[:, shared])
    x = x + torch.cat(mixed, -1) @ get["self_attn.o_proj.weight"].T
    h = norm(x, get["post_attention_layernorm.weight"])
    gate = h @ get["mlp.gate_proj.weight"].T
    return x + (gate * gate.sigmoid() * (h @ get["mlp.up_proj.weight"].T)) @ get["mlp.down_proj.weight"].T


def reference(w, batch):
    """The loss by its definition: sum over valid (t, k) of CE_k(t) / H / response tokens."""
    table, last, count, total = w["model.embed_tokens.weight"], SIZES["layers"] - 1, 0, 0.0
    for row in batch.tolist():
        count += len(row) - 1
        x = table[row]
        for i in range(last):
            x = layer(x, w, f"model.layers.{i}.")
        for k in range(1, SIZES["heads-count"] + 1):
            states = layer(x, w, f"model.layers.{last}." if k == 1 else f"mtp.heads.{k}.")
            logits = norm(states, w["model.norm.weight"]) @ table.T
            for t in range(len(row) - k):
                total = total + logits[t].logsumexp(0) - logits[t, row[t + k]]
    return total / SIZES["heads-count"] / count


def check_step(directory):
    """Naive, sequential and the definition agree: loss, every gradient, and the weights after a step."""
    w = {}
    for file in ("model", "mtp_heads"):
        w |= {n: t.double().requires_grad_() for n, t in load_file(f"{directory}/{file}.safetensors").items()}
    batch = tokens(ROWS, LENGTH, SIZES["vocab"])
    expected = reference(w, batch)
    expected.backward()
    after = {}
    for sequential in (False, True):
        model = llama.load(directory)
        step = Step(model, batch, sequential=sequential, autocast=False)
        loss, _, _ = step.gradients()
        assert abs(loss - expected.item()) < 1e-5 * expected.item(), (loss, expected.item())
        for name, p in model.named_parameters():
            key = llama.main_name(name, model.shape)
            if name.startswith("heads.") and not name.startswith("heads.0."):
                key = f"mtp.heads.{int(name.split('.')[1]) + 1}.{name.split('.', 2)[2]}"
            error = (p.grad - w[key].grad).norm() / w[key].grad.norm()
            assert error < 1e-5, (sequential, name, error.item())
        model.zero_grad()
        losses = [step.run()["loss"] for _ in range(3)]
        assert losses[2] < losses[0], losses
        after[sequential] = model.state_dict()
    for name, value in after[False].items():
        assert torch.allclose(value, after[True][name], atol=1e-6), name
    for options in ({"dtype": torch.bfloat16, "autocast": False}, {"dtype": torch.float32, "autocast": True}):
        for sequential in (False, True):
            model = llama.load(directory, dtype=options["dtype"])
            step = Step(model, batch, sequential=sequential, autocast=options["autocast"])
            loss = step.run()["loss"]
            assert abs(loss - expected.item()) < 2e-2 * expected.item(), (options, loss, expected.item())


def check_missing_heads(directory):
    """Heads beyond those in the files start as copies of the last layer."""
    model = llama.load(directory, mtp_heads=5)
    last = model.heads[0].mlp.up_proj.weight
    assert torch.equal(model.heads[4].mlp.up_proj.weight, last)
    assert not torch.equal(model.heads[3].mlp.up_proj.weight, last)


def check_packing(directory):
    """Packed documents give the loss and the update of the same documents in rows of their own."""
    import json
    from pathlib import Path

    from torch_packed import PackedStep

    def micro(rows, length):
        """Rows of (tokens, prompt length) documents, padded to a length."""
        fields = {"rows": len(rows), "seq_len": length, "tokens": [], "docs": [], "positions": [], "response": []}
        for documents in rows:
            row = [(t, i, j, j >= prompt) for i, (ids, prompt) in enumerate(documents) for j, t in enumerate(ids)]
            row += [(0, -1, 0, False)] * (length - len(row))
            for name, column in zip(("tokens", "docs", "positions", "response"), zip(*row)):
                fields[name] += column
        return fields

    optim = {"lr": 1e-2, "warmup": 0.0, "min_lr_ratio": 0.0, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8,
             "weight_decay": 0.1, "clip_norm": 1.0}
    one, two = ([1, 5, 2, 8, 3, 3], 2), ([4, 4, 9, 1, 0], 3)
    found = []
    for name, micros in {"packed": [micro([[one, two]], 14)], "apart": [micro([[one]], 6), micro([[two]], 5)]}.items():
        file = Path(directory) / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, [{"optim": optim}, {"micro": micros}])), encoding="utf-8")
        for gather in (False, True):
            model = llama.load(directory, dtype=torch.float64)
            reply = PackedStep(model, file, gather=gather, autocast=False).run()
            assert (reply["tokens"], reply["response_tokens"]) == (11, 6), reply
            found.append((reply["loss"], [p.detach() for p in model.parameters()]))
    for loss, parameters in found[1:]:
        assert abs(loss - found[0][0]) < 1e-6, (loss, found[0][0])
        for got, wanted in zip(parameters, found[0][1]):
            assert torch.allclose(got, wanted, atol=1e-6)


def check_cross_entropy():
    """Every form gives the definition's loss and gradients, zero weights and odd row counts included."""
    for n in (1, 5, 9):
        data = torch_ce.random_data(n, 37, 8, seed=n)
        data["weights"][: n // 2] = 0.0
        x, w = (data[name].double().requires_grad_() for name in ("x", "w"))
        logits = x @ w.T
        ce = logits.logsumexp(1) - logits[torch.arange(n), data["targets"]]
        loss = (ce * data["weights"].double()).sum()
        loss.backward()
        for form in torch_ce.FORMS:
            for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
                ours = {name: t.to(dtype) if name in "xw" else t for name, t in data.items()}
                value, dx, dw, _, _ = torch_ce.FORMS[form](ours, chunk=4)
                assert abs(value - loss.item()) <= bound * abs(loss.item()), (form, dtype, value, loss.item())
                for got, wanted in ((dx, x.grad), (dw, w.grad)):
                    assert (got - wanted).norm() <= bound * wanted.norm(), (form, dtype, n)


def main():
    # The first numbers of the sequence, as unsigned 64-bit arithmetic with wrapping gives them.
    first = (6364136223846793005 + 1442695040888963407) & (2**64 - 1)
    assert tokens(1, 2, 49152)[0, 0].item() == (first >> 33) % 49152
    with tempfile.TemporaryDirectory() as directory:
        random_model.write(directory, SIZES)
        check_step(directory)
        check_missing_heads(directory)
        check_packing(directory)
    check_cross_entropy()
    print("ok: the PyTorch peers compute what the definitions say")


if __name__ == "__main__":
    main()
