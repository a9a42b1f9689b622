#!/usr/bin/env python3
"""The pairs of this folder from a checkout of ConDefects: faulty AtCoder submissions and their repaired versions.

    git clone https://github.com/appmlk/ConDefects
    python3 make_pairs.py ConDefects        writes python_pairs.jsonl

A pair is kept if both programs parse and neither has more than 1,500 characters. Fields: task, submission, correct,
incorrect.
"""
import ast
import json
import sys
import warnings
from pathlib import Path

LIMIT = 1500
HERE = Path(__file__).resolve().parent


def program(path):
    """The program's text with line ends LF, or None if it is too long or does not parse."""
    text = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    return text if len(text) <= LIMIT else None


def main():
    warnings.simplefilter("ignore")
    code = Path(sys.argv[1]) / "Code"
    rows = 0
    with open(HERE / "python_pairs.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for submission in sorted(code.glob("*/Python/*")):
            correct = program(submission / "correctVersion.py")
            incorrect = program(submission / "faultyVersion.py")
            if correct is None or incorrect is None or correct == incorrect:
                continue
            row = {"task": submission.parts[-3], "submission": submission.name, "correct": correct, "incorrect": incorrect}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            rows += 1
    print(rows, "pairs")


if __name__ == "__main__":
    main()
