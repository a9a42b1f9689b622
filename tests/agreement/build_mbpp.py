"""One file of MBPP samples: references and mutants of the test problems.

    build_mbpp.py PROBLEMS.jsonl OUT.jsonl [--mutants 2]
"""
import argparse
import json

from mutate import mutants


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems")
    parser.add_argument("out")
    parser.add_argument("--mutants", type=int, default=2)
    args = parser.parse_args()
    count = 0
    with open(args.out, "w") as out:
        for line in open(args.problems):
            problem = json.loads(line)
            if not 11 <= problem["task_id"] <= 510:
                continue
            code = problem["code"].replace("\r\n", "\n").rstrip("\r")
            programs = [("reference", code), *mutants(code, args.mutants, seed=problem["task_id"])]
            while len(programs) < args.mutants + 1:
                programs.append(("nothing", "pass\n"))
            for kind, text in programs:
                row = {"task_id": f"Mbpp/{problem['task_id']}", "solution": text, "kind": kind}
                out.write(json.dumps(row) + "\n")
                count += 1
    print(f"{count} samples: {args.out}")


main()
