"""Makes the Parquet files of this folder: python3 make_parquet.py

Needs pyarrow. chat.parquet has instruction.jsonl's rows as conversations, in two row groups, with null and
empty lists and a column that no schema uses. nested/*.parquet have the same rows of nested types, written
with every compression, both versions of data pages, and pages so small that lists cross their ends;
nested/rows.json has the rows as pyarrow reads them back.
"""

import json
import pathlib
import random

import pyarrow as pa
import pyarrow.parquet as pq

here = pathlib.Path(__file__).parent


def chat():
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.float64())])
    schema = pa.schema(
        [
            ("messages", pa.list_(message)),
            ("source_url", pa.string()),
            ("tools", pa.list_(pa.string())),
            ("weight", pa.float32()),
            ("task_id", pa.int64()),
            ("label", pa.bool_()),
        ]
    )
    rows = [json.loads(line) for line in (here / "instruction.jsonl").open()]
    table = pa.Table.from_pylist([chat_row(number, row) for number, row in enumerate(rows)], schema=schema)
    pq.write_table(table, here / "chat.parquet", row_group_size=4, compression="zstd")


def chat_row(number, given):
    earlier = [
        {"role": role, "content": text, "weight": 0.0 if role == "assistant" else None}
        for pair in given.get("history") or []
        for role, text in zip(("user", "assistant"), pair)
    ]
    question = given["instruction"] + ("\n\n" + given["input"] if given.get("input") else "")
    turn = [
        {"role": "user", "content": question, "weight": None},
        {"role": "assistant", "content": given["output"], "weight": None},
    ]
    return {
        "messages": earlier + turn,
        "source_url": f"https://example.org/{number}",
        "tools": [] if number % 2 else None,
        "weight": 0.5 if number == 1 else None,
        "task_id": number,
        "label": given.get("label"),
    }


CALL = pa.struct([("name", pa.string()), ("arguments", pa.map_(pa.string(), pa.string()))])
NESTED = pa.schema(
    [
        pa.field("id", pa.int32(), nullable=False),
        ("text", pa.string()),
        ("large", pa.large_string()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("bytes", pa.binary()),
        ("yes", pa.bool_()),
        ("small", pa.int8()),
        ("unsigned", pa.uint32()),
        ("long", pa.uint64()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("words", pa.list_(pa.string())),
        ("table", pa.list_(pa.list_(pa.int64()))),
        ("counts", pa.map_(pa.string(), pa.list_(pa.int32()))),
        ("pair", pa.struct([("a", pa.string()), ("b", pa.list_(pa.float64()))])),
        (
            "messages",
            pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("calls", pa.list_(CALL))])),
        ),
    ]
)


def value(kind, draw):
    """A random value of a type, null in one case of five."""
    if draw.random() < 0.2:
        return None
    if pa.types.is_map(kind):
        keys = draw.sample("abcdef", draw.randrange(3))
        return [(key, value(kind.item_type, draw)) for key in keys]
    if pa.types.is_list(kind):
        return [value(kind.value_type, draw) for _ in range(draw.choice([0, 1, 2, 5]))]
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, draw) for field in kind}
    if pa.types.is_boolean(kind):
        return draw.random() < 0.5
    if pa.types.is_unsigned_integer(kind):
        return draw.choice([0, 7, 2**kind.bit_width - 1])
    if pa.types.is_integer(kind):
        return draw.choice([0, -1, -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1])
    if pa.types.is_floating(kind):
        return draw.choice([0.0, -0.5, 1024.25])
    if pa.types.is_binary(kind):
        return draw.choice([b"", b"xy"])
    return draw.choice(["", "def f():\n    return 1\n", "äöü", "𝛼", draw.choice("xyz") * draw.randrange(40)])


def plain(cell, kind):
    """A value as JSON has it."""
    if cell is None:
        return None
    if pa.types.is_map(kind):
        return {key: plain(item, kind.item_type) for key, item in cell}
    if pa.types.is_list(kind):
        return [plain(item, kind.value_type) for item in cell]
    if pa.types.is_struct(kind):
        return {field.name: plain(cell[field.name], field.type) for field in kind}
    return cell.decode() if isinstance(cell, bytes) else cell


def nested():
    draw = random.Random(18)
    rows = [{field.name: value(field.type, draw) for field in NESTED} | {"id": i} for i in range(60)]
    table = pa.Table.from_pylist(rows, schema=NESTED)
    folder = here / "nested"
    folder.mkdir(exist_ok=True)
    writers = {
        "none": {"compression": "none", "data_page_size": 64, "write_batch_size": 3},
        "snappy": {"compression": "snappy", "row_group_size": 33},
        "gzip": {"compression": "gzip", "data_page_version": "2.0", "data_page_size": 128, "write_batch_size": 5},
        "lz4": {"compression": "lz4", "use_dictionary": False},
        "zstd": {"compression": "zstd", "data_page_version": "2.0", "use_compliant_nested_type": False},
    }
    for name, options in writers.items():
        pq.write_table(table, folder / f"{name}.parquet", **options)
        back = pq.read_table(folder / f"{name}.parquet").to_pylist()
        read = [{field.name: plain(row[field.name], field.type) for field in NESTED} for row in back]
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in read)
        text = f"[\n{lines}\n]\n"
        expected = folder / "rows.json"
        if name == "none":
            expected.write_text(text)
        assert expected.read_text() == text, name


chat()
nested()
