#!/usr/bin/env python3
"""Fine-tuning on packed documents in plain PyTorch, a peer for run.py (see protocol.py).

    torch_packed.py --model DIR --batches FILE --dtype f32|bf16|bf16-master --rows-of all|trained

Each step takes the next line of the file (`benches/peer/batches.rs` says what it holds): several
micro-batches, documents apart in positions and attention, responses trained. Heads run one after
another. `all` makes the logits of every position and ignores those without a target, as
transformers does; `trained` gathers the trained positions before the unembedding.
"""
import argparse
import contextlib
import json
import math
import time

import torch
import torch.nn.functional as F

import llama
from protocol import reset_peak, serve, status_bytes
from torch_step import BETAS, CLIP, DECAY, EPS, make_optimizer

NONE = -100


class Micro:
    """A micro-batch's tensors."""

    def __init__(self, fields, shape):
        grid = fields["rows"], fields["seq_len"]
        self.tokens, self.docs = (torch.tensor(fields[name]).view(grid) for name in ("tokens", "docs"))
        positions, self.response = (torch.tensor(fields[name]).view(grid) for name in ("positions", "response"))
        cos, sin = llama.rope_tables(shape, grid[1])
        self.tables = cos[positions][:, None], sin[positions][:, None]
        # A query sees the keys of its document up to itself; padding (-1) sees itself, or there is no softmax.
        same = (self.docs[:, :, None] == self.docs[:, None, :]) & (self.docs >= 0)[:, None, :]
        itself = torch.eye(grid[1], dtype=torch.bool)
        self.mask = (same.tril() | itself)[:, None]

    def targets(self, k):
        """Head k's target at every position, `[B, S]`, NONE where there is none."""
        targets = torch.full_like(self.tokens, NONE)
        if k < self.tokens.shape[1]:
            valid = self.response[:, k:] & (self.docs[:, :-k] == self.docs[:, k:]) & (self.docs[:, :-k] >= 0)
            targets[:, :-k] = torch.where(valid, self.tokens[:, k:], NONE)
        return targets


class PackedStep:
    """A model with its optimizer and the steps of a file."""

    def __init__(self, model, path, *, gather, autocast):
        self.model, self.gather, self.autocast = model, gather, autocast
        with open(path, encoding="utf-8") as file:
            settings, *steps = [json.loads(line) for line in file]
        self.steps = [[Micro(micro, model.shape) for micro in step["micro"]] for step in steps]
        self.settings, self.done = settings["optim"], 0
        wanted = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "weight_decay": DECAY, "clip_norm": CLIP}
        if any(self.settings[name] != value for name, value in wanted.items()):
            raise SystemExit(f"{path} asks for {self.settings}, and this side has {wanted}")
        self.optimizer = make_optimizer(model)

    def rate(self):
        """The learning rate of the next step: linear warm-up, then half a cosine."""
        settings, total = self.settings, len(self.steps)
        rising = math.ceil(settings["warmup"] * total)
        if self.done < rising:
            return settings["lr"] * (self.done + 1) / rising
        floor = settings["lr"] * settings["min_lr_ratio"]
        share = min(1.0, (self.done - rising) / max(1, total - rising))
        return floor + (settings["lr"] - floor) * 0.5 * (1 + math.cos(math.pi * share))

    def precision(self):
        """bf16 autocast where it is asked for."""
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def head_loss(self, k, trunk, micro, scale):
        """Head k's part of the loss."""
        targets = micro.targets(k).flatten()
        states = self.model.head(k, trunk, micro.tables, micro.mask).flatten(0, 1)
        if self.gather:
            kept = (targets != NONE).nonzero().flatten()
            states, targets = states[kept], targets[kept]
        logits = F.linear(states, self.model.unembedding())
        ce = F.cross_entropy(logits, targets, reduction="none", ignore_index=NONE)
        return ce.float().sum() * scale

    def gradients(self, micro, scale):
        """Adds a micro-batch's gradients; returns its loss, seconds forward and seconds backward."""
        return llama.sequential_heads(
            self.model,
            lambda: self.model.trunk(micro.tokens, micro.tables, micro.mask),
            lambda k, trunk: self.head_loss(k, trunk, micro, scale),
            self.precision)

    def run(self):
        """The next step; returns its loss, how long each part took and how many tokens it had."""
        start = time.perf_counter()
        micros = self.steps[self.done % len(self.steps)]
        responses = sum(int((micro.targets(1) != NONE).sum()) for micro in micros)
        scale = 1.0 / (self.model.shape.mtp_heads * responses)
        parts = [self.gradients(micro, scale) for micro in micros]
        before = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        end = time.perf_counter()
        self.done += 1
        loss, forward, backward = (sum(part) for part in zip(*parts))
        return {"loss": loss, "seconds": end - start, "forward": forward, "backward": backward,
                "optimizer": end - before, "response_tokens": responses,
                "tokens": sum(int((micro.docs >= 0).sum()) for micro in micros)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory with config.json and model.safetensors")
    parser.add_argument("--batches", required=True, metavar="FILE")
    parser.add_argument("--dtype", choices=["f32", "bf16", "bf16-master"], default="f32")
    parser.add_argument("--rows-of", choices=["all", "trained"], default="all", help="positions with logits")
    parser.add_argument("--heads-count", type=int, help="prediction heads; default: as the model has")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    runtime = status_bytes("VmRSS")
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    model = llama.load(args.model, args.heads_count, dtype)
    step = PackedStep(model, args.batches, gather=args.rows_of == "trained", autocast=args.dtype == "bf16-master")
    reset_peak()
    serve(step.run, runtime)


if __name__ == "__main__":
    main()
