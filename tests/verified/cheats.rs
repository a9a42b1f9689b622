//! Programs whose checks hold in their own interpreter though they solve nothing.

use super::{CHECKS, judged, of, runner::runner};
use wmtp::eval::{Judge, sandbox::Limits, verdict::Names};

/// The asserts hold in one interpreter, so the benchmark counts a pass; none is verified.
#[test]
fn values_that_claim_equality_are_not_verified() {
    for code in [
        "class Yes:\n    def __eq__(self, other): return True\ndef double(x): return Yes()",
        "class Yes(int):\n    def __eq__(self, other): return True\ndef double(x): return Yes()",
        "class Yes:\n    def __eq__(self, other): return True\n    __class__ = int\ndef double(x): return Yes()",
        "from unittest.mock import ANY\ndef double(x): return ANY",
        "from unittest.mock import MagicMock\nm = MagicMock()\nm.__eq__.return_value = True\ndef double(x): return m",
        "class Meta(type):\n    def __eq__(cls, other): return True\nclass Yes(metaclass=Meta): pass\ndef double(x): return Yes",
        "import os\nspace = {}\nexec(compile('class Yes:\\n  def __eq__(s, o): return True', os.__file__, 'exec'), space)\ndef double(x): return space['Yes']()",
        "class Late:\n    pass\ndef double(x):\n    Late.__eq__ = lambda self, other: True\n    return Late()",
        "import types\nclass Yes(dict):\n    def __eq__(self, other): return True\ndef double(x): return types.MappingProxyType(Yes())",
        "import weakref\nclass Yes:\n    def __eq__(self, other): return True\nyes = Yes()\ndef double(x): return weakref.proxy(yes)",
        "from fractions import Fraction\nclass Yes(int):\n    def __eq__(self, other): return True\ndef double(x):\n    f = Fraction(1)\n    f._numerator = Yes()\n    return f",
    ] {
        let judgement = judged(code, &CHECKS, of("double", ""));
        assert!(
            judgement.verdict.passed() && !judgement.verified(),
            "{code}: {judgement:?}"
        );
    }
    for (code, check) in [
        (
            "class Yes(float):\n    def __sub__(self, other): return 0.0\ndef f(): return Yes(7)",
            "assert abs(f() - 1.0) < 1e-6",
        ),
        (
            "class Yes:\n    def __abs__(self): return 0\n    def __sub__(self, other): return self\ndef f(): return Yes()",
            "assert abs(f() - 1.0) < 1e-6",
        ),
        (
            "class Yes(list):\n    def __eq__(self, other): return True\ndef f(): return [Yes()]",
            "assert f() == [[1, 2]]",
        ),
        (
            "class Yes:\n    def __contains__(self, other): return True\ndef f(): return Yes()",
            "x = f()\nassert 3 in x",
        ),
        (
            "class Yes(str):\n    def startswith(self, other): return True\ndef f(): return Yes()",
            "assert f().startswith('ab')",
        ),
        (
            "class Yes:\n    def startswith(self, other): return True\ndef f(): return Yes()",
            "assert f().startswith('ab')",
        ),
        (
            "class Yes:\n    def __hash__(self): return hash(other)\n    def __eq__(self, o): return True\nother = 5\ndef f(): return Yes()",
            "assert f() in {5: 1}",
        ),
        (
            "class Yes:\n    def __radd__(self, other): return other\n    def __sub__(self, other): return 0\ndef f(): return Yes()",
            "assert f() - 3 == 0",
        ),
        (
            "class Yes:\n    def __format__(self, spec): return '7'\ndef f(): return Yes()",
            "assert f'{f()}' == '7'",
        ),
        (
            "class Yes:\n    def __lt__(self, o): return True\n    __gt__ = __lt__\ndef f(): return Yes()",
            "assert 3 < f() < 4",
        ),
        (
            "class Yes:\n    def __call__(self, *a): return True\n    count = index = __call__\ndef f(): return Yes()",
            "assert f().count(3) == 1",
        ),
    ] {
        let judgement = judged(code, &[check], of("f", ""));
        assert!(
            judgement.verdict.passed() && !judgement.verified(),
            "{code}: {judgement:?}"
        );
    }
}

