#!/usr/bin/env python3
"""Prints the licences of the crates that are compiled into wmtp for a target, each text once.

    python3 ci/third-party-licences.py x86_64-unknown-linux-gnu

A crate whose package has no licence file is listed with what its manifest says.
"""

import collections
import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"(UN)?LICEN[CS]E|COPYING|COPYRIGHT|NOTICE", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def crates(target):
    """The packages of the program's normal dependencies, without those of this workspace."""
    edges = ["-e", "normal,no-proc-macro", "--target", target]
    tree = cargo("tree", "--locked", "-p", "wmtp", *edges, "--prefix", "none", "--format", "{p}")
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    metadata = cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target)
    found = [p for p in json.loads(metadata)["packages"] if p["source"] and (p["name"], "v" + p["version"]) in used]
    return sorted(found, key=lambda p: (p["name"], p["version"]))


def texts(package):
    """The licence files of a package."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if FILES.match(path.name) and path.is_file())
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def main():
    packages = crates(sys.argv[1])
    by_text = collections.OrderedDict()
    without = []
    for package in packages:
        found = texts(package)
        for text in found:
            by_text.setdefault(text, []).append(f"{package['name']} {package['version']}")
        if not found:
            without.append(package)
    print("wmtp is compiled together with the crates below. Their names, versions and licences:\n")
    for package in packages:
        print(f"  {package['name']} {package['version']}: {package['license'] or 'see its text'}")
    print("\nThe texts:")
    for text, names in by_text.items():
        print(f"\n{'-' * 100}\n{', '.join(names)}\n\n{text}")
    if without:
        print(f"\n{'-' * 100}\nCrates whose packages have no licence file:\n")
        for package in without:
            authors = ", ".join(package["authors"]) or "authors not named"
            where = package["repository"] or "no repository named"
            print(f"  {package['name']} {package['version']}: {package['license']}; {authors}; {where}")
    print(f"{len(packages)} crates, {len(by_text)} texts, {len(without)} crates without", file=sys.stderr)


if __name__ == "__main__":
    main()
