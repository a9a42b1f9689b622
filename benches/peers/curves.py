#!/usr/bin/env python3
"""Loss curves of the same training in PyTorch and in wmtp: how far apart they are at each step.

    curves.py --ours EXE [--mode f32 --mode bf16-master] [--steps 200]

A small Llama (4 layers, D = 256, V = 1024, 4 heads) with seeded weights learns MBPP's packed batches,
each peer from the same start with the same AdamW, clipping and schedule. Each curve is compared with
the first, PyTorch's in f32 (with `--no-torch` ours), step by step and smoothed over 10 steps. The exit
code is 1 if one differs by more than --bound of the loss at any step, raw or smoothed.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from peer import HERE, REPOSITORY, Peer, PeerError, make_venv, say

SIZES = {"layers": 4, "vocab": 1024, "hidden": 256, "intermediate": 704, "heads": 8, "kv-heads": 4, "heads-count": 4}
SMOOTH = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", metavar="EXE", required=True, help="a program that speaks the line protocol")
    parser.add_argument("--mode", action="append", dest="modes", help="precision of ours; repeated; default: f32, bf16-master")
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--bound", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", help="an interpreter that has requirements.txt; default: a new environment's")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a reply may take")
    parser.add_argument("--json", metavar="FILE", help="write all losses")
    args = parser.parse_args()
    if args.steps < SMOOTH:
        parser.error(f"--steps must be at least {SMOOTH}")
    args.modes = args.modes or ["f32", "bf16-master"]
    return args


def write_inputs(args, python, directory):
    """The model's directory and the file of batches."""
    model, batches = Path(directory) / "model", Path(directory) / "batches.jsonl"
    sizes = [part for name, value in SIZES.items() for part in (f"--{name}", str(value))]
    data = ["--seq-len", "256", "--micro-batch", "2", "--tokens-per-step", "1024"]
    commands = [[python, HERE / "random_model.py", model, *sizes],
                [args.ours, "--export", batches, "--model", model, *data, "--steps", str(args.steps), "--lr", str(args.lr)]]
    for command in commands:
        if subprocess.run(command).returncode != 0:
            raise PeerError(f"could not run {command[0]}")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(REPOSITORY / "data" / "micro" / name, model)
    return model, batches


def losses(peer, args):
    """A peer's loss of every step."""
    try:
        peer.start(args.threads, args.timeout)
        peer.steps = [peer.step() for _ in range(args.steps)]
    finally:
        peer.stop()
    found = [step["loss"] for step in peer.steps]
    say(f"{peer.name}: {found[0]:.4f} to {found[-1]:.4f} in {sum(s['seconds'] for s in peer.steps):.0f} s")
    return found


def smooth(curve):
    """Means of SMOOTH steps in a row."""
    return [sum(curve[i:i + SMOOTH]) / SMOOTH for i in range(len(curve) - SMOOTH + 1)]


def apart(curve, reference):
    """The largest relative difference, and its step."""
    # A NaN counts as the largest of all.
    found = [abs(a - b) / abs(b) if a == a and b == b else float("inf") for a, b in zip(curve, reference)]
    worst = max(found)
    return worst, found.index(worst)


def main():
    args = arguments()
    try:
        python = args.python or (sys.executable if args.no_torch else make_venv())
        with tempfile.TemporaryDirectory() as directory:
            model, batches = write_inputs(args, python, directory)
            tail = ["--batches", batches, "--model", model, "--heads-count", SIZES["heads-count"]]
            torch = [python, HERE / "torch_packed.py", "--dtype", "f32", "--threads", args.threads, *tail]
            peers = [] if args.no_torch else [Peer("torch f32", "f32", False, torch)]
            peers += [Peer(f"wmtp {mode}", mode, True, [args.ours, "--peer", mode, *tail]) for mode in args.modes]
            curves = {peer.name: losses(peer, args) for peer in peers}
    except (PeerError, OSError) as error:
        sys.exit(f"bench-curves: {error}")
    if args.json:
        Path(args.json).write_text(json.dumps(curves) + "\n", encoding="utf-8")
    names = list(curves)
    marks = sorted({0, args.steps // 4, args.steps // 2, 3 * args.steps // 4, args.steps - 1})
    print(f"{args.steps} steps; differences are relative\n")
    head = ["curves", *(f"loss {step + 1}" for step in marks), "largest difference", "at step", "smoothed over 10"]
    rows, worst = [head, ["---"] + ["---:"] * (len(head) - 1)], 0.0
    for i, name in enumerate(names):
        cells = [name, *(f"{curves[name][step]:.4f}" for step in marks)]
        if i > 0:
            difference, step = apart(curves[name], curves[names[0]])
            smoothed, _ = apart(smooth(curves[name]), smooth(curves[names[0]]))
            worst = max(worst, difference, smoothed)
            cells += [f"{difference:.2%}", str(step + 1), f"{smoothed:.2%}"]
        rows.append(cells + [""] * (len(head) - len(cells)))
    for i, name in enumerate(names[1:], 1):
        for other in names[i + 1:]:
            difference, step = apart(curves[other], curves[name])
            smoothed, _ = apart(smooth(curves[other]), smooth(curves[name]))
            worst = max(worst, difference, smoothed)
            rows.append([f"{other} to {name}", *[""] * len(marks), f"{difference:.2%}", str(step + 1), f"{smoothed:.2%}"])
    print("\n".join("| " + " | ".join(row) + " |" for row in rows))
    print(f"\nlargest difference of all: {worst:.2%}, allowed: {args.bound:.2%}")
    sys.exit(0 if worst <= args.bound else 1)


if __name__ == "__main__":
    main()
