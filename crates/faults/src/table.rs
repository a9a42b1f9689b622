//! What came of the schedules: a line for each failure, a table at the end.

use crate::{
    kinds::Kind,
    problem::{Outcome, Problem},
};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A schedule that failed.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub seed: u64,
    /// What was trained.
    pub config: String,
    pub problem: String,
}

impl Failure {
    /// One line, with the command that repeats it.
    pub fn line(&self) -> String {
        let Self {
            kind,
            seed,
            config,
            problem,
        } = self;
        let problem = problem.replace('\n', " ");
        format!("FAILED {kind} ({config}): {problem}; repeat it with --kind {kind} --seed {seed} --schedules 1")
    }
}

/// Counts of one kind.
#[derive(Debug)]
pub struct Row {
    pub kind: Kind,
    pub identical: usize,
    pub refused: usize,
    pub failed: usize,
    /// Of all its schedules, one after the other.
    pub seconds: f64,
    /// Why it was left out.
    pub left_out: Option<String>,
}

impl Row {
    /// Without a schedule yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            identical: 0,
            refused: 0,
            failed: 0,
            seconds: 0.0,
            left_out: None,
        }
    }

    /// Counts a schedule.
    pub fn add(&mut self, ended: &Result<Outcome, Problem>, seconds: f64) {
        self.seconds += seconds;
        match ended {
            Ok(Outcome::Identical) => self.identical += 1,
            Ok(Outcome::Refused) => self.refused += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn schedules(&self) -> usize {
        self.identical + self.refused + self.failed
    }
}

/// The table as text.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<14} {:>9} {:>9} {:>22} {:>6} {:>7}\n",
        "kind", "schedules", "identical", "refused with the cause", "failed", "seconds"
    );
    for row in rows {
        let _ = match &row.left_out {
            Some(reason) => writeln!(text, "{:<14} not run: {reason}", row.kind),
            None => writeln!(
                text,
                "{:<14} {:>9} {:>9} {:>22} {:>6} {:>7.0}",
                row.kind,
                row.schedules(),
                row.identical,
                row.refused,
                row.failed,
                row.seconds
            ),
        };
    }
    text
}

/// The same as JSON, with the failures.
pub fn json(rows: &[Row], failures: &[Failure]) -> Value {
    let row = |row: &Row| {
        json!({
            "kind": row.kind.name(),
            "schedules": row.schedules(),
            "identical": row.identical,
            "refused": row.refused,
            "failed": row.failed,
            "seconds": row.seconds,
            "left_out": row.left_out,
        })
    };
    let failure = |failure: &Failure| {
        json!({
            "kind": failure.kind.name(),
            "seed": failure.seed,
            "config": failure.config,
            "problem": failure.problem,
        })
    };
    json!({
        "kinds": rows.iter().map(row).collect::<Vec<_>>(),
        "failures": failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_and_a_failure_names_what_repeats_it() {
        let mut row = Row::new(Kind::FullDisk);
        row.add(&Ok(Outcome::Identical), 1.5);
        row.add(&Ok(Outcome::Refused), 1.0);
        row.add(&Err(Problem::Wrong("x".into())), 0.75);
        let mut left_out = Row::new(Kind::Clock);
        left_out.left_out = Some("no compiler".into());
        let text = text(&[row, left_out]);
        let lines: Vec<&str> = text.lines().collect();
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["full-disk", "3", "1", "1", "1", "3"]);
        assert_eq!(lines[2], "clock          not run: no compiler");
        let failure = Failure {
            kind: Kind::Cut,
            seed: 12,
            config: "rho1-f32".into(),
            problem: "it hung".into(),
        };
        let line = failure.line();
        assert!(
            line.ends_with("it hung; repeat it with --kind cut --seed 12 --schedules 1"),
            "{line}"
        );
        assert_eq!(json(&[], &[failure])["failures"][0]["seed"], 12);
    }
}
