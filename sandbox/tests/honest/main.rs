//! Honest programs work as they would anywhere, limits end what passes them, and a host that lacks
//! a layer is refused.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod pair;
mod refusal;
mod work;

use std::sync::OnceLock;
use wmtp_sandbox::{Limits, Outcome, Program, Runner, Sandbox, Status};

/// One sandbox for all tests.
fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::with(&common::options()).expect("these tests need every layer"))
}

fn run_with(source: &str, stdin: &[u8], limits: &Limits) -> Outcome {
    sandbox().run(&Program { source, stdin }, limits).unwrap()
}

fn run(source: &str) -> Outcome {
    run_with(source, b"", &Limits::default())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end()
}

/// Standard output of a program that has to end well.
fn printed(source: &str, stdin: &[u8]) -> String {
    let outcome = run_with(source, stdin, &Limits::default());
    assert_eq!(outcome.status, Status::Exit(0), "{}", text(&outcome.stderr));
    text(&outcome.stdout).to_owned()
}

#[test]
fn again_as_an_ordinary_user() {
    common::again_as_an_ordinary_user();
}

#[test]
fn again_behind_bubblewrap() {
    common::again_behind_bubblewrap();
}
