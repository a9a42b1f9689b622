#!/usr/bin/env python3
"""What is compiled into wmtp for a target, beyond its own sources.

    python3 packaging/third_party.py licences TARGET
        the licences, each text once, on standard output
    python3 packaging/third_party.py bom TARGET ROOT < BOM
        a bill of materials that cargo-cyclonedx made in ROOT, without the crates that are not compiled in; checked

`bom` needs cyclonedx-python-lib[json-validation]. Both take cargo's own tree of the features that are on as the
truth: cargo's metadata, which cargo-cyclonedx reads, also lists crates that only other features use.
"""

import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"(UN)?LICEN[CS]E|COPYING|COPYRIGHT|NOTICE", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


def compiled_in(target):
    """Name and version of every crate that the program consists of: no build scripts, no procedural macros."""
    edges = ["-e", "normal,no-proc-macro", "--target", target]
    tree = cargo("tree", "--locked", "-p", "wmtp", *edges, "--prefix", "none", "--format", "{p}")
    lines = (line.split() for line in tree.splitlines())
    return {(words[0], words[1].removeprefix("v")) for words in lines if words}


def texts(package):
    """The licence files of a package."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if FILES.match(path.name) and path.is_file())
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def licences(target):
    used = compiled_in(target)
    metadata = cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target)
    packages = [p for p in json.loads(metadata)["packages"] if p["source"] and (p["name"], p["version"]) in used]
    packages.sort(key=lambda p: (p["name"], p["version"]))
    by_text = {}
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
    line = "-" * 100
    for text, names in by_text.items():
        print(f"\n{line}\n{', '.join(names)}\n\n{text}")
    if without:
        print(f"\n{line}\nCrates whose packages have no licence file:\n")
        for package in without:
            authors = ", ".join(package["authors"]) or "authors not named"
            where = package["repository"] or "no repository named"
            print(f"  {package['name']} {package['version']}: {package['license']}; {authors}; {where}")
    print(f"{len(packages)} crates, {len(by_text)} texts, {len(without)} crates without", file=sys.stderr)


def bom(target, root):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    used = compiled_in(target)
    # A path on the machine that made it identifies nothing elsewhere.
    whole = json.loads(sys.stdin.read().replace(f"path+file://{root}", "path+file:///wmtp"))
    program = whole["metadata"]["component"]
    listed = len(whole["components"])
    whole["components"] = [c for c in whole["components"] if (c["name"], c["version"]) in used]
    refs = {component["bom-ref"] for component in [program, *whole["components"]]}
    whole["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in refs]}
        for entry in whole["dependencies"]
        if entry["ref"] in refs
    ]
    missing = used - {(c["name"], c["version"]) for c in [program, *whole["components"]]}
    if missing:
        sys.exit(f"error: compiled in and not in the bill of materials: {sorted(missing)}")
    text = json.dumps(whole, indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if error is not None:
        sys.exit(f"error: not CycloneDX 1.5: {error}")
    print(text)
    count = len(whole["components"])
    print(f"{program['name']} {program['version']}: {count} components of {listed}, valid", file=sys.stderr)


if __name__ == "__main__":
    {"licences": licences, "bom": bom}[sys.argv[1]](*sys.argv[2:])
