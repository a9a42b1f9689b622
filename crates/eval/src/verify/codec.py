# Values as text between the two interpreters of a verification: JSON in which only exact `None`, `bool`, `str`,
# `float`, small `int` and `list` stand for themselves. Every other value is an object with one key, its kind:
#
#   i integer in hexadecimal   c complex   t tuple   d dict, in order, as pairs   s set   f frozenset   b bytes
#   a bytearray   q deque and its bound   C Counter   O OrderedDict   r range   D Decimal   Q Fraction
#   T date, time or datetime, U timedelta   K V P a dict's keys, values, items   y built-in type or function
#   e Ellipsis, n NotImplemented, g slice   j an iterator of the check's, drawn   S text with surrogates, as numbers
#   m a name of the program's   h an object of the program's   I an iterator of the program's: these stay there
#
# A value of a subclass is sent as its base, and what equals a built-in value without being one (ChainMap, UserList,
# memoryview and the like) as that; what has none of these bases is an object that stays.
import builtins
import site
import sys

try:
    import _json
except ImportError:
    _json = None

# Values nested deeper than this are refused, by both sides.
DEEPEST = 200
# Integers beyond this are sent in hexadecimal, which is read in linear time.
LARGE = 1 << 256

# Both interpreters begin without what `site` does, which takes most of the time of a start: its names are given here,
# and the packages that are installed are found when they are asked for.
site.setquit()
site.setcopyright()
site.sethelper()


