"""PyPI's evalplus over a file of samples; runs in the virtual environment that has it.

    evalplus_judge.py {humaneval,mbpp} PROBLEMS.jsonl[.gz] SAMPLES.jsonl OUT.jsonl

PROBLEMS has every problem of which there are samples, and every problem has a sample. Writes a line for
each sample, in the order of the samples, with evalplus' base_status and plus_status. Its limits are its own.
"""
import gzip
import json
import os
import sys
from collections import defaultdict


def main():
    dataset, problems, samples, out = sys.argv[1:]
    if problems.endswith(".gz"):
        # evalplus unpacks only what it downloads.
        plain = out + ".problems"
        with gzip.open(problems, "rb") as packed, open(plain, "wb") as file:
            file.write(packed.read())
        problems = plain
    # Where evalplus keeps what the reference solutions returned.
    os.environ["XDG_CACHE_HOME"] = os.path.dirname(os.path.abspath(out))
    os.environ[{"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}[dataset]] = problems
    from evalplus.evaluate import evaluate

    results = samples.replace(".jsonl", "_eval_results.json")
    if os.path.exists(results):
        os.remove(results)
    evaluate(dataset=dataset, samples=samples, parallel=1)
    with open(results) as file:
        judged = json.load(file)["eval"]
    turn = defaultdict(int)
    with open(samples) as rows, open(out, "w") as file:
        for line in rows:
            row = json.loads(line)
            verdict = judged[row["task_id"]][turn[row["task_id"]]]
            turn[row["task_id"]] += 1
            assert verdict["solution"] == row["solution"], f"the samples of {row['task_id']} are in another order"
            row.update({name: verdict[name] for name in ("base_status", "plus_status")})
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
