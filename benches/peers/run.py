#!/usr/bin/env python3
"""Runs the same training step in PyTorch and in wmtp, alternating, and prints a table of both.

    run.py                                              PyTorch alone, at SmolLM2-135M's shape
    run.py --ours EXE --mode f32 --mode bf16            with ours in two precisions
    run.py --ours EXE --mode "f32 --recompute block"    with ours and a switch of its own
    run.py --ce --ours EXE --mode f32                   the linear cross-entropy alone, on random numbers
    run.py --ce --ours EXE --model DIR                  the same on a model's hidden states
    run.py --mbpp --ours EXE --model DIR                fine-tuning on MBPP: packed documents, prompts masked

EXE is started as `EXE --peer MODE --rows R --len L --heads-count H --model DIR`, with --ce as
`EXE --peer-ce MODE --data FILE`, and speaks the line protocol of protocol.py. Peers of a group are
alive together and step one at a time; f32 is one group, bf16 and bf16-master are another.
"""
import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peer import HERE, Peer, PeerError, make_venv, say
from table import markdown, mbpp_markdown

TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "bf16-master": 2e-2}
PAUSE = 1.0  # seconds before each step: the threads of the peer before may still spin, waiting for work
TORCH = ["f32 naive", "f32 sequential", "bf16 naive", "bf16 sequential", "bf16-master sequential"]
TORCH_MBPP = [f"{dtype} {rows}" for dtype in ("f32", "bf16", "bf16-master") for rows in ("all", "trained")]
TORCH_CE = [f"{dtype} {form}" for dtype in ("f32", "bf16") for form in ("naive", "chunked", "chunked-autograd")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", metavar="EXE", help="a program that speaks the line protocol")
    parser.add_argument("--mode", action="append", metavar="MODE", dest="modes",
                        help="precision of ours, and switches to pass on; repeated; default: all precisions")
    parser.add_argument("--torch", action="append", metavar="MODE",
                        help="a PyTorch mode such as 'bf16 sequential'; repeated; default: all; 'none' for none")
    parser.add_argument("--ce", action="store_true", help="the linear cross-entropy instead of the training step")
    parser.add_argument("--mbpp", action="store_true", help="fine-tuning on MBPP; --model DIR has the tokenizer")
    parser.add_argument("--model", metavar="DIR", help="initial weights; default: random ones of SmolLM2-135M's shape")
    parser.add_argument("--data", metavar="FILE", help="inputs of --ce; default: random ones, 2048 x 576 x 49152")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--len", type=int, default=256, dest="length")
    parser.add_argument("--heads-count", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", action="store_true", help="one group: all peers are alive at once (20 GB)")
    parser.add_argument("--python", help="an interpreter that has requirements.txt; default: a new environment's")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a reply may take")
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    args = parser.parse_args()
    if min(args.rows, args.heads_count, args.repetitions, args.threads) < 1 or args.length < 2:
        parser.error("--rows, --heads-count, --repetitions and --threads must be at least 1 and --len at least 2")
    if args.mbpp and not (args.ours and args.model):
        parser.error("--mbpp needs --ours EXE, which packs the documents, and --model DIR")
    known = TORCH_CE if args.ce else TORCH_MBPP if args.mbpp else TORCH
    args.torch = [] if args.torch == ["none"] else args.torch or known
    for mode in args.torch:
        if mode not in known:
            parser.error(f"unknown PyTorch mode {mode!r}: one of {', '.join(map(repr, known))}, or 'none'")
    if args.modes and not args.ours:
        parser.error("--mode is a mode of ours: name the program with --ours EXE")
    args.modes = args.modes or list(TOLERANCE) if args.ours else []
    for mode in args.modes:
        if not mode.split() or precision_of(mode) not in TOLERANCE:
            parser.error(f"--mode {mode!r} does not begin with {', '.join(TOLERANCE)}")
    if not args.torch and not args.modes:
        parser.error("nothing to run: --torch none needs --ours EXE")
    return args


def precision_of(mode):
    """The precision in a mode of ours: `f32` of `f32-filter=1e-3`."""
    return mode.split()[0].split("-filter")[0]


def inputs(args, python, directory):
    """The model directory or the cross-entropy's file, made where none was given."""
    given = args.data if args.ce else args.model
    if args.ce and args.model and not given:
        if not args.ours:
            raise PeerError("--ce with --model needs --ours EXE, which packs the documents")
        path = Path(directory) / "ce.safetensors"
        say("computing hidden states")
        command = [python, HERE / "torch_ce.py", "--write", path, "--model", args.model,
                   "--batches", batches(args, directory)]
        if subprocess.run(command).returncode != 0:
            raise PeerError(f"could not write {path}")
        return path
    if given:
        if not Path(given).exists():
            raise PeerError(f"{given} does not exist")
        return given
    path = Path(directory) / ("ce.safetensors" if args.ce else "model")
    if args.ce:
        command = [python, HERE / "torch_ce.py", "--write", path]
    else:
        command = [python, HERE / "random_model.py", path, "--heads-count", str(args.heads_count)]
    say("writing random " + ("inputs" if args.ce else "weights"))
    if subprocess.run(command).returncode != 0:
        raise PeerError(f"could not write {path}")
    return path


def batches(args, directory):
    """The file of MBPP's packed batches, written by ours."""
    path = Path(directory) / "batches.jsonl"
    if subprocess.run([args.ours, "--export", path, "--model", args.model]).returncode != 0:
        raise PeerError(f"could not write {path}")
    return path


def peers(args, python, source, directory):
    """All peers that were asked for, not started yet."""
    shape = ["--rows", args.rows, "--len", args.length, "--heads-count", args.heads_count, "--model", source]
    found = []
    if args.mbpp:
        shape = ["--batches", batches(args, directory), "--heads-count", args.heads_count, "--model", source]
    for mode in args.torch:
        dtype, form = mode.split()
        if args.mbpp:
            command = [python, HERE / "torch_packed.py", "--dtype", dtype, "--rows-of", form, *shape]
        elif args.ce:
            command = [python, HERE / "torch_ce.py", "--dtype", dtype, "--form", form, "--data", source]
        else:
            command = [python, HERE / "torch_step.py", "--dtype", dtype, "--heads", form, *shape]
        found.append(Peer(f"torch {mode}", dtype, False, [*command, "--threads", args.threads]))
    for mode in args.modes:
        tail = ["--data", source] if args.ce else shape
        flag = "--peer-ce" if args.ce else "--peer"
        found.append(Peer(f"wmtp {mode}", precision_of(mode), True, [args.ours, flag, *shlex.split(mode), *tail]))
    return found


def groups(found, together):
    """Peers that are alive together, f32 first because its loss is what the others must give."""
    if together:
        return [sorted(found, key=lambda peer: peer.precision != "f32")]
    split = [[p for p in found if p.precision == "f32"], [p for p in found if p.precision != "f32"]]
    return [group for group in split if group]


def agree(peer, reference):
    """Stops the run unless the first loss is that of the reference, the first peer of all."""
    bound = max(TOLERANCE[peer.precision], TOLERANCE[reference.precision])
    ours, theirs = peer.warm_up["loss"], reference.warm_up["loss"]
    # Written so that a NaN does not pass.
    if not abs(ours - theirs) <= bound * abs(theirs):
        raise PeerError(f"{peer.name} has loss {ours} where {reference.name} has {theirs} on the same weights, "
                        f"further apart than {bound:g} of it")


def same_tokens(found):
    """Stops the run unless all peers counted the same tokens in every step."""
    for peer in found:
        for ours, theirs in zip(peer.steps, found[0].steps):
            for field in ("tokens", "response_tokens"):
                if ours[field] != theirs[field]:
                    raise PeerError(f"{peer.name} counts {ours[field]} {field} where {found[0].name} has {theirs[field]}")


def measure(group, args, reference):
    """Warm-up and check of every peer, then alternating steps, then memory. Returns the reference."""
    try:
        for peer in group:
            say(f"starting {peer.name}")
            peer.start(args.threads, args.timeout)
        for peer in group:
            peer.warm_up = peer.step()
            reference = reference or peer
            agree(peer, reference)
            say(f"{peer.name}: loss {peer.warm_up['loss']:.6f}")
        for repetition in range(args.repetitions):
            for peer in group:
                time.sleep(PAUSE)
                peer.steps.append(peer.step())
            say(f"repetition {repetition + 1} of {args.repetitions}")
        for peer in group:
            peer.memory = peer.ask("peak")
    finally:
        for peer in group:
            peer.stop()
    return reference


def versions(python):
    """What the figures depend on."""
    code = "import torch, platform; print(torch.__version__); print(torch.backends.cpu.get_cpu_capability())"
    lines = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.split("\n")
    model = platform.processor()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"torch": lines[0], "torch_cpu": lines[1] if len(lines) > 1 else "", "cpu": model}


def torch_sets(python, threads):
    """The instructions of PyTorch's products in f32 and in bf16, as MKL and oneDNN name them."""
    code = "; ".join(["import torch"] + [
        f"torch.randn(512, 576, dtype={dtype}) @ torch.randn(576, 1536, dtype={dtype})"
        for dtype in ("torch.float32", "torch.bfloat16")])
    environment = os.environ | {"ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1", "OMP_NUM_THREADS": str(threads)}
    lines = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment).stdout.split("\n")
    mkl = [re.search(r"for Intel\(R\) 64 architecture (.*?)(, Lnx|$)", line) for line in lines
           if line.startswith("MKL_VERBOSE oneMKL")]
    onednn = [line.split(",")[5] for line in lines if ",primitive,exec,cpu,matmul," in line]
    isa = [line.split("isa:")[1] for line in lines if line.startswith("onednn_verbose") and "isa:" in line]
    return {"mkl": next((found[1] for found in mkl if found), ""), "onednn": " ".join(isa + onednn)}


