#!/usr/bin/env python3
"""One training step of a multi-token Llama in plain PyTorch, a peer for run.py (see protocol.py).

    torch_step.py --model DIR --dtype f32|bf16|bf16-master --heads naive|sequential

Every token of a row but the first is trained, each step on the same batch: cross-entropy over all
heads, AdamW (betas 0.9 and 0.95, decay 0.1 on matrices only), clipping by the global norm.
"""
import argparse
import contextlib
import time

import torch
import torch.nn.functional as F

import llama
from protocol import reset_peak, serve, status_bytes

RATE, BETAS, EPS, DECAY, CLIP = 1e-5, (0.9, 0.95), 1e-8, 0.1, 1.0


def tokens(rows, length, vocab):
    """The step's token ids, `[rows, length]`: the same pseudo-random sequence as the Rust bench's."""
    state, ids = 1, []
    for _ in range(rows * length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % vocab)
    return torch.tensor(ids).view(rows, length)


def make_optimizer(model, adamw="fused"):
    """AdamW, without decay on norms and embeddings."""
    decayed = [p for n, p in model.named_parameters() if not ("norm" in n or "embedding" in n)]
    plain = [p for n, p in model.named_parameters() if "norm" in n or "embedding" in n]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    kind = {"fused": adamw == "fused", "foreach": adamw == "foreach"}
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=EPS, **kind)


class Step:
    """A model with its optimizer and its batch."""

    def __init__(self, model, batch, *, sequential, autocast, adamw="fused", logits="native"):
        self.model, self.batch = model, batch
        self.sequential, self.autocast, self.logits = sequential, autocast, logits
        self.tables = llama.rope_tables(model.shape, batch.shape[1])
        rows, length = batch.shape
        # Of each row every token but the first is a target of head 1.
        self.scale = 1.0 / (model.shape.mtp_heads * rows * (length - 1))
        self.optimizer = make_optimizer(model, adamw)

    def precision(self):
        """bf16 autocast where it is asked for."""
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def head_loss(self, k, trunk):
        """Head k's part of the loss: positions t whose target t + k lies within the row."""
        if k >= self.batch.shape[1]:
            return trunk.sum() * 0.0
        states = self.model.head(k, trunk, self.tables)[:, :-k].flatten(0, 1)
        logits = F.linear(states, self.model.unembedding())
        if self.logits == "f32":
            logits = logits.float()
        ce = F.cross_entropy(logits, self.batch[:, k:].flatten(), reduction="none")
        return ce.float().sum() * self.scale

    def gradients(self):
        """Leaves the gradients in the parameters; returns loss, seconds forward and seconds backward."""
        if not self.sequential:
            return self.heads_at_once()
        trunk = lambda: self.model.trunk(self.batch, self.tables)  # noqa: E731
        return llama.sequential_heads(self.model, trunk, self.head_loss, self.precision)

    def heads_at_once(self):
        """All heads' logits, then one backward pass."""
        start = time.perf_counter()
        with self.precision():
            trunk = self.model.trunk(self.batch, self.tables)
            loss = sum(self.head_loss(k, trunk) for k in range(1, self.model.shape.mtp_heads + 1))
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        return loss.item(), middle - start, end - middle

    def run(self):
        """One step; returns its loss and how long each part took."""
        start = time.perf_counter()
        loss, forward, backward = self.gradients()
        before = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        return {"loss": loss, "seconds": end - start, "forward": forward, "backward": backward,
                "optimizer": end - before}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory with config.json and model.safetensors")
    parser.add_argument("--dtype", choices=["f32", "bf16", "bf16-master"], default="f32")
    parser.add_argument("--heads", choices=["naive", "sequential"], default="naive")
    parser.add_argument("--adamw", choices=["fused", "foreach", "loop"], default="fused")
    parser.add_argument("--logits", choices=["native", "f32"], default="native",
                        help="type of the logits that the cross-entropy gets: as computed, or made f32 first")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--len", type=int, default=256, dest="length")
    parser.add_argument("--heads-count", type=int, help="prediction heads; default: as the model has")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.rows < 1 or args.length < 2 or args.threads < 1 or (args.heads_count or 1) < 1:
        parser.error("--rows, --threads and --heads-count must be at least 1 and --len at least 2")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    runtime = status_bytes("VmRSS")
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = llama.load(args.model, args.heads_count, dtype)
    batch = tokens(args.rows, args.length, model.shape.vocab)
    step = Step(model, batch, sequential=args.heads == "sequential", autocast=args.dtype == "bf16-master",
                adamw=args.adamw, logits=args.logits)
    reset_peak()
    serve(step.run, runtime)


if __name__ == "__main__":
    main()
