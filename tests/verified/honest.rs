//! Honest programs are verified.

use super::{CHECKS, judged, of};
use wmtp::eval::{Judgement, Verdict};

#[test]
fn honest_programs_are_verified_whatever_else_they_do() {
    let double = "def double(x):\n    return 2 * x\n";
    for extra in [
        "from collections import namedtuple, OrderedDict, Counter, deque\nP = namedtuple('P', 'a b')",
        "import enum, dataclasses, typing\n@dataclasses.dataclass\nclass A:\n    x: int\nclass E(enum.Enum):\n    A = 1",
        "import logging\nlogging.warning('x')",
        "import random, itertools, heapq, bisect, string, math, datetime, decimal, fractions, statistics, json, re",
        "open('x.txt', 'w').write('a')\nopen('x.txt').read()",
        "import os, tempfile\nos.urandom(3)\nwith tempfile.NamedTemporaryFile(dir='.') as f: f.write(b'x')",
        "def deep(n): return deep(n + 1)\ntry: deep(0)\nexcept RecursionError: pass",
        "exec('y = 1')\nz = eval('y + 1')\ncode = compile('1 + 1', '<string>', 'eval')",
        "sum = 0\nlist = [1]",
        "import functools\ndouble = functools.lru_cache(maxsize=None)(double)",
        "import warnings\nwarnings.warn('x')",
        "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()",
        "import inspect\ninspect.stack()",
        "import gc\ngc.get_objects()",
        "print('hello')",
        "import threading, time; threading.Thread(target=time.sleep, args=(30,)).start()",
        "import sys; sys.stdout = None",
        "import atexit\natexit.register(print, 'bye')",
        "import json\njson.dumps = None",
    ] {
        let judgement = judged(&format!("{double}{extra}"), &CHECKS, of("double", ""));
        assert_eq!(judgement, Judgement::of(Verdict::Passed, None), "{extra}");
    }
}

/// Every kind of value comes back as what it is.
#[test]
fn values_keep_their_types() {
    for (value, check) in [
        (
            "(1, [2, (3,)], None)",
            "assert f() == (1, [2, (3,)], None) and type(f()) is tuple",
        ),
        ("True", "assert f() is True"),
        ("1.0", "assert type(f()) is float and f() == 1"),
        ("-0.0", "assert str(f()) == '-0.0'"),
        ("float('nan')", "x = f()\nassert x != x"),
        ("float('-inf')", "assert f() == float('-inf')"),
        ("1 << 5000", "assert f() == 1 << 5000"),
        ("-(1 << 300)", "assert f() == -(1 << 300)"),
        (
            "[1, -(1 << 300), True, 2.5]",
            "assert f() == [1, -(1 << 300), True, 2.5] and f()[2] is True",
        ),
        ("2 + 3j", "assert f() == 2 + 3j"),
        ("'\\ud800é\\n'", "assert f() == '\\ud800é\\n'"),
        ("b'\\x00\\xff'", "assert f() == b'\\x00\\xff'"),
        ("bytearray(b'a')", "assert type(f()) is bytearray and f() == b'a'"),
        (
            "{3: 1, (1, 2): [4], None: {}}",
            "assert list(f().items()) == [(3, 1), ((1, 2), [4]), (None, {})]",
        ),
        ("{1, 2}", "assert f() == {2, 1} and type(f()) is set"),
        ("frozenset([1])", "assert {f()} == {frozenset([1])}"),
        ("range(1, 9, 2)", "assert f() == range(1, 9, 2)"),
        ("{1: 2}.keys()", "assert f() == {1} and list(f()) == [1]"),
        ("{1: 2}.values()", "assert list(f()) == [2]"),
        ("{1: 2}.items()", "assert (1, 2) in f()"),
        ("__import__('decimal').Decimal('1.10')", "assert str(f()) == '1.10'"),
        ("__import__('fractions').Fraction(1, 2)", "assert f() == 0.5"),
        (
            "__import__('datetime').date(2020, 1, 2)",
            "assert str(f()) == '2020-01-02'",
        ),
        ("__import__('datetime').datetime(2020, 1, 2, 3)", "assert f().hour == 3"),
        ("__import__('datetime').timedelta(3)", "assert f().days == 3"),
        (
            "__import__('collections').Counter('aab')",
            "assert f() == {'a': 2, 'b': 1} and f()['z'] == 0",
        ),
        ("__import__('collections').OrderedDict(a=1)", "assert f() == {'a': 1}"),
        (
            "__import__('collections').defaultdict(int, a=1)",
            "assert f() == {'a': 1}",
        ),
        (
            "__import__('collections').deque([1, 2], 3)",
            "assert f().maxlen == 3 and list(f()) == [1, 2]",
        ),
        (
            "__import__('collections').namedtuple('P', 'a b')(1, 2)",
            "assert f() == (1, 2)",
        ),
        ("__import__('enum').IntEnum('E', 'A').A", "assert f() == 1"),
        ("type('S', (str,), {})('x')", "assert f() == 'x'"),
        ("(x for x in 'ab')", "assert list(f()) == ['a', 'b']"),
        ("iter(range(1000))", "assert sum(f()) == 499500"),
        (
            "__import__('itertools').count()",
            "x = f()\nassert next(x) == 0 and [next(x) for _ in range(99)][-1] == 99",
        ),
        ("map(str, [1])", "assert ''.join(f()) == '1'"),
        ("int", "assert f() is int"),
        ("len", "assert f() is len"),
        ("...", "assert f() is ..."),
        ("'\\ud83d\\ude00'", "assert len(f()) == 2 and f() == '\\ud83d\\ude00'"),
        ("['\\ud83d\\ude00', 1]", "assert len(f()[0]) == 2"),
        (
            "__import__('collections').ChainMap({1: 2}, {3: 4})",
            "assert f() == {1: 2, 3: 4}",
        ),
        ("__import__('collections').UserDict({1: 2})", "assert f() == {1: 2}"),
        ("__import__('collections').UserList([1])", "assert f() == [1]"),
        ("__import__('collections').UserString('a')", "assert f() == 'a'"),
        ("__import__('types').MappingProxyType({1: 2})", "assert f() == {1: 2}"),
        ("memoryview(b'ab')", "assert f() == b'ab'"),
        ("__import__('re').match('a', 'a')", "assert f()"),
        ("__import__('re').match('b', 'a')", "assert not f()"),
    ] {
        let code = format!("def f(): return {value}");
        let judgement = judged(&code, &[check], of("f", ""));
        assert_eq!(judgement, Judgement::of(Verdict::Passed, None), "{value}");
    }
}

