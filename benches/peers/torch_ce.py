#!/usr/bin/env python3
"""Forward and backward of the weighted linear cross-entropy in PyTorch, a peer for run.py (see protocol.py).

    torch_ce.py --write FILE [--rows 2048 --vocab 49152 --hidden 576]
    torch_ce.py --write FILE --model DIR --batches FILE [--rows 2048]
    torch_ce.py --data FILE --dtype f32|bf16 --form naive|chunked|chunked-autograd

loss = sum over rows i of weights[i] * CE(x[i] @ w.T, targets[i]), with gradients of x and w. The file
holds x [N, D] and w [V, D] in f32, targets [N] (i64) and weights [N] (f32). With --model they are what its
head 1 computes at the trained positions of the first batches, with its unembedding; random otherwise.
"""
import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import llama
import torch_packed
from protocol import reset_peak, serve, status_bytes

CHUNK = 256


def random_data(rows, vocab, hidden, seed=1):
    """Seeded inputs of the sizes a language model has; weights between 0.05 and 3, divided by the rows."""
    rng = np.random.default_rng(seed)
    arrays = {"x": rng.standard_normal((rows, hidden), dtype=np.float32),
              "w": rng.standard_normal((vocab, hidden), dtype=np.float32) * np.float32(0.05),
              "targets": rng.integers(0, vocab, rows),
              "weights": (rng.uniform(0.05, 3.0, rows) / rows).astype(np.float32)}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@torch.no_grad()
def model_data(directory, batches, rows, seed=1):
    """A model's hidden states after the final norm at trained positions, its unembedding, the tokens there."""
    model = llama.load(directory, 1)
    with open(batches, encoding="utf-8") as file:
        _, *steps = [json.loads(line) for line in file]
    states, labels, found = [], [], 0
    for fields in (micro for step in steps for micro in step["micro"]):
        micro = torch_packed.Micro(fields, model.shape)
        trunk = model.trunk(micro.tokens, micro.tables, micro.mask)
        targets = micro.targets(1).flatten()
        kept = targets != torch_packed.NONE
        states.append(model.head(1, trunk, micro.tables, micro.mask).flatten(0, 1)[kept])
        labels.append(targets[kept])
        found += len(labels[-1])
        if found >= rows:
            break
    else:
        raise SystemExit(f"{batches} has {found} trained positions, not {rows}")
    weights = np.random.default_rng(seed).uniform(0.05, 3.0, rows) / rows
    return {"x": torch.cat(states)[:rows].contiguous(), "w": model.unembedding().detach().clone(),
            "targets": torch.cat(labels)[:rows].contiguous(), "weights": torch.from_numpy(weights.astype(np.float32))}


def naive(data, chunk):
    """All logits at once, gradients by autograd."""
    del chunk
    x, w = data["x"].detach().requires_grad_(), data["w"].detach().requires_grad_()
    start = time.perf_counter()
    ce = F.cross_entropy(F.linear(x, w), data["targets"], reduction="none")
    loss = (ce.float() * data["weights"]).sum()
    middle = time.perf_counter()
    loss.backward()
    return loss.item(), x.grad, w.grad, middle - start, time.perf_counter() - middle


def chunked_autograd(data, chunk):
    """A chunk of rows at a time, gradients of each by autograd before the next."""
    x, w = data["x"].detach().requires_grad_(), data["w"].detach().requires_grad_()
    total, forward, backward = 0.0, 0.0, 0.0
    for i in range(0, len(x), chunk):
        start = time.perf_counter()
        ce = F.cross_entropy(F.linear(x[i:i + chunk], w), data["targets"][i:i + chunk], reduction="none")
        loss = (ce.float() * data["weights"][i:i + chunk]).sum()
        middle = time.perf_counter()
        loss.backward()
        total += loss.item()
        forward, backward = forward + middle - start, backward + time.perf_counter() - middle
        del loss, ce
    return total, x.grad, w.grad, forward, backward


@torch.no_grad()
def chunked(data, chunk):
    """A chunk of rows at a time, gradients computed along with the loss as Liger-Kernel does."""
    x, w, targets, weights = (data[name] for name in ("x", "w", "targets", "weights"))
    start = time.perf_counter()
    total, dx, dw = 0.0, torch.empty_like(x), torch.zeros_like(w)
    for i in range(0, len(x), chunk):
        rows, labels, scale = x[i:i + chunk], targets[i:i + chunk, None], weights[i:i + chunk, None]
        logits = F.linear(rows, w)
        # In place from here on: log-probabilities, probabilities, weighted gradients.
        torch.log_softmax(logits, 1, out=logits)
        total -= (logits.gather(1, labels).float() * scale).sum().item()
        logits.exp_()
        logits.scatter_add_(1, labels, logits.new_full(labels.shape, -1.0))
        logits.mul_(scale.to(logits.dtype))
        torch.mm(logits, w, out=dx[i:i + chunk])
        dw.addmm_(logits.T, rows)
    return total, dx, dw, time.perf_counter() - start, 0.0


FORMS = {"naive": naive, "chunked": chunked, "chunked-autograd": chunked_autograd}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", metavar="FILE", help="write inputs and end")
    parser.add_argument("--model", metavar="DIR", help="with --write: a model directory instead of random values")
    parser.add_argument("--batches", metavar="FILE", help="with --model: packed batches")
    parser.add_argument("--data", metavar="FILE")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--form", choices=list(FORMS), default="naive")
    parser.add_argument("--chunk", type=int, default=CHUNK)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.write:
        if args.model and args.batches:
            data = model_data(args.model, args.batches, args.rows)
        else:
            data = random_data(args.rows, args.vocab, args.hidden)
        save_file(data, args.write)
        return
    if not args.data:
        parser.error("--data FILE or --write FILE is needed")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    runtime = status_bytes("VmRSS")
    try:
        data = load_file(args.data)
        dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
        # Copies, so that no page of the file counts as memory of the step.
        data = {name: data[name].to(dtype if name in "xw" else data[name].dtype, copy=True)
                for name in ("x", "w", "targets", "weights")}
    except Exception as error:  # noqa: BLE001  (the library has its own exception types)
        raise SystemExit(f"{args.data} does not hold x, w, targets and weights: {error!r}") from error
    # Code pages that every step needs are read before memory is measured.
    FORMS[args.form]({name: t.to(dtype) if name in "xw" else t for name, t in random_data(64, 64, 64).items()}, 32)
    reset_peak()
    before = status_bytes("VmRSS")

    def step():
        start = time.perf_counter()
        loss, _, _, forward, backward = FORMS[args.form](data, args.chunk)
        seconds = time.perf_counter() - start
        return {"loss": loss, "seconds": seconds, "forward": forward, "backward": backward}

    def peak():
        gradients = sum(data[name].numel() * data[name].element_size() for name in "xw")
        return {"extra_bytes": status_bytes("VmHWM") - before - gradients}

    serve(step, runtime, peak)


if __name__ == "__main__":
    main()
