"""The keys of VESSL run files against the data model in VESSL's own client (PyPI: vessl, without dependencies).

    python vessl_keys.py FILE...

The client sends the file to the server, which alone checks it fully; its package has the form that the server
reads (`V1RunSpecFormBodyInput`), from which keys and kinds of values are taken. The classes are read as text,
because importing them needs the whole client.
"""

import ast
import pathlib
import re
import sys
import sysconfig

import yaml

MODELS = pathlib.Path(sysconfig.get_path("purelib"), "vessl/openapi_client/models")
# Forms that the reference of the format also writes as a string.
SHORT = {"V1ImageForm", "V1EnvForm", "V1ImportForm", "V1ExportForm", "V1MountForm"}


def fields(name):
    """Key in the file -> type, of the class `name`."""
    file = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()
    found = {}
    for node in ast.walk(ast.parse((MODELS / f"{file}.py").read_text())):
        match node:
            case ast.Assign(targets=[ast.Name(id="openapi_types" | "attribute_map" as table)]):
                found[table] = ast.literal_eval(node.value)
    return {found["attribute_map"][key]: kind for key, kind in found["openapi_types"].items()}


def check(value, kind, where, problems):
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            problems.append(f"{where} is not a list")
            return
        for at, item in enumerate(value):
            check(item, inner[1], f"{where}[{at}]", problems)
    elif inner := re.fullmatch(r"dict\[str, (.*)\]", kind):
        for key, item in value.items():
            check(item, inner[1], f"{where}.{key}", problems)
    elif kind.startswith("V1"):
        if isinstance(value, str) and kind in SHORT:
            return
        if not isinstance(value, dict):
            problems.append(f"{where} is not a mapping")
            return
        known = fields(kind)
        for key, item in value.items():
            if key in known:
                check(item, known[key], f"{where}.{key}", problems)
            else:
                problems.append(f"{where}.{key}: no such key; there are {', '.join(sorted(known))}")
    elif kind in ("str", "int", "bool") and type(value).__name__ != kind:
        problems.append(f"{where} is not {kind}: {value!r}")


failed = False
for file in sys.argv[1:]:
    problems = []
    check(yaml.safe_load(pathlib.Path(file).read_text()), "V1RunSpecFormBodyInput", "run", problems)
    print(file, "ok" if not problems else "; ".join(problems))
    failed |= bool(problems)
sys.exit(failed)
