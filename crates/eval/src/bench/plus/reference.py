# Runs a problem's reference solution on all of its inputs: what it returns is what every candidate must
# return, and the time that it takes decides the candidates' time limits.
#
# Standard input: a line with the data set's name (`humaneval` or `mbpp`), then the problem's row as in
# the published file. Output: a line of JSON, then for each set of inputs (base, plus) its bytes:
# marshal of (inputs, expected values, seconds, reference). An expected value is a tuple of one element;
# None where marshal does not carry it or it is too large: `reference`, else empty, is then the program
# that computes it again.
import json
import marshal
import os
import sys
import time

# Bytes of one expected value, and of all values of a set, that are handed on.
LARGEST = 1 << 20
LARGEST_SET = 32 << 20
# A candidate's time for one input: at least this long, at least so many times the reference's.
SECONDS, FACTOR = 1.0, 4.0

# Functions whose result has only to be something rather than nothing, as it is for the reference.
NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")

# How MBPP+ turns the JSON of a task's inputs into arguments. One letter for each argument, `*` repeats
# the one before it:  = as it is   t tuple   l list of tuples   T tuple of tuples   m tuple whose lists
# are tuples   r tuples all the way down   s list of sets   d dict of tuples   f float   c complex
SHAPES = {
    "t*": (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
    "l*": (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    "l=": (75, 413, 444, 753),
    "=t": (106, 750),
    "s": (115,),
    "fc": (124,),
    "t=": (250, 405, 446, 617, 720, 763, 808),
    "c": (252,),
    "T*": (259, 401, 445),
    "m": (278,),
    "t==": (307,),
    "r*": (580, 615, 791),
    "d=*": (722,),
}


def deep(value):
    return tuple(map(deep, value)) if isinstance(value, list) else value


TURN = {
    "=": lambda value: value,
    "t": tuple,
    "l": lambda value: [tuple(item) for item in value],
    "T": lambda value: tuple(tuple(item) for item in value),
    "m": lambda value: tuple(tuple(item) if isinstance(item, list) else item for item in value),
    "r": deep,
    # An empty list stands for an empty dict: the data set's authors wrote `{}` for an empty set.
    "s": lambda value: [set(item) if isinstance(item, list) and item else {} for item in value],
    "d": lambda value: {key: tuple(item) for key, item in value.items()},
    "f": float,
    "c": complex,
}


def arguments(shape, given):
    """The arguments of one call."""
    letters = shape.rstrip("*")
    if shape != letters:
        letters += letters[-1] * (len(given) - len(letters))
    return [TURN[letter](value) for letter, value in zip(letters, given)]


def shape_of(dataset, task_id):
    if dataset == "mbpp":
        number = int(task_id.rsplit("/", 1)[-1])
        for shape, tasks in SHAPES.items():
            if number in tasks:
                return shape
    return "=*"


def packed(value):
    """The value in a tuple, if it can be handed on, and its size."""
    try:
        size = len(marshal.dumps(value))
    except ValueError:
        return None, 0
    return ((value,), size) if size <= LARGEST else (None, 0)


def outcome(program, row, inputs, not_none):
    """What the reference returns for these inputs: the bytes of a set, and the seconds allowed in all."""
    space = {}
    exec(program, space)
    function = space[row["entry_point"]]
    expected, seconds, total = [], [], 0
    for place, given in enumerate(inputs, 1):
        fresh = marshal.loads(marshal.dumps(given))
        try:
            start = time.monotonic()
            value = function(*fresh)
            seconds.append(time.monotonic() - start)
        except BaseException as error:
            raise Failed(place, error)
        kept, size = packed(value is not None if not_none else value)
        if total + size > LARGEST_SET:
            kept, size = None, 0
        total += size
        expected.append(kept)
    again = program if None in expected else ""
    allowed = sum(max(SECONDS, FACTOR * second) for second in seconds)
    return marshal.dumps((inputs, expected, seconds, again)), allowed


class Failed(Exception):
    pass


def main():
    dataset, _, text = sys.stdin.buffer.read().decode().partition("\n")
    row = json.loads(text)
    write = os.write
    quiet()
    program = row["prompt"] + row["canonical_solution"]
    shape = shape_of(dataset, row["task_id"])
    not_none = dataset == "mbpp" and row["entry_point"] in NOT_NONE
    sets, blobs = [], []
    try:
        for name in ("base", "plus"):
            where = name + "_input"
            blob, allowed = outcome(program, row, [arguments(shape, given) for given in row[where]], not_none)
            sets.append({"tests": len(row[where]), "seconds": allowed, "bytes": len(blob)})
            blobs.append(blob)
        header = {"sets": sets}
    except Failed as failed:
        place, error = failed.args
        header, blobs = {"failed": "%s %d: %s: %s" % (where, place, type(error).__name__, str(error)[:200])}, []
    except BaseException as error:
        header, blobs = {"failed": "%s: %s: %s" % (where, type(error).__name__, str(error)[:200])}, []
    data = b"".join([json.dumps(header).encode(), b"\n", *blobs])
    while data:
        data = data[write(1, data):]


main()