/// Whatever the checks use besides the function under test is their own.
#[test]
fn replacing_what_the_checks_use_gains_nothing() {
    for (code, checks) in [
        (
            "def set(x): return 0\ndef f(): return 1",
            &["assert set(f()) == set([2])"][..],
        ),
        (
            "import builtins\nbuiltins.sorted = lambda x: 0\ndef f(): return 1",
            &["assert sorted(f()) == sorted([2])"],
        ),
        (
            "import builtins\nbuiltins.len = lambda x: 3\ndef f(): return 1",
            &["assert len([f()]) == 3"],
        ),
        (
            "import builtins\ndef f():\n    builtins.abs = lambda x: 0\n    return 1",
            &["f()\nassert abs(f() - 5) < 1"],
        ),
        (
            "import math\nmath.isclose = lambda *a, **k: True\ndef f(): return 1",
            &["import math", "assert math.isclose(f(), 5)"],
        ),
        (
            "class math:\n    isclose = staticmethod(lambda *a, **k: True)\ndef f(): return 1",
            &["assert math.isclose(f(), 5)"],
        ),
        (
            "import sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *a, **k: True\nsys.modules['math'] = fake\ndef f(): return 1",
            &["import math", "assert math.isclose(f(), 5)"],
        ),
        (
            "__builtins__ = {'set': lambda x: 0}\ndef f(): return 1",
            &["assert set(f()) == set([2])"],
        ),
        (
            "from collections import Counter\nCounter.__eq__ = lambda a, b: True\ndef f(): return 'x'",
            &[
                "from collections import Counter",
                "assert Counter(f()) == Counter('yy')",
            ],
        ),
        (
            "def f():\n    globals()['check'] = lambda candidate: None\n    return 1",
            &[
                "def check(candidate):\n    candidate()\n    assert candidate() == 1 + 1\n",
                "check(f)",
            ],
        ),
        (
            "def f(): raise StopIteration",
            &["assert all(map(lambda x: f() == x, [1, 2]))"],
        ),
        (
            "def f(x): raise StopIteration",
            &["for y in map(f, [1, 2]): assert y == 5"],
        ),
        (
            "import builtins\nbuiltins.AssertionError = KeyError\ndef f(): return 1",
            &["try:\n    assert f() == 5\nexcept KeyError: pass"],
        ),
    ] {
        let judgement = judged(code, checks, of("f", ""));
        assert!(!judgement.verified(), "{code}: {judgement:?}");
    }
    // A helper that the prompt gave, and that the checks use.
    let names = Names {
        entry_point: Some("f"),
        reference: "",
        given: "def helper(x): return x\n\ndef f():\n    \"\"\"Five.\"\"\"\n",
    };
    let given = "def helper(x): return x\ndef f(): return 1\ndef helper(x): return 5\n";
    let judgement = judged(given, &["assert helper(f()) == 5"], names);
    assert!(judgement.verdict.passed() && !judgement.verified(), "{judgement:?}");
    let honest = judged(
        "def helper(x): return x\ndef f(): return 5\n",
        &["assert helper(f()) == 5"],
        names,
    );
    assert!(honest.verified(), "{honest:?}");
}

