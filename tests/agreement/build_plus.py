"""One file of samples of HumanEval+ or MBPP+: every reference solution, and mutants of them.

    build_plus.py PROBLEMS.jsonl[.gz] OUT.jsonl [--mutants 500]

The mutants are spread over the problems; each is a whole program.
"""
import argparse
import gzip
import json

from mutate import mutants


def rows(path):
    opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    with opened as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems")
    parser.add_argument("out")
    parser.add_argument("--mutants", type=int, default=500)
    args = parser.parse_args()
    problems = rows(args.problems)
    references, made = [], []
    for index, problem in enumerate(problems):
        program = problem["prompt"] + problem["canonical_solution"]
        references.append((problem["task_id"], program, "reference"))
        most = -(-args.mutants // len(problems)) + 1
        first_line = problem["prompt"].count("\n") + 1
        made.append([(problem["task_id"], text, kind)
                     for kind, text in mutants(program, most, seed=index, first_line=first_line)])
    # One of each problem, then the second of each, until there are enough.
    spread = [found[turn] for turn in range(max(map(len, made))) for found in made if turn < len(found)]
    chosen = references + spread[:args.mutants]
    with open(args.out, "w") as out:
        for task_id, solution, kind in chosen:
            out.write(json.dumps({"task_id": task_id, "solution": solution, "kind": kind}) + "\n")
    print(f"{len(references)} references and {len(chosen) - len(references)} mutants of {len(problems)} problems: {args.out}")


main()
