"""Sample by sample: ours against evalplus', on the base inputs and on the added ones.

    compare_plus.py OURS.jsonl THEIRS.jsonl DIFFERING.jsonl [PATIENT.jsonl]

OURS and THEIRS have the samples of each problem in the same order. Samples with another verdict are written to
DIFFERING. PATIENT has evalplus' verdicts on those with ten times the time for a call. A difference is one of time
limits if a side says `timeout`, or if evalplus' patient verdict agrees with ours. Any other makes the exit code 1, and so
do passes of more than five problems that are not verified.
"""
import json
import os
import sys
from collections import Counter, defaultdict

from compare import unverified


def rows(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def by_problem(path):
    samples = defaultdict(list)
    for row in rows(path):
        samples[row["task_id"]].append(row)
    return samples


def main():
    ours_path, theirs_path, differing_path, *patient_path = sys.argv[1:]
    ours, theirs = by_problem(ours_path), by_problem(theirs_path)
    patient = {}
    if patient_path and os.path.exists(patient_path[0]):
        patient = {(row["task_id"], row["solution"]): row for row in rows(patient_path[0])}
    assert ours.keys() == theirs.keys(), "the files have different problems"
    table, references, differing = defaultdict(Counter), Counter(), {}
    by_time, other, count = [], [], 0
    for task_id, mine in ours.items():
        assert len(mine) == len(theirs[task_id]), f"{task_id} has {len(mine)} and {len(theirs[task_id])} samples"
        for a, b in zip(mine, theirs[task_id]):
            assert a["solution"] == b["solution"], f"the samples of {task_id} are in another order"
            count += 1
            for name in ("base", "plus"):
                result, status = a[f"{name}_result"], b[f"{name}_status"]
                pair = (result == "passed", status == "pass")
                table[name][pair] += 1
                if b["kind"] == "reference":
                    references[name, pair] += 1
                if pair[0] == pair[1]:
                    continue
                differing[task_id, a["solution"]] = b
                line = f"  {task_id} ({b['kind']}), {name}: ours {result}, theirs {status}"
                later = patient.get((task_id, a["solution"]))
                if later is not None:
                    line += f", with more time {later[f'{name}_status']}"
                late = "timeout" in (result, status)
                agrees = later is not None and pair[0] == (later[f"{name}_status"] == "pass")
                (by_time if late or agrees else other).append(line)
    with open(differing_path, "w") as file:
        for row in differing.values():
            file.write(json.dumps({key: row[key] for key in ("task_id", "solution", "kind")}) + "\n")
    print(f"{count} samples of {len(ours)} problems")
    for name in ("base", "plus"):
        t = table[name]
        print(f"{name}: both pass {t[True, True]}, both fail {t[False, False]}, only ours passes {t[True, False]}, "
              f"only theirs {t[False, True]}; of the references both pass {references[name, (True, True)]}, "
              f"both fail {references[name, (False, False)]}")
    print(f"differences by time limits: {len(by_time)}; others: {len(other)}")
    if by_time or other:
        print("\n".join(by_time + other))
    if not unverified([row for mine in ours.values() for row in mine]):
        raise SystemExit("passes of too many problems are not verified")
    if other:
        raise SystemExit("ours and theirs differ")


main()
