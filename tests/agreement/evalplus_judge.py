"""PyPI's evalplus over a file of samples; runs in the virtual environment that has it.

    evalplus_judge.py {humaneval,mbpp} PROBLEMS.jsonl[.gz] SAMPLES.jsonl OUT.jsonl [--patient]

Writes a line for each sample, in the order of the samples, with evalplus' base_status and plus_status. Its
limits are its own, and every problem must have a sample. With --patient a call has ten times the time, and
SAMPLES may be of some problems only.
"""
import gzip
import json
import os
import sys
from collections import defaultdict


def patiently(dataset, samples):
    """Each sample's verdicts with ten times the time for a call."""
    from evalplus import evaluate as module

    if dataset == "humaneval":
        problems, name, special = module.get_human_eval_plus(), module.get_human_eval_plus_hash(), []
    else:
        problems, name = module.get_mbpp_plus(), module.get_mbpp_plus_hash()
        special = module.MBPP_OUTPUT_NOT_NONE_TASKS
    expected = module.get_groundtruth(problems, name, special)
    for row in samples:
        task_id = row["task_id"]
        verdict = module.check_correctness(
            dataset, 0, problems[task_id], row["solution"], expected[task_id], fast_check=True,
            min_time_limit=10.0, gt_time_limit_factor=40.0,
        )
        yield {"solution": row["solution"], "base_status": verdict["base"][0], "plus_status": verdict["plus"][0]}


def as_published(dataset, path, samples):
    """Each sample's verdicts as evalplus' own command gives them."""
    from evalplus.evaluate import evaluate

    results = path.replace(".jsonl", "_eval_results.json")
    if os.path.exists(results):
        os.remove(results)
    evaluate(dataset=dataset, samples=path, parallel=1)
    with open(results) as file:
        judged = json.load(file)["eval"]
    turn = defaultdict(int)
    for row in samples:
        yield judged[row["task_id"]][turn[row["task_id"]]]
        turn[row["task_id"]] += 1


def main():
    dataset, problems, path, out, *patient = sys.argv[1:]
    if problems.endswith(".gz"):
        # evalplus unpacks only what it downloads.
        plain = os.path.join(os.path.dirname(os.path.abspath(out)), f"{dataset}-problems.jsonl")
        with gzip.open(problems, "rb") as packed, open(plain, "wb") as file:
            file.write(packed.read())
        problems = plain
    # Where evalplus keeps what the reference solutions returned.
    os.environ["XDG_CACHE_HOME"] = os.path.dirname(os.path.abspath(out))
    os.environ[{"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}[dataset]] = problems
    with open(path) as file:
        samples = [json.loads(line) for line in file]
    verdicts = patiently(dataset, samples) if patient else as_published(dataset, path, samples)
    with open(out, "w") as file:
        for row, verdict in zip(samples, verdicts):
            assert verdict["solution"] == row["solution"], f"the samples of {row['task_id']} are in another order"
            row.update({name: verdict[name] for name in ("base_status", "plus_status")})
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
