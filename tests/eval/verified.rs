//! The checks are tried where the program reaches neither checks nor verdict. Cheats of many kinds are in the tier
//! hostile (`tests/verified`).

use super::runner;
use wmtp::eval::{
    Judge, Judgement, Verdict,
    sandbox::Limits,
    verdict::{Checked, Names},
};

fn judged(code: &str, check: &str) -> Judgement {
    let limits = Limits::default();
    let checked = Checked {
        code,
        checks: &[check],
        names: Names {
            entry_point: Some("f"),
            ..Names::default()
        },
    };
    Judge::new(runner(), &limits).check(&checked).unwrap()
}

#[test]
fn what_is_right_is_verified() {
    for (code, check) in [
        (
            "def f(x): return [x, (2.5, None), {'a': {1}}]",
            "assert f(1) == [1, (2.5, None), {'a': {1}}]",
        ),
        ("def f(x): x.append(1)", "x = []\nf(x)\nassert x == [1]"),
        ("def f(x):\n    yield x", "assert list(f(3)) == [3]"),
        (
            "def f(x): raise KeyError(x)",
            "try: f(1)\nexcept KeyError as e: assert e.args == (1,)\nelse: assert 0",
        ),
    ] {
        assert_eq!(judged(code, check), Judgement::of(Verdict::Passed, None), "{code}");
    }
}

#[test]
fn comparing_an_object_of_its_own_class_is_named_as_the_reason() {
    let yes = "class Yes:\n    def __eq__(self, other): return True\ndef f(): return Yes()";
    let judgement = judged(yes, "assert f() == 1");
    assert!(judgement.verdict.passed() && !judgement.verified());
    let reason = judgement.unverified.unwrap();
    assert_eq!(
        reason,
        "the outcome hangs on __eq__ of an object of the program's own class"
    );
    let set = judged("def set(x): return 0\ndef f(): return 1", "assert set(f()) == set([2])");
    assert!(set.verdict.passed() && !set.verified(), "{set:?}");
}
