//! Evaluations of two runs on the same problems, compared problem by problem.
//!
//! The statistics are [`crate::eval::paired`]'s; this file finds the outcomes: in `samples.jsonl` of an
//! evaluation's directory, or in the copy in a training run (`evaluations/NAME.problems.jsonl`).

use super::{
    evaluation::{benchmark, sampling, seen},
    outcomes::read,
    run::Run,
    summary::percent,
};
use crate::eval::{
    paired::{Difference, Method, Test, difference},
    passk::Tally,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Two evaluations of the same problems.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The run that is compared with.
    pub a: String,
    /// The other run.
    pub b: String,
    /// `mbpp, 100 problems, greedy, few-shot`: A's benchmark and sampling.
    pub evaluation: String,
    /// What the comparison does not cover, or how B was sampled where that differs.
    pub notes: Vec<String>,
    /// One for each k of pass@k that both evaluations have.
    pub differences: Vec<Difference>,
}

/// The samples of one temperature, by problem.
struct Outcomes<'a> {
    report: &'a Value,
    at: &'a Value,
    tasks: BTreeMap<String, Tally>,
}

impl Outcomes<'_> {
    fn label(&self) -> String {
        format!("{}, {}", benchmark(self.report), sampling(self.report, self.at))
    }

    /// What two evaluations must share to be compared.
    fn set(&self) -> (&str, &str) {
        let text = |key: &str| self.report[key].as_str().unwrap_or_default();
        (text("benchmark"), text("variant"))
    }

    fn ks(&self) -> Vec<usize> {
        let all = self.at["pass_at_k"].as_object().into_iter().flatten();
        let mut ks: Vec<usize> = all.filter_map(|(k, _)| k.parse().ok()).collect();
        ks.sort_unstable();
        ks
    }
}

/// B minus A, for every evaluation that both have, and a sentence for each that could not be compared.
pub fn compare(a: (&Run, &str), b: (&Run, &str)) -> (Vec<Comparison>, Vec<String>) {
    let mut problems = Vec::new();
    let (of_a, of_b) = (all(a.0, &mut problems), all(b.0, &mut problems));
    let mut found: Vec<Comparison> = Vec::new();
    for one in &of_a {
        let same_set: Vec<&Outcomes<'_>> = of_b.iter().filter(|other| other.set() == one.set()).collect();
        let alone = of_a.iter().filter(|other| other.set() == one.set()).count() == 1;
        let other = match same_set.iter().find(|other| other.label() == one.label()) {
            Some(same) => same,
            // A single evaluation on each side is compared whatever its label.
            None => match same_set.as_slice() {
                [only] if alone => only,
                _ => continue,
            },
        };
        let made = comparison((one, a.1), (other, b.1));
        match made {
            Ok(comparison) => found.push(comparison),
            Err(problem) => problems.push(problem),
        }
    }
    if found.is_empty() && problems.is_empty() && !of_a.is_empty() && !of_b.is_empty() {
        problems.push(format!(
            "`{}` and `{}` have no evaluation of the same benchmark with the same sampling",
            a.1, b.1
        ));
    }
    (found, problems)
}

fn comparison(a: (&Outcomes<'_>, &str), b: (&Outcomes<'_>, &str)) -> Result<Comparison, String> {
    let ((a, name_a), (b, name_b)) = (a, b);
    let hash = |outcomes: &Outcomes<'_>| outcomes.report["origin"]["data_sha256"].as_str().map(str::to_owned);
    if let (Some(of_a), Some(of_b)) = (hash(a), hash(b))
        && of_a != of_b
    {
        return Err(format!(
            "{}: `{name_a}` and `{name_b}` were evaluated on different files of problems",
            a.label()
        ));
    }
    // In the order of the problems' names, which the bootstrap's draws depend on.
    let pairs: Vec<(Tally, Tally)> = a
        .tasks
        .iter()
        .filter_map(|(task, tally)| Some((*tally, *b.tasks.get(task)?)))
        .collect();
    if pairs.is_empty() {
        return Err(format!(
            "{}: `{name_a}` and `{name_b}` answered no problem in common",
            a.label()
        ));
    }
    let mut notes = Vec::new();
    for (name, own) in [(name_a, a.tasks.len()), (name_b, b.tasks.len())] {
        if own > pairs.len() {
            notes.push(format!("{} problems of {name} have no partner", own - pairs.len()));
        }
    }
    if a.label() != b.label() {
        notes.push(format!("{name_b}: {}", b.label()));
    }
    for line in seen(a.report).into_iter().chain(seen(b.report)) {
        if !notes.contains(&line) {
            notes.push(line);
        }
    }
    let ks = b.ks();
    let shared = a.ks().into_iter().filter(|k| ks.contains(k));
    Ok(Comparison {
        a: name_a.into(),
        b: name_b.into(),
        evaluation: a.label(),
        notes,
        differences: shared.filter_map(|k| difference(&pairs, k)).collect(),
    })
}