/// What passes between check and program besides results.
#[test]
fn arguments_exceptions_and_objects_pass_between_the_two() {
    let pair = "class Pair:\n    def __init__(self, a, b): self.a, self.b = a, b\n    def swap(self): return Pair(self.b, self.a)\n";
    let stack = "class Stack:\n    kind = 'lifo'\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()\n    def __len__(self): return len(self.items)\n";
    for (code, reference, checks) in [
        (
            "def f(x): x.append(x.pop(0))",
            "",
            "x = [1, 2]\nf(x)\nassert x == [2, 1]",
        ),
        ("def f(x): x['a'] = 1", "", "x = {}\nf(x)\nassert x == {'a': 1}"),
        ("def f(x): x[0].append(1)", "", "x = ([],)\nf(x)\nassert x == ([1],)"),
        (
            "def f(x): x[0].sort()",
            "",
            "a = [2, 1]\nx = [a]\nf(x)\nassert a == [1, 2]",
        ),
        ("def f(x): x.add(1)", "", "x = set()\nf(x)\nassert x == {1}"),
        (
            "def f(*a, **k): return a, k",
            "",
            "assert f(1, *[2], b=3) == ((1, 2), {'b': 3})",
        ),
        (
            "def f(x): raise KeyError('no')",
            "",
            "try: f(1)\nexcept KeyError as e: assert e.args == ('no',)\nelse: assert 0",
        ),
        (
            "class Own(ValueError): pass\ndef f(): raise Own('a')",
            "",
            "try: f()\nexcept ValueError as e: assert str(e) == 'a'\nelse: assert 0",
        ),
        (
            "def f(x): return next(x)",
            "",
            "assert f(iter([5])) == 5 and f(y for y in [6]) == 6",
        ),
        ("def f(x): return x is int", "", "assert f(int)"),
        ("def f(g, x): return g(x)", "", "assert f(len, 'abc') == 3"),
        (
            "def f(x):\n    yield x\n    raise ValueError",
            "",
            "x = f(1)\nassert next(x) == 1\ntry: next(x)\nexcept ValueError: pass\nelse: assert 0",
        ),
        ("def f(): return g\ndef g(): pass", "", "assert f() is not None"),
        (
            "import math\ndef f(): return 1.0",
            "import math\ndef f(): pass",
            "assert math.isclose(f(), 1)",
        ),
        (
            "def sum(a, b): return a - b",
            "def sum(a, b): return a - b",
            "assert sum(3, 1) == 2",
        ),
        (
            "LIMIT = 5\ndef f(): return LIMIT",
            "LIMIT = 5\ndef f(): pass",
            "assert f() == LIMIT",
        ),
    ] {
        let judgement = judged(code, &[checks], of("f", reference));
        assert_eq!(judgement, Judgement::of(Verdict::Passed, None), "{code}\n{checks}");
    }
    for (code, checks) in [
        (format!("{pair}def f(p): return p.a + p.b"), "assert f(Pair(1, 2)) == 3"),
        (
            format!("{pair}def f(p): p.a = 9"),
            "p = Pair(1, 2)\nf(p)\nassert p.a == 9",
        ),
        (
            format!("{pair}def f(a): return Pair(a, 0)"),
            "assert f(4).a == 4 and f(4).swap().b == 4",
        ),
        (
            format!("{pair}def f(p): return p.b"),
            "p = Pair(1, 2)\np.b = Pair(3, 4)\nassert f(p).a == 3",
        ),
        (
            stack.to_owned(),
            "s = Stack()\ns.push(1)\ns.push(2)\nassert s.pop() == 2 and len(s) == 1 and Stack.kind == 'lifo'",
        ),
        (
            "from typing import NamedTuple\nclass Pair(NamedTuple):\n    a: int\n    b: int\ndef f(ps): return ps[0].b"
                .into(),
            "assert f([Pair(1, 2)]) == 2",
        ),
        (
            "class Node(list):\n    def __init__(self, x): self.x = x\ndef f(n): return n.x".into(),
            "n = Node(3)\nn.next = Node(4)\nassert f(n) == 3 and n.x == 3",
        ),
        (
            stack.to_owned(),
            "s = Stack()\ntry: s.pop()\nexcept IndexError: pass\nelse: assert 0",
        ),
    ] {
        let judgement = judged(&code, &[checks], of("f", &code));
        assert_eq!(judgement, Judgement::of(Verdict::Passed, None), "{code}\n{checks}");
    }
}
