#!/usr/bin/env python3
"""Peak resident memory of whole runs of `wmtp train`, against what `--dry-run` estimates.

    plan_memory.py --wmtp EXE --model DIR [--only NAME] [--fixture FILE]

Every case runs twice: with --dry-run for the estimate, and for two optimizer steps, a validation and
checkpoints. The peak is the largest resident size that the system reports of the process. DIR is a
model of SmolLM2-135M's shape (weights do not matter); cases named `micro` take the built-in model.
With --fixture the results are written as JSON, which the tests of src/pipeline/memory.rs read.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def rows(micro_batch, seq_len, *settings):
    """Settings of a case with so many rows of so many tokens."""
    return [f"data.seq_len={seq_len}", f"batching.micro_batch={micro_batch}", *settings]


PURE = ["train.precision=pure-bf16", "optim.state=bf16"]
LORA = "train.lora={rank: 16, alpha: 32}"
CASES = {
    "f32, 2 x 256": ("baseline", rows(2, 256)),
    "bf16, 2 x 256": ("baseline", rows(2, 256, "train.precision=bf16")),
    "pure-bf16, bf16 state, 2 x 256": ("baseline", rows(2, 256, *PURE)),
    "f32, 1 head, 2 x 256": ("baseline", rows(2, 256, "model.mtp.n_heads=1")),
    "f32, LoRA rank 16, 2 x 256": ("baseline", rows(2, 256, LORA)),
    "f32, 2 micro-batches of 2 x 256": ("baseline", rows(2, 256, "batching.accumulate=2")),
    "rho1 with reference, 2 x 256": ("rho1", rows(2, 256, "model.reference=MODEL")),
    "critic, 2 x 256": ("critic", rows(2, 256, "scorer.max_steps=2")),
    "f32, 1 x 1024": ("baseline", rows(1, 1024)),
    "f32, heads in turn, 1 x 1024": ("baseline", rows(1, 1024, "train.heads=in-turn")),
    "f32, recompute block, 4 x 512": ("baseline", rows(4, 512, "train.recompute=block")),
    "f32, 4 x 512": ("baseline", rows(4, 512)),
    "bf16, 16 x 256": ("baseline", rows(16, 256, "train.precision=bf16")),
    "f32, 16 x 256": ("baseline", rows(16, 256)),
    "f32, LoRA rank 16, 16 x 256": ("baseline", rows(16, 256, LORA)),
    "pure-bf16, bf16 state, recompute block, 16 x 256": ("baseline", rows(16, 256, *PURE, "train.recompute=block")),
    "micro, critic, 2 x 512": ("critic", rows(2, 512)),
    "micro, f32, 16 x 512": ("baseline", rows(16, 512)),
}


def measure(args, name, home):
    """The plan of a case and its measured peak in bytes."""
    pipeline, settings = CASES[name]
    model = "builtin:micro" if name.startswith("micro") else args.model
    command = [args.wmtp, "train", pipeline, "--plain", "--json", "--model", model, "--output", home,
               "--run-name", name.replace(",", "").replace(" ", "-"), "--max-steps", "2",
               "--set", "data.valid_tasks=[511,513]"]
    for setting in settings:
        command += ["--set", setting.replace("MODEL", args.model)]
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), WMTP_PATHS__CACHE=str(Path(home) / "cache"))
    plan = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True)
    if plan.returncode != 0:
        sys.exit(f"{name}: no plan: {plan.stdout}")
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{name}: the run failed")
    return json.loads(plan.stdout), usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wmtp", required=True, help="the built program")
    parser.add_argument("--model", required=True, metavar="DIR", help="a model of SmolLM2-135M's shape")
    parser.add_argument("--only", action="append", metavar="NAME", help="a case's name; repeated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fixture", type=Path, help="JSON file for the tests; cases measured now replace theirs")
    args = parser.parse_args()
    found = {}
    if args.fixture and args.fixture.is_file():
        found = {case["name"]: case for case in json.loads(args.fixture.read_text())}
    print("| run | measured, GB | estimated, GB | ratio | at |\n|---|---:|---:|---:|---|", flush=True)
    for name in args.only or CASES:
        with tempfile.TemporaryDirectory() as home:
            plan, peak = measure(args, name, home)
        estimate = plan["estimated_peak_memory"]
        found[name] = {
            "name": name,
            "model": "micro" if name.startswith("micro") else "smollm2",
            "settings": [s for s in CASES[name][1] if not s.startswith("model.reference")],
            "reference": name.startswith("rho1"),
            "accumulate": plan["accumulate"],
            "micro_batch": plan["memory"]["micro_batch"],
            "measured": peak,
        }
        print(f"| {name} | {peak / 1e9:.3f} | {estimate / 1e9:.3f} | {estimate / peak:.3f} | {plan['memory']['at']} |",
              flush=True)
        if args.fixture:
            args.fixture.write_text(json.dumps(list(found.values()), indent=1) + "\n")


if __name__ == "__main__":
    main()
