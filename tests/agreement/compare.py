"""Sample by sample: ours against theirs, and pass@k from each.

    compare.py OURS.jsonl THEIRS.jsonl REPORT.json [--k 1,10]

Both files have the samples of each problem in the same order. THEIRS' pass@k is recomputed
from their verdicts with exact fractions, and if THEIRS.jsonl.json is there, compared as they computed it;
ours is read from the report. Exit code 1 if a verdict or a score differs, or if passes of more than five problems are
not verified.
"""
import argparse
import json
from collections import Counter, defaultdict
from fractions import Fraction
from math import comb

# Problems that may have passes that are not verified.
MOST_UNVERIFIED = 5


def by_problem(path):
    samples = defaultdict(list)
    for line in open(path):
        row = json.loads(line)
        samples[row["task_id"]].append(row)
    return samples


def pass_at_k(counts, k):
    shares = [1 - Fraction(comb(n - c, k), comb(n, k)) for n, c in counts]
    return float(sum(shares) / len(shares))


def unverified(rows):
    """Prints the passes among our rows that are not verified; whether they are of few problems."""
    found = [row for row in rows if row["passed"] and not row["verified"]]
    passed = sum(row["passed"] for row in rows)
    print(f"of {passed} passes {passed - len(found)} are verified")
    for row in found:
        print(f"  {row['task_id']}: {row['reason']}")
    return len({row["task_id"] for row in found}) <= MOST_UNVERIFIED


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ours")
    parser.add_argument("theirs")
    parser.add_argument("report")
    parser.add_argument("--k", default="1,10")
    args = parser.parse_args()
    ours, theirs = by_problem(args.ours), by_problem(args.theirs)
    report = json.load(open(args.report))
    assert ours.keys() == theirs.keys(), "the files have different problems"
    pairs = []
    for task_id in ours:
        mine, other = ours[task_id], theirs[task_id]
        assert len(mine) == len(other), f"{task_id} has {len(mine)} and {len(other)} samples"
        for a, b in zip(mine, other):
            text = [row.get("completion") or row.get("solution") or "" for row in (a, b)]
            assert text[0] == text[1], f"the samples of {task_id} are in another order"
            pairs.append((task_id, a, b))
    differ = [(task_id, a, b) for task_id, a, b in pairs if a["passed"] != b["passed"]]
    table = Counter((a["passed"], b["passed"]) for _, a, b in pairs)
    print(f"{len(pairs)} samples of {len(ours)} problems; both pass {table[True, True]}, both fail {table[False, False]}, "
          f"only ours {table[True, False]}, only theirs {table[False, True]}")
    for task_id, a, b in differ:
        print(f"  {task_id} ({b.get('kind', '?')}): ours {a['result']}, theirs {b['result']}")
    worst = 0.0
    try:
        computed = json.load(open(args.theirs + ".json"))
    except FileNotFoundError:
        computed = {}
    for k in map(int, args.k.split(",")):
        score = pass_at_k([(len(rows), sum(r["passed"] for r in rows)) for rows in theirs.values()], k)
        mine = report["pass_at_k"][str(k)]
        worst = max(worst, abs(score - mine))
        if f"pass@{k}" in computed:
            worst = max(worst, abs(computed[f"pass@{k}"] - mine))
            print(f"pass@{k} as they computed it: {computed[f'pass@{k}']:.12f}")
        print(f"pass@{k}: ours {mine:.12f}, theirs {score:.12f}, difference {abs(score - mine):.1e}")
    if not unverified([a for _, a, _ in pairs]):
        raise SystemExit("passes of too many problems are not verified")
    if differ or worst > 1e-9:
        raise SystemExit("ours and theirs differ")


if __name__ == "__main__":
    main()
