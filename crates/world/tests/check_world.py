"""Runs every program of a small world: right ones have to pass all tests, wrong ones have to fail at least one.

Reads JSONL (`cargo run -p wmtp-world --example world`) from standard input; prints the counts as JSON.
"""

import ast
import json
import sys


def passes(code, tests):
    """Whether `code` runs and passes all of the compiled tests."""
    names = {}
    exec(code, names)
    try:
        for test in tests:
            exec(test, names)
    except AssertionError:
        return False
    return True


def cuts(code, place):
    """Whether `place` is inside a word or number of `code`."""
    return 0 < place < len(code) and (code[place - 1] + code[place]).replace("_", "a").isalnum()


def check(task):
    """Raises if a claim of the task does not hold."""
    assert len(task["tests"]) >= 8, "fewer than 8 tests"
    assert len(set(task["tests"])) == len(task["tests"]), "a test comes twice"
    for test in task["tests"]:
        call, value = test.removeprefix("assert ").split(" == ")
        ast.literal_eval(value)
        assert call.startswith(task["entry_point"] + "("), "a test of another function"
    for test in task["tests"][:2]:
        assert test in task["prompt"], "a shown test is not in the prompt"
    assert 1 <= len(task["right"]) <= 4 and len(task["wrong"]) == len(task["right"])
    tests = [compile(test, "test", "exec") for test in task["tests"]]
    for program in task["right"]:
        assert passes(program["code"], tests), "a right program fails:\n" + program["code"]
    for number, mistake in enumerate(task["wrong"]):
        code = mistake["code"]
        assert not passes(code, tests), "a wrong program passes:\n" + code
        assert mistake["of"] == number
        right = task["right"][number]["code"]
        (a, b), (c, d) = [(mistake[span]["start"], mistake[span]["end"]) for span in ("right_span", "span")]
        assert right[:a] + code[c:d] + right[b:] == code, "the edit is somewhere else:\n" + code
        assert not any(cuts(text, place) for text, place in [(right, a), (right, b), (code, c), (code, d)])


def main():
    counts = {"training": 0, "held_out": 0, "right": 0, "wrong": 0}
    combinations = {True: set(), False: set()}
    for line in sys.stdin:
        task = json.loads(line)
        try:
            check(task)
        except Exception as error:
            sys.exit(f"{task['name']}: {error!r}\n{line}")
        combinations[task["held_out"]].add(task["combination"])
        counts["held_out" if task["held_out"] else "training"] += 1
        counts["right"] += len(task["right"])
        counts["wrong"] += len(task["wrong"])
    assert not combinations[True] & combinations[False], "a held-out combination is trained on"
    counts["combinations"] = len(combinations[False])
    counts["held_out_combinations"] = len(combinations[True])
    print(json.dumps(counts))


main()
