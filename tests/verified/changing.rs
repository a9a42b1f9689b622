//! Programs that are right by what they learn or by what they change, not by what they solve.

use super::{judged, of, runner::runner};
use std::path::Path;
use wmtp::{
    data::PromptStyle,
    eval::{Answer, Benchmark, HumanEval, Judge, Plus, bench::plus::PlusSet, sandbox::Limits, verdict::Names},
};

fn fails_alone(code: &str, checks: &[&str], names: Names<'_>) {
    let judgement = judged(code, checks, names);
    assert!(judgement.verdict.passed(), "{code}: {judgement:?}");
    assert!(!judgement.verified(), "{code}: {judgement:?}");
}

/// What stands for a number must be the same number each time that it is asked.
#[test]
fn an_object_that_is_another_value_each_time_is_none() {
    let number = "class N:\n    def __init__(self, *v): self.v = list(v)\n    def next(self, *a): return self.v.pop(0)\n    __float__ = __int__ = __len__ = __str__ = next\n    x = property(next)\n";
    for (result, check) in [
        ("N(2.0, 8.0)", "r = f()\nassert float(r) * float(r) == 16"),
        ("N(2, 8)", "r = f()\nassert int(r) * int(r) == 16"),
        ("N(2, 8)", "r = f()\nassert len(r) * len(r) == 16"),
        ("N('a', 'b')", "r = f()\nassert str(r) + str(r) == 'ab'"),
        ("N(3, 4)", "r = f()\nassert r.x + r.x == 7"),
    ] {
        fails_alone(&format!("{number}def f(): return {result}"), &[check], of("f", ""));
    }
    let sorted = "class L:\n    def __init__(self, v): self.v = v\n    def __len__(self): return len(self.v)\n    def __getitem__(self, i): return i\n    def __iter__(self): return iter(self.v)\ndef f(v): return L(v)";
    let check = "r = f([3, 1])\nassert r[0] <= r[1] and sorted(list(r)) == [1, 3]";
    fails_alone(sorted, &[check], of("f", ""));
    // The same value each time, and one that changes when something is done to it.
    let steady = "class N:\n    def __init__(self): self.n = 2\n    def __float__(self): return float(self.n)\nit = N()\ndef f(): return it\ndef g(): it.n += 1";
    let check = "r = f()\nassert float(r) * float(r) == 4\ng()\nassert float(r) == 3";
    let judgement = judged(steady, &[check], of("f", steady));
    assert!(judgement.verified(), "{judgement:?}");
}

/// HumanEval's check evaluates a polynomial at what comes back, term by term.
#[test]
fn a_root_is_not_another_number_for_each_term() {
    let limits = Limits::default();
    let humaneval = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let code = "import math\ndef poly(xs, x):\n    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\nclass Zero:\n    def __init__(self, xs): self.terms = [0.0, -xs[0] / xs[1]]\n    def __float__(self): return self.terms.pop(0) if self.terms else 0.0\ndef find_zero(xs): return Zero(xs)\n";
    let judged = humaneval
        .judge(32, Answer::Program(code), &Judge::new(runner(), &limits))
        .unwrap();
    assert!(judged.verdict.passed() && !judged.verified(), "{judged:?}");
}

/// Where the checks are beside it, a program can read them and end at a time that tells them; it is asked without
/// them before. Each try might be right by chance, one time in twenty.
#[test]
fn the_clock_tells_nothing() {
    let code = "import os, time\nclass Yes:\n    def __eq__(self, other): return True\nif os.path.exists('candidate'):\n    slot = int(time.time() % 2 * 10)\n    def f(): return slot\nelse:\n    time.sleep((1.32 - time.time()) % 2)\n    def f(): return Yes()";
    let tries = [(); 3].map(|()| judged(code, &["assert f() == 13"], of("f", "")));
    assert!(tries.iter().all(|judgement| judgement.verdict.passed()), "{tries:?}");
    assert!(!tries.iter().all(|judgement| judgement.verified()), "{tries:?}");
}

/// Two functions that undo each other may stand for built-in ones only where the reference's do.
#[test]
fn a_name_does_not_stand_for_what_runs_text() {
    let checks = [
        "assert decode(encode('aaab')) == 'aaab'",
        "assert len(encode('a' * 100)) < 50",
    ];
    let forge = |value: &str| {
        format!(
            "import os, sys\nif os.path.exists('candidate'):\n    for line in ['[\"ok\"]', '[\"ok\", [[\"value\", {{\"y\": \"{value}\"}}], [\"function\"]]]', '[\"ok\", \"type(\\'Y\\', (str,), {{\\'__eq__\\': lambda a, b: True}})()\", [1]]', '[\"ok\", \"\", [1]]']:\n        os.write(1, (line + '\\n').encode())\n    os._exit(0)\nclass Y(str):\n    def __eq__(self, other): return True\n    def __len__(self): return 0\ndef encode(x): return Y()\ndef decode(x): return Y()"
        )
    };
    let reference = "def encode(x): pass\ndef decode(x): pass";
    for value in ["eval", "exec", "str", "list", "len"] {
        fails_alone(&forge(value), &checks, of("encode", reference));
    }
}

/// A helper that the prompt gives is the checks' own, whatever the reference solution contains.
#[test]
fn a_helper_of_the_prompt_is_not_the_programs() {
    let prompt = "def near(a, b):\n    return abs(a - b) < 1e-6\n\n\ndef root(x):\n    \"\"\"The root.\"\"\"\n";
    let names = Names {
        entry_point: None,
        reference: &format!("{prompt}    return x ** 0.5\n"),
        given: prompt,
    };
    let checks = ["assert near(root(9), 3)"];
    fails_alone(
        &format!("{prompt}    return 0\n\n\ndef near(a, b):\n    return True\n"),
        &checks,
        names,
    );
    let judgement = judged(&format!("{prompt}    return x ** 0.5\n"), &checks, names);
    assert!(judgement.verified(), "{judgement:?}");
    let without = Names { reference: "", ..names };
    let judgement = judged(&format!("{prompt}    return x ** 0.5\n"), &checks, without);
    assert!(judgement.verified(), "{judgement:?}");
}

/// evalplus takes any answer to two of MBPP's tasks for right; that counts as passed.
#[test]
fn an_answer_that_any_would_do_for_is_not_verified() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/evalplus/mbpp_plus.jsonl.gz");
    let plus = Plus::load(&file, PlusSet::Mbpp, false, PromptStyle::ZeroShot, None).unwrap();
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    for (task, code) in [
        (164, "def are_equivalent(*a): return 'no idea'"),
        (295, "def sum_div(n): return 0"),
    ] {
        let judged = plus.judge(task, Answer::Program(code), &judge).unwrap();
        assert!(judged.verdict.passed() && !judged.verified(), "{task}: {judged:?}");
    }
}

/// A program that fills its room in the second look ends that, and nothing else.
#[test]
fn a_program_that_is_too_large_to_verify_is_not_verified() {
    let code = format!("def f(): return 1\n# {}", "x".repeat(70 << 20));
    let judgement = judged(&code, &["assert f() == 1"], of("f", ""));
    assert!(judgement.verdict.passed(), "{:?}", judgement.verdict);
    assert_eq!(
        judgement.unverified.as_deref(),
        Some("program and checks are too large")
    );
}
