//! The benchmarks' own answers: every reference solution passes and is verified, and programs
//! with a verified label get it.

use super::runner;
use rayon::prelude::*;
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};
use wmtp::{
    data::PromptStyle,
    eval::bench::{
        contest,
        mbpp::{self, Problem},
    },
    eval::{Answer, Benchmark, HumanEval, Judge, Judgement, Verdict, check_contest, check_mbpp, sandbox::Limits},
};

fn mbpp_file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/mbpp").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[derive(Deserialize)]
struct Pair {
    task_id: u32,
    code: String,
    is_correct: bool,
    outcome: String,
}

fn clean_pass(judgement: &Judgement) -> bool {
    judgement.verified()
}

/// Reference solutions use their time by themselves; what a busy machine adds is none of theirs.
fn patient() -> Limits {
    Limits {
        wall: Duration::from_secs(60),
        ..Limits::default()
    }
}

fn failed_references(problems: &[Problem]) -> Vec<String> {
    let limits = patient();
    let judge = Judge::new(runner(), &limits);
    problems
        .par_iter()
        .filter_map(|problem| {
            let judgement = check_mbpp(problem, &problem.code, true, &judge).unwrap();
            (!clean_pass(&judgement)).then(|| format!("{}: {judgement:?}", problem.task_id))
        })
        .collect()
}

#[test]
fn all_974_reference_solutions_of_mbpp_pass() {
    let problems = mbpp::load("builtin:mbpp").unwrap();
    assert_eq!(problems.len(), 974);
    let failed = failed_references(&problems);
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn all_427_reference_solutions_of_the_sanitized_set_pass() {
    let problems = mbpp::load_sanitized("builtin:mbpp", false).unwrap();
    assert_eq!(problems.len(), 427);
    let failed = failed_references(&problems);
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn all_164_reference_solutions_of_humaneval_pass_as_completion_and_as_program() {
    let limits = patient();
    let judge = Judge::new(runner(), &limits);
    let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let problems = wmtp::eval::bench::humaneval::load("builtin:humaneval", false).unwrap();
    assert_eq!(problems.len(), 164);
    let failed: Vec<String> = problems
        .par_iter()
        .filter_map(|problem| {
            let task = problem.number().unwrap();
            let program = format!("{}{}", problem.prompt, problem.canonical_solution);
            let judged = [
                Answer::Completion(&problem.canonical_solution),
                Answer::Program(&program),
            ]
            .map(|answer| {
                assert!(benchmark.is_reference(task, answer).unwrap());
                benchmark.judge(task, answer, &judge).unwrap()
            });
            (!judged.iter().all(clean_pass)).then(|| format!("{}: {judged:?}", problem.task_id))
        })
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// An assistant's whole function is a completion, too.
#[test]
fn a_function_written_anew_after_the_prompt_is_judged() {
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let anew = "\ndef truncate_number(number):\n    return number % 1.0\n";
    let judged = benchmark.judge(2, Answer::Completion(anew), &judge).unwrap();
    assert!(clean_pass(&judged), "{judged:?}");
    let empty = benchmark.judge(2, Answer::Completion(""), &judge).unwrap();
    assert!(!empty.verdict.passed());
}

/// Judges every `step`-th labelled program; returns how many there were and who disagreed. The
/// labels were made with the challenge asserts included.
fn disagreements(step: usize) -> (usize, Vec<String>) {
    let problems = mbpp::load("builtin:mbpp").unwrap();
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
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
            let judgement = check_mbpp(problem, &pair.code, true, &judge).unwrap();
            let agrees = judgement.verdict.passed() == pair.is_correct && judgement.verified() == pair.is_correct;
            (!agrees).then(|| format!("{} ({}): {judgement:?}", pair.task_id, pair.outcome))
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
#[ignore = "runs 4,700 programs, minutes: ci/labels"]
fn all_4700_labelled_programs_get_their_labels() {
    let (judged, wrong) = disagreements(1);
    assert_eq!(judged, 4700);
    assert!(wrong.is_empty(), "{} disagree: {wrong:?}", wrong.len());
}

/// Judges the labelled programs of every `step`-th contest problem of both splits. Returns how many
/// correct and incorrect ones there were and who disagreed.
fn contest_disagreements(step: usize) -> (usize, usize, Vec<String>) {
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    let mut programs = Vec::new();
    let splits = ["valid", "test"].map(|split| contest::load("builtin:contest", split, false).unwrap());
    for problem in splits.iter().flatten().step_by(step) {
        programs.extend(problem.solutions.python().map(|code| (problem, code, true)));
        programs.extend(problem.incorrect_solutions.python().map(|code| (problem, code, false)));
    }
    let wrong = programs
        .par_iter()
        .filter_map(|&(problem, code, correct)| {
            let judgement = check_contest(problem, code, false, &judge).unwrap();
            let agrees = judgement.verdict.passed() == correct;
            (!agrees).then(|| format!("{} ({correct}): {judgement:?}", problem.name))
        })
        .collect();
    let correct = programs.iter().filter(|(.., correct)| *correct).count();
    (correct, programs.len() - correct, wrong)
}

#[test]
fn labelled_programs_of_every_eighth_contest_problem_get_their_labels() {
    let (correct, incorrect, wrong) = contest_disagreements(8);
    assert!(correct >= 5 && incorrect >= 10, "{correct} {incorrect}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
#[ignore = "runs 259 programs on up to ten tests each: ci/labels"]
fn all_labelled_contest_programs_get_their_labels() {
    let (correct, incorrect, wrong) = contest_disagreements(1);
    assert_eq!((correct, incorrect), (65, 194));
    assert!(wrong.is_empty(), "{} disagree: {wrong:#?}", wrong.len());
}

#[test]
fn a_contest_program_is_judged_by_output_and_exit_code_to_its_first_failure_or_on_all_tests() {
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    let problems = contest::load("builtin:contest", "test", false).unwrap();
    let problem = problems
        .iter()
        .find(|problem| problem.solutions.python().count() > 0)
        .unwrap();
    let right = problem.solutions.python().next().unwrap();
    let total = problem.tests().count();
    let check = |code: &str, all: bool| check_contest(problem, code, all, &judge).unwrap();
    let tests = |judgement: &Judgement| {
        let tests = judgement.tests.clone().unwrap();
        (tests.passed, tests.run, tests.first_failed)
    };

    let passed = check(right, false);
    assert_eq!(
        (passed.verdict.clone(), tests(&passed)),
        (Verdict::Passed, (total, total, None))
    );
    let first = Some("public 1".to_owned());
    let silent = check("", false);
    assert_eq!(
        (silent.verdict.clone(), tests(&silent)),
        (Verdict::Wrong, (0, 1, first.clone()))
    );
    let silent = check("", true);
    assert_eq!(tests(&silent), (0, total, first));
    for (code, expected) in [
        ("x x", Verdict::Syntax),
        ("raise KeyError(1)", Verdict::Error("KeyError".into())),
        (
            &format!("{right}\nimport os, sys\nsys.stdout.flush()\nos._exit(3)"),
            Verdict::Error("exit code 3".into()),
        ),
        (
            "import os\nassert os.fstat(0).st_size > 0\nraise SystemExit(4)",
            Verdict::Error("exit code 4".into()),
        ),
    ] {
        assert_eq!(check(code, false).verdict, expected, "{code}");
    }
}
