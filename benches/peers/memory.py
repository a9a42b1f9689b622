#!/usr/bin/env python3
"""Peak resident memory of our training step at SmolLM2-135M's shape, each case in a process of its own.

    memory.py --ours EXE [--quick]

Two steps a case, so that the second one has the optimizer's state beside activations and gradients.
Prints three tables: precision and recomputation; 1 head against 4; rows of 256, 1024 and 4096 tokens,
4096 in all. The floor is weights, gradients and Adam's two moments in f32.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from peer import HERE, Peer, PeerError, make_venv, say

LAYERS, VOCABULARY, D, INNER, KEYS = 30, 49152, 576, 1536, 192
STATE = 4 * 4


def layer():
    """Parameters of a decoder layer."""
    return 2 * D * D + 2 * KEYS * D + 3 * INNER * D + 2 * D


def floor(heads):
    """Bytes of weights, gradients and moments with so many heads."""
    return STATE * (VOCABULARY * D + (LAYERS - 1 + heads) * layer() + D)


def peak(args, model, mode, rows, length, heads):
    """Peak resident bytes of two steps."""
    name = f"{mode}, {rows} x {length}, {heads} heads"
    parts = mode.split()
    command = [args.ours, "--peer", parts[0], *parts[1:], "--rows", rows, "--len", length, "--heads-count", heads,
               "--model", model]
    peer = Peer(name, parts[0], True, command)
    try:
        peer.start(args.threads, args.timeout)
        for _ in range(2):
            peer.step()
        found = peer.ask("peak")["peak_bytes"]
    finally:
        peer.stop()
    say(f"{name}: {found / 1e9:.2f} GB")
    return found


def table(head, rows):
    """Prints a table."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", metavar="EXE", required=True, help="a program that speaks the line protocol")
    parser.add_argument("--mode", action="append", dest="modes", help="precision; repeated; default: f32, bf16-master")
    parser.add_argument("--quick", action="store_true", help="the first mode alone for heads and lengths")
    parser.add_argument("--model", metavar="DIR", help="a model of this shape; default: random weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", help="an interpreter with numpy and safetensors; default: a new environment's")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a reply may take")
    args = parser.parse_args()
    modes = args.modes or ["f32", "bf16-master"]
    try:
        with tempfile.TemporaryDirectory() as directory:
            model = args.model
            if model is None:
                model = Path(directory) / "model"
                python = args.python or make_venv()
                if subprocess.run([python, HERE / "random_model.py", model]).returncode != 0:
                    raise PeerError(f"could not write {model}")
            report(args, model, modes)
    except (PeerError, OSError) as error:
        sys.exit(f"bench-memory: {error}")


def report(args, model, modes):
    """Measures and prints all tables."""
    base = {}
    rows = []
    for mode in modes:
        for switch in ("", " --recompute block"):
            found = base[mode + switch] = peak(args, model, mode + switch, 2, 256, 4)
            rows.append([mode, "block" if switch else "none", f"{found / 1e9:.2f}", f"{floor(4) / 1e9:.2f}",
                         f"{found / floor(4) - 1:.1%}"])
    print("2 x 256 tokens, 4 heads\n")
    table(["precision", "recompute", "peak GB", "floor GB", "over the floor"], rows)

    few = modes[:1] if args.quick else modes
    rows = []
    own = floor(4) - floor(1)
    for mode in (m + s for m in few for s in ("", " --recompute block")):
        one = peak(args, model, mode, 2, 256, 1)
        rest = base[mode] - one - own
        rows.append([mode, f"{one / 1e9:.3f}", f"{base[mode] / 1e9:.3f}", f"{own / 1e9:.3f}", f"{rest / 1e9:+.3f}",
                     f"{rest / one:+.1%}"])
    print("1 head against 4, 2 x 256 tokens; own: parameters, gradients and moments of the 3 more\n")
    table(["mode", "1 head, GB", "4 heads, GB", "own GB", "rest GB", "rest (must be under 3%)"], rows)

    rows = []
    for mode in (m + s for m in few for s in ("", " --recompute block")):
        found = [peak(args, model, mode, 4096 // length, length, 4) for length in (256, 1024, 4096)]
        rows.append([mode, *(f"{bytes_ / 1e9:.2f}" for bytes_ in found), f"{found[2] / found[0] - 1:+.1%}"])
    print("4096 tokens in rows of 256, 1024 and 4096, 4 heads\n")
    table(["mode", "256, GB", "1024, GB", "4096, GB", "growth (must be under 25%)"], rows)


if __name__ == "__main__":
    main()
