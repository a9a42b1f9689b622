//! What an error says: key, place, remedy.

use super::{Files, problem, variable};
use wmtp::settings::{RESERVED_VARIABLES, Sources};

#[test]
fn errors_say_key_place_and_remedy() {
    let files = Files::new();
    let cases: &[(&str, &[&str])] = &[
        (
            "optim:\n\n  lrate: 1\n",
            &["unknown key `optim.lrate`", "r.yaml line 3", "did you mean `optim.lr`?"],
        ),
        (
            "optimm:\n  lr: 1\n",
            &["unknown key `optimm`", "line 1", "did you mean `optim`?"],
        ),
        (
            "n_heads: 2\n",
            &["unknown key `n_heads`", "did you mean `model.mtp.n_heads`?"],
        ),
        (
            "scorer:\n  kind: rho1\n  topp: 0.1\n",
            &["unknown key `scorer.topp`", "line 3", "`scorer.top_p`?"],
        ),
        (
            "scorer:\n  kind: critik\n",
            &["`scorer.kind`", "line 2", "`critic`", "did you mean `critic`?"],
        ),
        ("scorer: critic\n", &["`scorer`", "{kind: critic}"]),
        (
            "optim:\n  lr: fast\n",
            &["`optim.lr`", "line 2", "must be a finite number", "the text \"fast\""],
        ),
        ("optim:\n  lr: .inf\n", &["`optim.lr`", "must be a finite number"]),
        ("optim: 3\n", &["`optim`", "must be a map", "the number 3"]),
        ("data:\n  pack: 1\n", &["`data.pack`", "true or false"]),
        ("data:\n  seq_len: 1.5\n", &["`data.seq_len`", "whole number", "1.5"]),
        ("data:\n  seq_len: -1\n", &["`data.seq_len`", "0 or more", "-1"]),
        ("data:\n  train_tasks: [601]\n", &["`data.train_tasks`", "a list of 2"]),
        (
            "data:\n  train_tasks: [601, 5000000000]\n",
            &["`data.train_tasks`", "4294967295 or less"],
        ),
        (
            "run:\n  tags: [a, 1]\n",
            &["`run.tags`", "must be a text", "the number 1"],
        ),
        ("model:\n  base: null\n", &["`model.base`", "must be a text", "null"]),
        (
            "loss:\n  weight_by: both\n",
            &["`loss.weight_by`", "`position` or `target`"],
        ),
        ("a: 1\nb: [1,\n", &["r.yaml line", "not valid YAML"]),
        ("- a\n", &["not valid YAML", "found a list of 1"]),
        ("optim:\n  lr: 1\noptim:\n  lr: 2\n", &["line 3", "duplicate"]),
        ("seed: 3\n", &["`seed`", "line 1", "--config"]),
    ];
    for (text, fragments) in cases {
        let path = files.write("r.yaml", text);
        let message = problem(Sources::new(None).recipe(path));
        for fragment in *fragments {
            assert!(
                message.contains(fragment),
                "{text:?} gave {message:?}, without {fragment:?}"
            );
        }
        assert!(!message.contains('\n'), "one sentence: {message:?}");
    }
    let config = files.write("c.yaml", "project: a\noptim: {lr: 1}\n");
    let message = problem(Sources::new(None).config(config));
    assert!(
        message.contains("c.yaml line 2") && message.contains("--recipe"),
        "{message}"
    );
}

#[test]
fn variables_and_set_are_named_in_errors() {
    let message = problem(Sources::new(None).variables(variable("WMTP_OPTIM__LRR", "1")));
    assert_eq!(
        message,
        "unknown key `optim.lrr` in the environment variable WMTP_OPTIM__LRR, did you mean `optim.lr`?"
    );
    let message = problem(Sources::new(None).set("optim.lr=-1"));
    assert_eq!(message, "`optim.lr` must be above 0 (set in --set optim.lr=-1)");
    for bad in ["optim.lr", "=1", "a..b=1", ".=1", "optim lr=1"] {
        assert!(problem(Sources::new(None).set(bad)).contains("key.path=value"), "{bad}");
    }
    for name in RESERVED_VARIABLES {
        let sources = Sources::new(None).variables(variable(name, "x"));
        assert!(sources.load().is_ok(), "{name} is reserved");
    }
    assert!(
        Sources::new(None).variables(variable("OTHER__X", "1")).load().is_ok(),
        "not ours"
    );
}
