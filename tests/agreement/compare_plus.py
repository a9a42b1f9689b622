"""Sample by sample: ours against evalplus', on the base inputs and on the added ones.

    compare_plus.py OURS.jsonl THEIRS.jsonl

Both files have the samples of each problem in the same order. A difference in which either side ran out of
time is named as such; any other makes the exit code 1.
"""
import json
import sys
from collections import Counter, defaultdict


def by_problem(path):
    samples = defaultdict(list)
    with open(path) as rows:
        for line in rows:
            row = json.loads(line)
            samples[row["task_id"]].append(row)
    return samples


def main():
    ours, theirs = map(by_problem, sys.argv[1:])
    assert ours.keys() == theirs.keys(), "the files have different problems"
    table, by_time, other, count, references = defaultdict(Counter), [], [], 0, Counter()
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
                if pair[0] != pair[1]:
                    late = result == "timeout" or status == "timeout"
                    line = f"  {task_id} ({b['kind']}), {name}: ours {result}, theirs {status}"
                    (by_time if late else other).append(line)
    print(f"{count} samples of {len(ours)} problems")
    for name in ("base", "plus"):
        t = table[name]
        print(f"{name}: both pass {t[True, True]}, both fail {t[False, False]}, only ours passes {t[True, False]}, "
              f"only theirs {t[False, True]}; of the references both pass {references[name, (True, True)]}, "
              f"both fail {references[name, (False, False)]}")
    print(f"differences by time limits: {len(by_time)}; others: {len(other)}")
    print("\n".join(by_time + other))
    if other:
        raise SystemExit("ours and theirs differ")


main()