class Packages:
    """Looks for a module where the library has none: once the installed packages are known, there."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        sys.meta_path.remove(Packages)
        site.main()
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        return next(filter(None, found), None)


sys.meta_path.append(Packages)


def coders():
    """json.dumps and json.loads of a value in one line, without the module, whose import takes as long as a start."""
    try:
        write = _json.make_encoder(None, None, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)
        read = _json.make_scanner(Reading)
        if read("[1.5, NaN]", 0)[0][:1] != [1.5] or "".join(write([1, "x"], 0)) != '[1, "x"]':
            raise TypeError
    except (AttributeError, TypeError, ValueError):
        import json

        return (lambda value: json.dumps(value, check_circular=False)), json.loads

    def loads(line):
        try:
            value, end = read(line, 0)
        except (StopIteration, SystemError):  # without the module, the scanner cannot make its own exception
            raise ValueError("no JSON") from None
        if line[end:].strip(" \t\r\n"):
            raise ValueError("more than one value")
        return value

    return (lambda value: "".join(write(value, 0))), loads


class Reading:
    """What the scanner of the module json is made from."""

    strict, object_hook, object_pairs_hook, memo = True, None, None, {}
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}.__getitem__


PLAIN = frozenset((type(None), bool, str, float))
# Built-in classes and functions are values, too: `f(int)`, `f(key=len)`. The same object has the same name.
# Not those that run text, look into other objects or make types.
UNNAMED = set(
    "breakpoint classmethod compile delattr dir eval exec getattr globals hasattr input locals open property setattr"
    " staticmethod super type vars".split()
)
NAMED = {
    id(value): name
    for name, value in vars(builtins).items()
    if callable(value) and name[0] != "_" and name not in UNNAMED
}


class NotData(Exception):
    """A value that cannot be sent."""


def library(name):
    """A module of the library if it has been imported: only then can there be a value of its classes."""
    return sys.modules.get(name)


def has_surrogates(value):
    """Whether JSON might join two of its characters."""
    return not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)


def is_plain(values):
    """Whether all of these stand for themselves."""
    kinds = set(map(type, values))
    if str in kinds and any(type(value) is str and has_surrogates(value) for value in values):
        return False
    if int not in kinds:
        return kinds <= PLAIN
    return len(kinds) == 1 and -LARGE < min(values) and max(values) < LARGE


def encode(value, stay, depth=0):
    """What json.dumps takes; `stay(value)` encodes what has no other form."""
    kind = type(value)
    if kind is int:
        return value if -LARGE < value < LARGE else {"i": hex(value)}
    if kind is str and has_surrogates(value):
        return {"S": list(map(ord, value))}
    if kind in PLAIN:
        return value
    if depth > DEEPEST:
        raise NotData("a value that is nested too deeply")
    if kind is list and is_plain(value):
        return value

    def items(values):
        return [encode(item, stay, depth + 1) for item in values]

    def pairs(found):
        return [[encode(key, stay, depth + 1), encode(item, stay, depth + 1)] for key, item in found]

    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return encode(int.__int__(value), stay)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return encode(str.__str__(value), stay)
    if isinstance(value, list):
        return items(list.__iter__(value))
    if isinstance(value, tuple):
        return {"t": items(tuple.__iter__(value))}
    if isinstance(value, dict):
        return {dict_kind(value): pairs(dict.items(value))}
    if isinstance(value, set):
        return {"s": items(set.__iter__(value))}
    if isinstance(value, frozenset):
        return {"f": items(frozenset.__iter__(value))}
    if isinstance(value, bytes):
        return {"b": bytes.hex(value)}
    if isinstance(value, bytearray):
        return {"a": bytearray.hex(value)}
    if isinstance(value, complex):
        return {"c": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, range):
        return {"r": items((value.start, value.stop, value.step))}
    if isinstance(value, slice):
        return {"g": items((value.start, value.stop, value.step))}
    if value is Ellipsis:
        return {"e": 0}
    if value is NotImplemented:
        return {"n": 0}
    for tag, view in VIEWS.items():
        if isinstance(value, view):
            return {tag: pairs(value) if tag == "P" else items(value)}
    name = NAMED.get(id(value))
    if name is not None and getattr(builtins, name, None) is value:
        return {"y": name}
    if isinstance(value, PROXY):
        return {"d": pairs(value.items())}
    if isinstance(value, memoryview):
        return {"b": value.tobytes().hex()}
    return encode_library(value, items, pairs) or stay(value)


PROXY = type(type.__dict__)
VIEWS = {"K": type({}.keys()), "V": type({}.values()), "P": type({}.items())}


def dict_kind(value):
    collections = library("collections")
    if collections is not None:
        if isinstance(value, collections.Counter):
            return "C"
        if isinstance(value, collections.OrderedDict):
            return "O"
    return "d"


def encode_library(value, items, pairs):
    """Values of classes of the library, else None."""
    module = library("collections")
    if module is not None and isinstance(value, module.deque):
        return {"q": [items(module.deque.__iter__(value)), value.maxlen]}
    if module is not None and isinstance(value, (module.ChainMap, module.UserDict)):
        return {"d": pairs(value.items())}
    if module is not None and isinstance(value, module.UserList):
        return items(value)
    if module is not None and isinstance(value, module.UserString):
        return str(value)
    module = library("decimal")
    if module is not None and isinstance(value, module.Decimal):
        return {"D": module.Decimal.__str__(value)}
    module = library("fractions")
    if module is not None and isinstance(value, module.Fraction):
        return {"Q": items((value.numerator, value.denominator))}
    module = library("datetime")
    if module is not None:
        if isinstance(value, module.timedelta):
            return {"U": items((value.days, value.seconds, value.microseconds))}
        for name in ("datetime", "date", "time"):
            if isinstance(value, getattr(module, name)) and getattr(value, "tzinfo", None) is None:
                return {"T": [name, getattr(module, name).isoformat(value)]}
    return None


def text(value):
    """An item of the form that must be text."""
    if type(value) is not str:
        raise NotData("text that is none")
    return value


def decode(data, stays, depth=0):
    """The value of `data`, which may be anything that json.loads returns; `stays(kind, data)` decodes what stays at
    the other side. Every fault of `data` is an exception."""
    kind = type(data)
    if kind is int or kind in PLAIN:
        return data
    if depth > DEEPEST:
        raise NotData("a value that is nested too deeply")
    if kind is list:
        if is_plain(data):
            return data
        return [decode(item, stays, depth + 1) for item in data]
    if kind is not dict or len(data) != 1:
        raise NotData("an object that is no value")
    (tag, content), = data.items()

    def items():
        if type(content) is not list:
            raise NotData("no list of items")
        return [decode(item, stays, depth + 1) for item in content]

    def pairs():
        if type(content) is not list:
            raise NotData("no list of pairs")
        found = []
        for pair in content:
            if type(pair) is not list or len(pair) != 2:
                raise NotData("no pair")
            found.append((decode(pair[0], stays, depth + 1), decode(pair[1], stays, depth + 1)))
        return found

    if tag == "t":
        return tuple(items())
    if tag == "d":
        return dict(pairs())
    if tag == "i":
        return int(text(content), 16)
    if tag == "S":
        return "".join(map(chr, items()))
    if tag == "s":
        return set(items())
    if tag == "f":
        return frozenset(items())
    if tag == "b":
        return bytes.fromhex(text(content))
    if tag == "a":
        return bytearray.fromhex(text(content))
    if tag == "c":
        real, imaginary = content
        return complex(float.fromhex(text(real)), float.fromhex(text(imaginary)))
    if tag == "r":
        return range(*items())
    if tag == "g":
        return slice(*items())
    if tag == "e":
        return Ellipsis
    if tag == "n":
        return NotImplemented
    if tag == "K":
        return dict.fromkeys(items()).keys()
    if tag == "V":
        return dict(enumerate(items())).values()
    if tag == "P":
        return dict(pairs()).items()
    if tag == "y":
        found = vars(builtins).get(text(content))
        if NAMED.get(id(found)) != content:
            raise NotData("no built-in of this name")
        return found
    if tag in ("q", "C", "O"):
        import collections

        if tag == "q":
            values, most = content
            return collections.deque(decode(values, stays, depth + 1), decode(most, stays, depth + 1))
        return collections.OrderedDict(pairs()) if tag == "O" else collections.Counter(dict(pairs()))
    if tag == "D":
        import decimal

        return decimal.Decimal(text(content))
    if tag == "Q":
        import fractions

        return fractions.Fraction(*items())
    if tag in ("T", "U"):
        import datetime

        if tag == "U":
            return datetime.timedelta(*items())
        name, written = content
        if name not in ("datetime", "date", "time"):
            raise NotData("no date and no time")
        return getattr(datetime, name).fromisoformat(text(written))
    return stays(tag, content)
