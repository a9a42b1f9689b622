"""Makes a large Parquet file of prompts and programs: python3 make_large_parquet.py FILE [BYTES]

Needs pyarrow. BYTES is 2,000,000,000 by default. The programs are functions put together from parts that a
seed draws: identifiers with the frequencies of Zipf's law, indented statements, strings and numbers. Every row
has another prompt, about 900 bytes of text, and no compression, so that the file is as large as its text.
`docs/data.md` says what was measured with it.
"""

import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP = 20_000
SYLLABLES = "ab co de fa gi ho in ka lo me nu or pa qu re si to un ve wi ex ya zo st tr list name size key node".split()

draw = random.Random(1)
identifiers = ["_".join("".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(draw.randint(1, 2)))
               for _ in range(20_000)]
ranks = [1 / (rank + 10) for rank in range(len(identifiers))]
total = 0.0
cumulative = [total := total + weight for weight in ranks]


def name():
    return draw.choices(identifiers, cum_weights=cumulative)[0]


def expression():
    return draw.choice([
        lambda: f"{name()}({name()}, {draw.randint(0, 999)})",
        lambda: f"[{name()} for {name()} in {name()}]",
        lambda: f'{name()}.get("{name()}", None)',
        lambda: f"{name()} + {name()} * {draw.randint(2, 64)}",
        lambda: f"len({name()}) - {draw.randint(0, 9)}",
    ])()


def function():
    lines = [f"def {name()}({name()}, {name()}=None):", f'    """{name()} {name()} {name()}."""']
    for _ in range(draw.randint(3, 7)):
        lines.append(draw.choice([
            lambda: f"    {name()} = {expression()}",
            lambda: f"    if {expression()} > {draw.randint(0, 99)}:\n        return {expression()}",
            lambda: f"    for {name()} in range({draw.randint(1, 99)}):\n        {name()}.append({expression()})",
        ])())
    lines.append(f"    return {expression()}\n")
    return "\n".join(lines)


def main(path, size):
    functions = [function() for _ in range(40_000)]
    schema = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
    written = row = 0
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as out:
        while written < size:
            prompts, completions = [], []
            for _ in range(ROWS_PER_GROUP):
                row += 1
                prompts.append(f"# {row}: {name()} {name()} {name()}\n")
                completions.append("\n\n".join(draw.choices(functions, k=2)))
                written += len(prompts[-1]) + len(completions[-1]) + 8
                if written >= size:
                    break
            out.write_table(pa.table([prompts, completions], schema=schema))
    print(f"{row} rows in {path}")


main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2_000_000_000)
