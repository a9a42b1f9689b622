//! MBPP's own answers: every reference solution passes, and programs with a verified label get it.

use super::{mbpp_file, runner};
use rayon::prelude::*;
use serde::Deserialize;
use wmtp::{
    data::{Problem, mbpp},
    eval::{judge_mbpp, sandbox::Limits},
};

#[derive(Deserialize)]
struct Pair {
    task_id: u32,
    code: String,
    is_correct: bool,
    outcome: String,
}

fn problems() -> Vec<Problem> {
    mbpp::load("builtin:mbpp").unwrap()
}

#[test]
fn all_974_reference_solutions_pass() {
    let problems = problems();
    assert_eq!(problems.len(), 974);
    let failed: Vec<String> = problems
        .par_iter()
        .filter_map(|problem| {
            let verdict = judge_mbpp(problem, &problem.code, true, runner(), &Limits::default()).unwrap();
            (!verdict.passed()).then(|| format!("{}: {verdict}", problem.task_id))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Judges every `step`-th labelled program; returns how many there were and who disagreed. The
/// labels were made with the challenge asserts included.
fn disagreements(step: usize) -> (usize, Vec<String>) {
    let problems = problems();
    let rows = mbpp_file("mbpp_pairs.jsonl");
    let pairs: Vec<Pair> = rows
        .lines()
        .step_by(step)
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    let wrong = pairs
        .par_iter()
        .filter_map(|pair| {
            let problem = problems.iter().find(|problem| problem.task_id == pair.task_id).unwrap();
            let verdict = judge_mbpp(problem, &pair.code, true, runner(), &Limits::default()).unwrap();
            (verdict.passed() != pair.is_correct).then(|| format!("{} ({}): {verdict}", pair.task_id, pair.outcome))
        })
        .collect();
    (pairs.len(), wrong)
}

#[test]
fn every_twentieth_labelled_program_gets_its_label() {
    let (judged, wrong) = disagreements(20);
    assert_eq!(judged, 235);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
#[ignore = "runs 4,700 programs, minutes: cargo test --release --test eval -- --ignored labelled"]
fn all_4700_labelled_programs_get_their_labels() {
    let (judged, wrong) = disagreements(1);
    assert_eq!(judged, 4700);
    assert!(wrong.is_empty(), "{} disagree: {wrong:?}", wrong.len());
}
