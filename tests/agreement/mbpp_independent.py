"""A second evaluator of MBPP, which shares no code with ours: each program is a module of its own
in a process of its own, whose exit code is the verdict. It is imported, as evaluators `exec` what they
judge, so that `if __name__ == "__main__"` does not hold.

    mbpp_independent.py PROBLEMS.jsonl SAMPLES.jsonl OUT.jsonl [--timeout 3] [--workers 2]

A program that ends with exit code 0 before its asserts would pass here: this is no judge of hostile
programs, only of honest ones.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor


def verdict(program, timeout):
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "program.py")
        with open(path, "w") as file:
            file.write(program)
        try:
            done = subprocess.run([sys.executable, "-c", "import program"], cwd=directory, stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=timeout, env={"PYTHONHASHSEED": "0"})
        except subprocess.TimeoutExpired:
            return "timeout"
        last = done.stderr.decode(errors="replace").strip().split("\n")[-1]
        return "passed" if done.returncode == 0 else f"failed: {last[:80]}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems")
    parser.add_argument("samples")
    parser.add_argument("out")
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    problems = {f"Mbpp/{p['task_id']}": p for p in map(json.loads, open(args.problems))}
    rows = [json.loads(line) for line in open(args.samples)]

    def judge(row):
        problem = problems[row["task_id"]]
        parts = [row["solution"], problem["test_setup_code"], *problem["test_list"]]
        return verdict("\n".join(parts) + "\n", args.timeout)

    with ThreadPoolExecutor(args.workers) as pool, open(args.out, "w") as out:
        for row, result in zip(rows, pool.map(judge, rows)):
            row.update(result=result, passed=result == "passed")
            out.write(json.dumps(row) + "\n")


main()
