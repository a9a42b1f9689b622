# A step of the judge for candidates that are judged by what a function returns: each input is passed to
# the function, and its result is compared with the reference's by the rules of evalplus (Liu et al. 2023,
# arXiv 2305.01210; version 0.3.1).
import itertools
import marshal
import math
import time

# As in reference.py.
SECONDS, FACTOR = 1.0, 4.0
# NumPy's allclose, by which floats are compared: relative tolerance.
RELATIVE = 1e-7
# The absolute tolerance where the problem has none, from the first expected value that is of floats on.
ABSOLUTE = 1e-6

# MBPP+'s functions whose result is a list in any order.
AS_SETS = frozenset((
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
    "intersection_array", "find_dissimilar", "Diff",
))
# MBPP+'s functions that return a match or None: the expected value is whether there is one.
NOT_NONE = frozenset(("check_str", "text_match_three", "text_starta_endb"))


class Late(BaseException):
    """Over the time limit."""


class Unlike(Exception):
    """Values that NumPy would not compare as numbers."""


def is_floats(value):
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def laid_out(value, inside=False):
    """Shape and numbers of a value as NumPy makes an array of it."""
    if isinstance(value, (list, tuple, range)):
        rows = [laid_out(item, True) for item in value]
        shapes = {shape for shape, _ in rows}
        if len(shapes) > 1:
            raise Unlike
        shape = (len(rows), *(shapes.pop() if shapes else ()))
        return shape, [number for _, numbers in rows for number in numbers]
    if isinstance(value, complex):
        return (), [value]
    if isinstance(value, (int, float)):
        # Arrays of larger integers would be of objects, which NumPy does not compare.
        if inside and isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise Unlike
        return (), [float(value)]
    raise Unlike


def spread(shape, numbers, target):
    """The numbers repeated along the axes that `shape` lacks or has with length 1."""
    shape = (1,) * (len(target) - len(shape)) + shape
    steps, step = [], 1
    for length in reversed(shape):
        steps.append(step if length > 1 else 0)
        step *= length
    steps.reverse()
    return [
        numbers[sum(map(int.__mul__, place, steps))]
        for place in itertools.product(*map(range, target))
    ]


def close(value, expected, absolute):
    """`numpy.allclose(value, expected, rtol=1e-07, atol=absolute)` without NumPy."""
    shape, numbers = laid_out(value)
    other, expected = laid_out(expected)
    if shape != other:
        target = []
        for a, b in itertools.zip_longest(reversed(shape), reversed(other), fillvalue=1):
            if a != b and 1 not in (a, b):
                raise Unlike
            target.insert(0, b if a == 1 else a)
        numbers, expected = spread(shape, numbers, target), spread(other, expected, target)
    for x, y in zip(numbers, expected):
        if x == y:
            continue
        finite = math.isfinite(y.real) and math.isfinite(y.imag)
        if not (finite and abs(x - y) <= absolute + RELATIVE * abs(y)):
            return False
    return True


def polynomial(coefficients, x):
    return sum([factor * math.pow(x, power) for power, factor in enumerate(coefficients)])


def pyramid(edge, height):
    """Surface of a square pyramid, the height being that of the apex over the base."""
    slant = math.sqrt((edge / 2) ** 2 + height ** 2)
    return round(edge ** 2 + 4 * (edge * slant) / 2)


def digit_distance(a, b):
    """The sum of the differences of digits, of numbers filled up with zeros on the left."""
    a, b = str(a), str(b)
    width = max(len(a), len(b))
    return sum(abs(int(p) - int(q)) for p, q in zip(a.zfill(width), b.zfill(width)))


def is_exact(result, expected, name, given, absolute, strict):
    """Whether a result is right without a tolerance, by the rule of its function; if `strict`, without the two rules
    that take answers for right whatever was asked."""
    if name in NOT_NONE:
        return result == expected if isinstance(result, bool) else expected == (result is not None)
    exact = result == expected
    if name == "are_equivalent":
        exact = exact or not strict
    elif name == "sum_div":
        exact = exact or not strict and result == 0
    elif name == "surface_Area":
        exact = exact or abs(result - pyramid(*given)) <= absolute
    elif name == "digit_distance_nums":
        exact = exact or result == digit_distance(*given)
    elif name in AS_SETS:
        exact = set(result) == set(expected)
    return exact


def is_near(result, expected, absolute):
    """Whether a result that is not exact is of the expected type and within the tolerance."""
    if type(result) is not type(expected):
        return False
    if isinstance(expected, (list, tuple)) and len(result) != len(expected):
        return False
    return close(result, expected, absolute)


def calling(dataset, name, absolute, data, clock, slack, strict=False):
    """The step: calls the function with every input, and compares. A call has `slack` times evalplus' time."""
    inputs, expected, seconds, reference = marshal.loads(data)
    copy = lambda value, dumps=marshal.dumps, loads=marshal.loads: loads(dumps(value))
    now = time.monotonic
    again = {}
    if reference:
        exec(reference, again)
    # What holds for MBPP+'s functions does not for HumanEval+'s of the same name.
    rule = name if dataset == "mbpp" else ""

    def step(space):
        nonlocal absolute
        if name not in space:
            raise NameError(name)
        function = space[name]
        for given, value, second in zip(inputs, expected, seconds):
            if value is None:
                value = again[name](*copy(given))
                if rule in NOT_NONE:
                    value = value is not None
            else:
                value = value[0]
            start = now()
            limit = slack * max(SECONDS, FACTOR * second)
            clock[0] = start + limit
            result = function(*given)
            clock[0] = None
            if now() - start > limit:
                raise Late
            try:
                if dataset == "humaneval" and name == "find_zero":
                    right = abs(polynomial(*given, result)) <= absolute
                else:
                    right = is_exact(result, value, rule, given, absolute, strict)
                    # Once set, it holds for the inputs that follow, too.
                    if absolute == 0 and is_floats(value):
                        absolute = ABSOLUTE
                    if not right and absolute != 0:
                        right = is_near(result, value, absolute)
            except BaseException:
                right = False
            if not right:
                raise AssertionError

    return step