/// Every evaluation at every temperature; of those with the same label the newest.
fn all<'a>(run: &'a Run, problems: &mut Vec<String>) -> Vec<Outcomes<'a>> {
    let mut all: Vec<Outcomes<'a>> = Vec::new();
    for evaluation in &run.evaluations {
        let lines = match read(run, evaluation) {
            Ok(lines) => lines,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let report = &evaluation.report;
        for at in report["temperatures"].as_array().into_iter().flatten() {
            let temperature = at["temperature"].as_f64();
            let mut tasks: BTreeMap<String, Tally> = BTreeMap::new();
            for line in lines.iter().filter(|line| line.temperature == temperature) {
                let tally = tasks
                    .entry(line.task_id.clone())
                    .or_insert(Tally { samples: 0, passed: 0 });
                tally.samples += line.samples;
                tally.passed += line.passed;
            }
            let outcomes = Outcomes { report, at, tasks };
            all.retain(|other| other.label() != outcomes.label());
            all.push(outcomes);
        }
    }
    all
}

/// A signed difference in percentage points: `+2.0`.
pub fn points(value: f64) -> String {
    let text = format!("{:.1}", 100.0 * value.abs());
    let sign = match value {
        _ if text == "0.0" => "",
        v if v < 0.0 => "\u{2212}",
        _ => "+",
    };
    format!("{sign}{text}")
}

