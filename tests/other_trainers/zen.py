#!/usr/bin/env python3
"""TRL's demo data as JSON lines: `zen.py generate_zen_dataset.py DIRECTORY`.

TRL makes its data set `trl-internal-testing/zen` by a script that needs `datasets` and uploads what it makes.
Here the script runs with a stand-in that writes every part into a file instead, without dividing it.
"""
import json
import pathlib
import sys
import types

script, directory = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
directory.mkdir(parents=True, exist_ok=True)


class Dataset:
    def __init__(self, columns):
        self.columns = columns

    @classmethod
    def from_dict(cls, columns):
        return cls(columns)

    def train_test_split(self, **_):
        return self

    def push_to_hub(self, _, config_name):
        rows = [dict(zip(self.columns, values)) for values in zip(*self.columns.values())]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (directory / f"{config_name}.jsonl").write_text(text)


module = types.ModuleType("zen")
sys.modules["zen"] = module
sys.modules["datasets"] = types.SimpleNamespace(Dataset=Dataset)
sys.modules["transformers"] = types.SimpleNamespace(HfArgumentParser=None)
exec(compile(script.read_text(), str(script), "exec"), module.__dict__)
module.main(test_size=0.1, push_to_hub=True, repo_id="zen")