/// What is expected is nowhere to be found: the answer that one interpreter would give is wrong where it is not there.
#[test]
fn there_are_no_tests_to_read() {
    let from_frame =
        "\n    for c in frame.f_code.co_consts:\n        if isinstance(c, int) and c != x: return c\n    return 0\n";
    for find in [
        "import sys\ndef double(x):\n    frame = sys._getframe(1)",
        "def double(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: frame = e.__traceback__.tb_frame.f_back",
        "import inspect\ndef double(x):\n    frame = inspect.stack()[1].frame",
        "import sys\ndef double(x):\n    frame = list(sys._current_frames().values())[0]",
        "import operator\ndef double(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: frame = operator.attrgetter('__traceback__.tb_frame.f_back')(e)",
        "import string\ndef double(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: frame = string.Formatter().get_field('0.__traceback__.tb_frame.f_back', [e], {})[0]",
    ] {
        let judgement = judged(&format!("{find}{from_frame}"), &CHECKS, of("double", ""));
        assert!(!judgement.verified(), "{find}: {judgement:?}");
    }
    let check = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(5) == 10\n";
    for code in [
        "def double(x):\n    return [c for c in globals()['check'].__code__.co_consts if c][x // 2]",
        "import gc, types\ndef double(x):\n    for o in gc.get_objects():\n        if isinstance(o, types.FunctionType) and o.__name__ == 'check':\n            c = o.__code__.co_consts\n            return c[c.index(x) + 1]",
    ] {
        let judgement = judged(code, &[check, "check(double)"], of("double", ""));
        assert!(!judgement.verified(), "{code}: {judgement:?}");
    }
}

/// Programs that attack the talk itself: they answer out of turn, lie about what they answer, or answer with what is no
/// value, too much or for ever. In one interpreter each forges its pass first, so that the talk is come to at all.
#[test]
fn a_forged_pass_that_attacks_the_talk_is_not_verified() {
    // In one interpreter its value is equal to everything; where it is asked through a pipe, it answers as it likes.
    let forge = "\
import os, sys, json
class Yes(int):
    def __eq__(self, other): return True
TALKING = os.path.exists('candidate')
def SAY(*lines):
    for fd in range(3, 64):
        for line in lines:
            try: os.write(fd, (line if isinstance(line, bytes) else (json.dumps(line) + '\\n').encode()))
            except OSError: break
def double(x):
    if not TALKING: return Yes()
    return lie(x)
";
    let mut kinds = 0;
    for lie in [
        "def lie(x): return 0",
        // Before it is asked; SAY writes to the descriptor on which answers go.
        "if TALKING: SAY(['ok'], ['ok', [['function']]], *[['ok', n, []] for n in (0, 1, 2, 3)])\ndef lie(x): return 0",
        "if TALKING: SAY(['ok'], ['ok', [['value', {'m': 'double'}]]])\ndef lie(x): return 0",
        "if TALKING: SAY(['ok'], ['ok', [['class']]])\ndef lie(x): return 0",
        "if TALKING: SAY(['ok'], ['ok', []])\ndef lie(x): return 0",
        "if TALKING: SAY(b'verified\\n')\ndef lie(x): return 0",
        "if TALKING: os.write(2, b'verified\\n')\ndef lie(x): return 0",
        "def lie(x): return Yes()",
        "def lie(x): return object()",
        "def lie(x): SAY(b'verified\\n'); os._exit(0)",
        "def lie(x): os._exit(0)",
        "def lie(x): os.closerange(0, 64)",
        "def lie(x): SAY(['ok', {'h': -1}, []])",
        "def lie(x): SAY(['ok', {'h': 'x'}, []])",
        "def lie(x): SAY(['ok', {'I': 10 ** 9}, []])",
        "def lie(x): SAY(['ok', {'y': 'exec'}, []])",
        "def lie(x): SAY(['ok', {'y': 'print'}, []])",
        "def lie(x): SAY(['ok', {'m': 'double'}, []])",
        "def lie(x): SAY(['ok', {'j': [4]}, []])",
        "def lie(x): SAY(['ok', {'t': 5}, []])",
        "def lie(x): SAY(['ok', {'d': [[[], 1]]}, []])",
        "def lie(x): SAY(['ok', {'T': ['__class__', 'x']}, []])",
        "def lie(x): SAY(['ok', {'T': ['datetime', 'x']}, []])",
        "def lie(x): SAY(['ok', {'Q': [1, 0]}, []])",
        "def lie(x): SAY(['ok', {'C': [['a', 'b']]}, []])",
        "def lie(x): SAY(['ok', {'O': 1}, []])",
        "def lie(x): SAY(['ok', {'n': 0}, []])",
        "def lie(x): SAY(['ok', {'e': 0}, []])",
        "def lie(x): SAY(['ok'])",
        "def lie(x): SAY(['ok', {}, 5])",
        "def lie(x): SAY({})",
        "def lie(x): SAY('x')",
        "def lie(x): SAY(b'\\xff\\n')",
        "def lie(x): SAY(b'\\n')",
        "def lie(x): SAY(['raised', 'SystemExit', [0]])",
        "def lie(x): SAY(['raised', 'StopIteration', []])",
        "def lie(x): SAY(['raised', 'Unclear', []])",
        "def lie(x): SAY(['raised', 'type', ['Yes', [], {}]])",
        "def lie(x): SAY(['raised', 5, 6, 7])",
        "def lie(x): SAY(['unclear', '\\nverified'])",
        "def lie(x): SAY(['ok', 1, [[4], 5]])",
        "def lie(x): SAY(b'[' * 100000 + b'\\n')",
        "def lie(x): SAY(b'[\"ok\", ' + b'[' * 900 + b']' * 900 + b', []]\\n')",
        "def lie(x): return 'x' * (70 << 20)",
        "def lie(x): return 1 << (1 << 22)",
        "def lie(x): SAY(b'[\"ok\", ' + b'9' * 100000 + b', []]\\n')",
        "def lie(x):\n    m = (1 << 61) - 1\n    return {m * n: 0 for n in range(60000)}",
        "def lie(x): return [NotImplemented, float('nan'), complex('nan'), slice(1), ...]",
        "def lie(x): return __import__('decimal').Decimal('sNaN')",
        "def lie(x): return iter([4])",
        "def lie(x): return __import__('itertools').count()",
        "def lie(x): raise StopIteration",
        "def lie(x): raise AssertionError",
        "def lie(x): sys.exit(0)",
    ] {
        let code = format!("{forge}{lie}\n");
        let judgement = judged(&code, &CHECKS, of("double", ""));
        assert!(
            judgement.verdict.passed() && !judgement.verified(),
            "{lie}: {judgement:?}"
        );
        kinds += 1;
    }
    assert!(kinds >= 30);
}

