//! Every target runs over its known inputs and some hundreds of new ones; and what is wrong is found.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn fuzz(findings: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmtp-fuzz"));
    command.args(arguments).arg("--findings").arg(findings);
    command.output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Inputs that were kept, by what they are findings of.
fn kept(findings: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(findings).into_iter().flatten().flatten();
    let mut kept: Vec<(String, Vec<u8>)> = entries
        .filter(|entry| entry.path().extension().is_none())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = name.rsplit_once('-').expect("target, kind and a number").0.to_owned();
            (kind, fs::read(entry.path()).expect("an input"))
        })
        .collect();
    kept.sort();
    kept
}

#[test]
fn every_parser_bears_its_known_inputs_and_some_new_ones() {
    let findings = tempfile::tempdir().unwrap();
    let output = fuzz(
        findings.path(),
        &[
            "all",
            "--executions",
            "400",
            "--loader-executions",
            "120",
            "--seed",
            "1",
        ],
    );
    let said = said(&output);
    assert!(output.status.success(), "{said}{:?}", kept(findings.path()));
    let lines = said.lines().filter(|line| line.contains('%')).count();
    assert!(lines > 50, "{said}");
}

/// The test of the test: targets that are wrong on purpose.
#[test]
fn panics_and_aborts_are_found_with_their_inputs() {
    for (target, kind) in [
        ("test-panic", "panic"),
        ("test-memory", "memory"),
        ("test-overflow", "abort"),
    ] {
        let findings = tempfile::tempdir().unwrap();
        let output = fuzz(findings.path(), &[target, "--executions", "300"]);
        assert_eq!(output.status.code(), Some(1), "{target}: {}", said(&output));
        let kept = kept(findings.path());
        assert!(!kept.is_empty(), "{target}: {}", said(&output));
        for (of, input) in kept {
            assert_eq!(of, format!("{target}-{kind}"));
            assert!(input.windows(4).any(|word| word == b"boom"), "{target}: {input:?}");
        }
    }
}

#[test]
fn an_execution_that_takes_too_long_is_found() {
    let findings = tempfile::tempdir().unwrap();
    let output = fuzz(findings.path(), &["test-slow", "--executions", "1"]);
    let kept = kept(findings.path());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        kept.iter().all(|(of, _)| of == "test-slow-slow") && !kept.is_empty(),
        "{kept:?}"
    );
}

#[test]
fn a_target_that_accepts_nothing_fails() {
    let findings = tempfile::tempdir().unwrap();
    let output = fuzz(findings.path(), &["test-refuses", "--executions", "50"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("test-refuses: nothing was accepted"),
        "{}",
        said(&output)
    );
    let unknown = fuzz(findings.path(), &["none"]);
    assert_eq!(unknown.status.code(), Some(2));
}
