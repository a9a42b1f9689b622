"""Line coverage for each crate of the workspace, from `cargo llvm-cov report --json --summary-only`.

    python3 ci/coverage.py summary.json

Prints a table and fails where a crate is below 80%. Tests, examples and benches are not counted.
"""

import collections
import json
import pathlib
import sys

LEAST = 80.0


def crate(path: pathlib.PurePath) -> str | None:
    """The crate whose product code this file is; None for code of tests."""
    parts = path.parts
    if {"tests", "examples", "benches"} & set(parts) or path.name == "tests.rs":
        return None
    at = parts.index("src") if "src" in parts else -1
    if at < 0:
        return None
    return "/".join(parts[:at]) or "wmtp"


def main() -> int:
    root = pathlib.Path.cwd()
    data = json.loads(pathlib.Path(sys.argv[1]).read_text())["data"][0]
    covered, lines = collections.Counter(), collections.Counter()
    for file in data["files"]:
        path = pathlib.PurePath(file["filename"])
        if not path.is_relative_to(root):
            continue
        name = crate(path.relative_to(root))
        if name is None:
            continue
        covered[name] += file["summary"]["lines"]["covered"]
        lines[name] += file["summary"]["lines"]["count"]
    for name in sorted(lines):
        print(f"| {name} | {lines[name]} | {100 * covered[name] / lines[name]:.1f}% |")
    print(f"| all | {lines.total()} | {100 * covered.total() / lines.total():.1f}% |")
    low = [name for name in lines if 100 * covered[name] < LEAST * lines[name]]
    if low:
        print(f"line coverage is below {LEAST}%: {', '.join(sorted(low))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