def main():
    args = arguments()
    try:
        python = args.python or make_venv()
        with tempfile.TemporaryDirectory() as directory:
            source = inputs(args, python, directory)
            found = peers(args, python, source, directory)
            reference = None
            for group in groups(found, args.together):
                reference = measure(group, args, reference)
        if args.mbpp:
            same_tokens(found)
        about = versions(python) | {"torch_sets": torch_sets(python, args.threads)}
    except (PeerError, OSError) as error:
        sys.exit(f"bench-peers: {error}")
    except KeyboardInterrupt:
        sys.exit("bench-peers: interrupted")
    tokens = None if args.ce or args.mbpp else args.rows * args.length
    work = "linear cross-entropy, forward and backward" if args.ce else (
        f"fine-tuning on MBPP, {args.heads_count} heads" if args.mbpp else
        f"training step, {args.rows} x {args.length} tokens, {args.heads_count} heads")
    print(f"{work}; {args.threads} threads; medians of {args.repetitions} alternating repetitions; "
          f"torch {about['torch']}, {about['cpu']}\n")
    sets = {peer.about.get("instruction_sets") for peer in found if peer.ours} - {None}
    print(f"instruction sets: wmtp {', '.join(sorted(sets)) or 'not run'}; torch: MKL {about['torch_sets']['mkl']}; "
          f"oneDNN {about['torch_sets']['onednn']}\n")
    print(mbpp_markdown(found) if args.mbpp else markdown(found, tokens))
    if args.json:
        fields = {name: value for name, value in vars(args).items() if name != "json"}
        rows = [{"name": p.name, "precision": p.precision, "ours": p.ours, "warm_up": p.warm_up, "steps": p.steps,
                 "memory": p.memory} for p in found]
        Path(args.json).write_text(json.dumps({"settings": fields, **about, "peers": rows}, indent=2) + "\n",
                                   encoding="utf-8")


if __name__ == "__main__":
    main()
