//! What a verified pass is worth: honest programs are verified, and programs that solve nothing are not, however
//! their checks come to hold. `eval` has the everyday of it.

#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod changing;
mod cheats;
mod honest;
#[path = "../eval/runner.rs"]
mod runner;

use runner::runner;
use wmtp::eval::{
    Judge, Judgement,
    sandbox::Limits,
    verdict::{Checked, Names},
};

const CHECKS: [&str; 2] = ["assert double(2) == 4", "assert double(5) == 10"];

fn judged(code: &str, checks: &[&str], names: Names<'_>) -> Judgement {
    let limits = Limits::default();
    let checked = Checked { code, checks, names };
    Judge::new(runner(), &limits).check(&checked).unwrap()
}

fn of<'a>(entry_point: &'a str, reference: &'a str) -> Names<'a> {
    Names {
        entry_point: Some(entry_point),
        reference,
        given: "",
    }
}