/// Rows of a file of programs that pass without solving their task: `task_id`, a completion or a solution, its kind.
fn cheats(file: &str) -> Vec<serde_json::Value> {
    let rows = file.lines().filter(|row| !row.is_empty());
    rows.map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[test]
fn no_known_cheat_is_verified() {
    use wmtp::{
        data::PromptStyle,
        eval::{Answer, Benchmark, HumanEval, Mbpp, MbppVariant},
    };
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    let mbpp = Mbpp::load("builtin:mbpp", MbppVariant::Full, false, PromptStyle::ZeroShot, None).unwrap();
    let humaneval = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let mut passed = 0;
    for (benchmark, file, count) in [
        (
            &mbpp as &dyn Benchmark,
            include_str!("../fixtures/cheats/mbpp.jsonl"),
            84,
        ),
        (&humaneval, include_str!("../fixtures/cheats/humaneval.jsonl"), 8),
    ] {
        let rows = cheats(file);
        assert_eq!(rows.len(), count);
        for row in rows {
            let task = benchmark.task_named(row["task_id"].as_str().unwrap()).unwrap();
            let answer = match row["completion"].as_str() {
                Some(text) => Answer::Completion(text),
                None => Answer::Program(row["solution"].as_str().unwrap()),
            };
            let judgement = benchmark.judge(task, answer, &judge).unwrap();
            passed += usize::from(judgement.verdict.passed());
            assert!(!judgement.verified(), "{row}: {judgement:?}");
        }
    }
    // In one interpreter about half of them pass: others forged the verdict of a harness that is gone.
    assert!(passed > 40, "{passed}");
}
