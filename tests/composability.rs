//! `docs/composability.md` against the program: every command of its tables is refused with the error that
//! the table quotes, and the tests that it names exist.

mod common;

use common::wmtp;
use std::{fs, path::Path};

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/composability.md");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The cells of every table row whose first cell is a command.
fn commands(page: &str) -> Vec<(&str, &str)> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `wmtp ")?.strip_suffix(" |")?.split_once("` | "))
        .collect()
}

/// The arguments of a command line; spaces inside braces and brackets separate nothing.
fn arguments(line: &str) -> Vec<String> {
    let mut depth = 0;
    let words = line.split(|c: char| {
        depth += i32::from("{[".contains(c)) - i32::from("}]".contains(c));
        c == ' ' && depth == 0
    });
    words.map(str::to_owned).collect()
}

/// The error without the place of the setting, and with `HOME` for the directory of the test.
fn refusal(line: &str) -> String {
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = wmtp(home.path())
        .env("HOME", home.path())
        .args(arguments(line))
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "wmtp {line}: {stderr}");
    let error = stderr.lines().find_map(|line| line.strip_prefix("error: "));
    let error = error.unwrap_or_else(|| panic!("wmtp {line}: no error in {stderr}"));
    let sentence = error.split(" (set in ").next().unwrap_or_default();
    sentence.replace(&home.path().display().to_string(), "HOME")
}

#[test]
fn every_command_of_the_page_is_refused_with_its_error() {
    let page = page();
    let commands = commands(&page);
    assert!(commands.len() >= 30, "{} commands", commands.len());
    let differing: Vec<String> = commands
        .iter()
        .filter_map(|(line, error)| {
            let found = refusal(line);
            // Markdown reads `<URI>` as HTML unless it is escaped.
            (found != error.replace("\\<", "<")).then(|| format!("wmtp {line}\n  page:    {error}\n  program: {found}"))
        })
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