/// A p-value with two digits.
pub fn p_value(p: f64) -> String {
    match p {
        p if p < 0.001 => format!("{p:.1e}"),
        p if p < 0.1 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// What a difference says, in one line: `pass@1 12% → 14%: +2.0 points (95% interval −1.0 to +5.0),
/// p = 0.18 (McNemar's exact test: 5 problems pass in B alone, 3 in A alone)`.
pub fn sentence(d: &Difference) -> String {
    let test = match (d.test, d.only_a, d.only_b) {
        (Test::McnemarExact, Some(a), Some(b)) => {
            format!("McNemar's exact test: B alone passes {b} problems, A alone {a}")
        }
        (Test::McnemarExact, ..) => "McNemar's exact test".into(),
        (Test::Bootstrap, ..) => "paired bootstrap".into(),
        (Test::Sign, ..) => "sign test: all differences are equal".into(),
    };
    let how = match d.ci95_method {
        Method::Bootstrap => "paired bootstrap",
        Method::Score => "score interval",
    };
    format!(
        "pass@{} {} \u{2192} {}: {} points (95% {how} {} to {}), p = {} ({test})",
        d.k,
        percent(d.a),
        percent(d.b),
        points(d.difference),
        points(d.ci95[0]),
        points(d.ci95[1]),
        p_value(d.p_value)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::run::Evaluation;
    use serde_json::json;
    use std::{fs, path::Path};

    fn evaluation(home: &Path, name: &str, outcomes: &[(&str, bool)], temperature: f64) -> Run {
        let dir = home.join(name);
        fs::create_dir_all(&dir).unwrap();
        let lines = outcomes.iter().map(|(task, passed)| {
            json!({"task_id": task, "passed": passed, "temperature": temperature, "sample": 0}).to_string() + "\n"
        });
        fs::write(dir.join("samples.jsonl"), lines.collect::<String>()).unwrap();
        let report = json!({
            "benchmark": "mbpp", "variant": "full", "tasks": outcomes.len(), "samples": 1,
            "temperatures": [{"temperature": temperature, "pass_at_k": {"1": 0.5}}],
        });
        Run {
            dir,
            evaluation: true,
            evaluations: vec![Evaluation {
                name: name.into(),
                report,
            }],
            ..Run::default()
        }
    }

    #[test]
    fn problems_are_paired_by_name_and_what_has_no_partner_is_said() {
        let home = tempfile::tempdir().unwrap();
        let a = evaluation(
            home.path(),
            "a",
            &[("Mbpp/11", false), ("Mbpp/12", true), ("Mbpp/13", false)],
            0.0,
        );
        let b = evaluation(home.path(), "b", &[("Mbpp/13", true), ("Mbpp/11", true)], 0.0);
        let (found, problems) = compare((&a, "a"), (&b, "b"));
        assert!(problems.is_empty(), "{problems:?}");
        let [comparison] = found.as_slice() else {
            panic!("{found:?}")
        };
        let d = &comparison.differences[0];
        assert_eq!(
            (d.problems, d.difference, d.only_a, d.only_b),
            (2, 1.0, Some(0), Some(2))
        );
        // Both discordant problems speak for B: 2 * 0.5^2.
        assert_eq!(d.p_value, 0.5);
        assert!(
            comparison
                .notes
                .iter()
                .any(|note| note == "1 problems of a have no partner")
        );
    }

    #[test]
    fn other_sampling_is_compared_where_nothing_else_can_be_meant_and_said() {
        let home = tempfile::tempdir().unwrap();
        let a = evaluation(home.path(), "a", &[("Mbpp/11", true)], 0.0);
        let b = evaluation(home.path(), "b", &[("Mbpp/11", true)], 0.2);
        let (found, _) = compare((&a, "a"), (&b, "b"));
        assert!(found[0].notes[0].contains("temperature 0.2"), "{found:?}");
        let mut other = b.clone();
        other.evaluations[0].report["benchmark"] = "humaneval".into();
        let (found, problems) = compare((&a, "a"), (&other, "b"));
        assert!(
            found.is_empty() && problems[0].contains("no evaluation of the same benchmark"),
            "{problems:?}"
        );
    }

    #[test]
    fn other_files_of_problems_are_not_compared() {
        let home = tempfile::tempdir().unwrap();
        let mut a = evaluation(home.path(), "a", &[("1", true)], 0.0);
        let mut b = evaluation(home.path(), "b", &[("1", false)], 0.0);
        a.evaluations[0].report["origin"]["data_sha256"] = "aa".into();
        assert_eq!(
            compare((&a, "a"), (&b, "b")).0.len(),
            1,
            "nothing is known of the other file"
        );
        b.evaluations[0].report["origin"]["data_sha256"] = "bb".into();
        let (found, problems) = compare((&a, "a"), (&b, "b"));
        assert!(
            found.is_empty() && problems[0].contains("different files of problems"),
            "{problems:?}"
        );
    }

    #[test]
    fn differences_read_as_points_with_their_test() {
        let pair = |a, b| (Tally { samples: 1, passed: a }, Tally { samples: 1, passed: b });
        let d = difference(&[pair(0, 1), pair(0, 1), pair(1, 1), pair(0, 0)], 1).unwrap();
        assert!(
            sentence(&d).starts_with("pass@1 25% \u{2192} 75%: +50.0 points (95% paired bootstrap ")
                && sentence(&d).ends_with("p = 0.50 (McNemar's exact test: B alone passes 2 problems, A alone 0)"),
            "{}",
            sentence(&d)
        );
        assert_eq!(
            [0.0, -0.0, -0.031, 0.02].map(points),
            ["0.0", "0.0", "\u{2212}3.1", "+2.0"]
        );
        assert_eq!([1.0, 0.042, 0.0002].map(p_value), ["1.00", "0.042", "2.0e-4"]);
    }
}
