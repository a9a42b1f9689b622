#!/usr/bin/env python3
"""Tokens per second of greedy generation, ours and transformers' or llama.cpp's, alternating in one run.

    python3 benches/peers/decode.py --ours EXE --model DIR
    python3 benches/peers/decode.py --ours EXE --model DIR --precision int4 --llama-cpp FILE.gguf --python EXE

Both continue the same MBPP prompts by the same number of tokens, end tokens left out, on the same number of
threads: alone and in a batch. A time is that of the whole call, reading the prompts included. EXE is the program
that `cargo bench --bench generation --no-run` builds.
"""
import argparse
import json
import statistics
import sys
import time

from peer import HERE, Peer, PeerError, make_venv, say


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", metavar="EXE", required=True)
    parser.add_argument("--model", metavar="DIR", required=True)
    parser.add_argument("--precision", action="append", choices=["f32", "bf16", "int8", "int4"],
                        help="repeated; default: f32 and bf16; int8 and int4 are ours alone and need --llama-cpp")
    parser.add_argument("--llama-cpp", metavar="FILE", help="against llama.cpp with this model in GGUF, alone; its "
                        "matrices are rounded to 4 bits (Q4_0) first, unless the name says that they are")
    parser.add_argument("--batch", action="append", type=int, help="texts at once; repeated; default: 1 and 8")
    parser.add_argument("--style", choices=["zero-shot", "few-shot"], default="zero-shot")
    parser.add_argument("--first-task", type=int, default=11)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--python", metavar="EXE", help="an interpreter that has requirements.txt; default: our own")
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--json", metavar="FILE", help="all figures")
    args = parser.parse_args()
    args.precision = args.precision or ["f32", "bf16"]
    if not args.llama_cpp and not {"f32", "bf16"}.issuperset(args.precision):
        parser.error("transformers runs f32 and bf16; for int8 and int4 name a GGUF file with --llama-cpp")
    if args.llama_cpp and set(args.batch or [1]) != {1}:
        parser.error("llama.cpp runs one text at a time: leave --batch out")
    return args


def their_peer(args, precision, python):
    """The process to compare with."""
    if args.llama_cpp:
        quantize = [] if "q4_0" in args.llama_cpp.lower() else ["--quantize"]
        return Peer("llama.cpp", precision, False, [
            python, HERE / "llama_cpp_decode.py", "--model", args.llama_cpp, "--threads", args.threads, *quantize])
    return Peer("transformers", precision, False, [
        python, HERE / "torch_decode.py", "--model", args.model, "--precision", precision, "--threads", args.threads])


def alike(ours, theirs):
    """How many tokens from the start are the same, over all texts, as a share."""
    same = sum(next((i for i, (a, b) in enumerate(zip(*pair)) if a != b), len(pair[0])) for pair in zip(ours, theirs))
    return same / sum(map(len, ours))


def measure(args, precision, python):
    """The figures of each batch size in one precision."""
    ours = Peer("ours", precision, True, [args.ours, "--peer", "--model", args.model, "--precision", precision])
    theirs = their_peer(args, precision, python)
    found = []
    try:
        for peer in (ours, theirs):
            peer.start(args.threads, args.timeout)
        for batch in args.batch or ([1] if args.llama_cpp else [1, 8]):
            tasks = [args.first_task, args.first_task + batch - 1]
            prompts = ours.ask(json.dumps({"tasks": tasks, "style": args.style}))["prompts"]
            request = json.dumps({"prompts": prompts, "new_tokens": args.new_tokens})
            seconds, tokens = {"ours": [], theirs.name: []}, {}
            for round_ in range(args.repetitions + 1):
                for peer in (ours, theirs):
                    # A team of threads that has just ended may still be spinning.
                    time.sleep(0.5)
                    reply = peer.ask(request)
                    tokens[peer.name] = reply["tokens"]
                    # The first round warms up.
                    if round_ > 0:
                        seconds[peer.name].append(reply["seconds"])
            count = batch * args.new_tokens
            speeds = {name: count / statistics.median(values) for name, values in seconds.items()}
            ratios = [theirs_ / ours_ for ours_, theirs_ in zip(seconds["ours"], seconds[theirs.name])]
            found.append({
                "precision": precision, "batch": batch, "prompt_tokens": [len(prompt) for prompt in prompts],
                "seconds": seconds, "speeds": speeds, "ratio": speeds["ours"] / speeds[theirs.name], "peer": theirs.name,
                "ratios": ratios, "same_tokens": alike(tokens["ours"], tokens[theirs.name])})
            say(f"{precision}, {batch} at once: {found[-1]['ratio']:.2f}")
    finally:
        for peer in (ours, theirs):
            peer.stop()
    return found


def main():
    args = arguments()
    try:
        python = args.python or make_venv()
        found = [row for precision in args.precision for row in measure(args, precision, python)]
    except (PeerError, OSError, KeyError) as error:
        sys.exit(f"bench-generate: {error}")
    except KeyboardInterrupt:
        sys.exit("bench-generate: interrupted")
    print(f"MBPP {args.style} prompts, {args.new_tokens} new tokens each; {args.threads} threads; medians of "
          f"{args.repetitions} alternating repetitions\n")
    theirs = "llama.cpp, Q4_0" if args.llama_cpp else "transformers"
    print(f"| precision | texts at once | prompt tokens | ours, tokens/s | {theirs} | ratio (least to most) "
          "| same tokens |\n|---|---|---|---|---|---|---|")
    for row in found:
        lengths = row["prompt_tokens"]
        print(f"| {row['precision']} | {row['batch']} | {min(lengths)} to {max(lengths)} | {row['speeds']['ours']:.1f} "
              f"| {row['speeds'][row['peer']]:.1f} | {row['ratio']:.2f} ({min(row['ratios']):.2f} to "
              f"{max(row['ratios']):.2f}) | {row['same_tokens']:.0%} |")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
