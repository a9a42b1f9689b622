//! Leaks in labels: how well a program's label follows from what has nothing to do with correctness.
//!
//! A critic that is trained on labelled programs learns whatever tells right from wrong: names that only right
//! programs have, or the longer of two. Naive Bayes on such a feature alone, trained on some problems and tried
//! on others, shows how much there is to learn. An AUROC of 0.5 is chance; [`BOUND`] is the most that a shipped
//! source of labels may have across problems. The figure within problems is a baseline for the critic's own.

mod bayes;
mod features;
mod lexer;

pub use wmtp_base::statistics::{auroc, auroc_within};

use crate::labels::Labelled;
use bayes::{Gaussian, Multinomial};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, fmt};

/// The AUROC across problems that labels stay under, for every feature.
pub const BOUND: f64 = 0.57;

/// Parts into which problems are divided; each is scored by what the others taught.
pub const FOLDS: u64 = 5;

/// What a program is judged by, apart from correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Which names it has, each counted once: variables, functions, attributes; no keywords, strings, comments.
    Identifiers,
    /// Its number of characters.
    Length,
    /// Indentation of every line, blank lines, white space at line ends, spaces around operators and after
    /// commas, the number of lines (in half octaves), comments, a line end at the end.
    Layout,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Identifiers, Self::Length, Self::Layout];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identifiers => "identifiers",
            Self::Length => "length",
            Self::Layout => "layout",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How well labels follow from one feature. Every score is of a problem that the classifier had not seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeakReport {
    /// The feature.
    pub feature: Feature,
    /// Number of problems.
    pub problems: usize,
    /// Number of programs.
    pub programs: usize,
    /// AUROC over all programs; None if all have one label.
    pub across: Option<f64>,
    /// Share of the pairs of a right and a wrong program of one problem in which the right one scores higher,
    /// ties counting one half; None if no problem has both.
    pub within: Option<f64>,
    /// The same over programs that share [`Labelled::pair`]; None if there are none.
    pub paired: Option<f64>,
}

impl LeakReport {
    /// Whether the labels stay under [`BOUND`] across problems. False if that could not be measured.
    pub fn holds(&self) -> bool {
        self.across.is_some_and(|across| across < BOUND)
    }
}

/// Measures how well the labels follow from `feature`. The same programs always give the same figures.
pub fn measure(programs: &[Labelled], feature: Feature) -> LeakReport {
    let scores = held_out_scores(programs, feature);
    let labels = || {
        scores
            .iter()
            .zip(programs)
            .map(|(score, program)| (*score, program.correct))
    };
    let problem = |program: &Labelled| Some(program.problem.clone());
    let within = programs.iter().map(problem).zip(labels());
    let paired = programs.iter().map(|program| program.pair).zip(labels());
    LeakReport {
        feature,
        problems: programs
            .iter()
            .map(|program| &program.problem)
            .collect::<HashSet<_>>()
            .len(),
        programs: programs.len(),
        across: auroc(&labels().collect::<Vec<_>>()),
        within: auroc_within(within),
        paired: auroc_within(paired),
    }
}

/// [`measure`] for every feature.
pub fn measure_all(programs: &[Labelled]) -> Vec<LeakReport> {
    Feature::ALL.map(|feature| measure(programs, feature)).into()
}

/// The part of a problem: the first 8 bytes of the SHA-256 of its name, as a big-endian number, modulo
/// [`FOLDS`].
pub fn fold(problem: &str) -> u64 {
    let digest = Sha256::digest(problem.as_bytes());
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
        % FOLDS
}

/// The log odds of each program to be right, by a classifier that was trained on the problems of other folds;
/// 0 where those lack one of the labels.
fn held_out_scores(programs: &[Labelled], feature: Feature) -> Vec<f64> {
    let folds: Vec<u64> = programs.par_iter().map(|program| fold(&program.problem)).collect();
    let labels: Vec<bool> = programs.iter().map(|program| program.correct).collect();
    let trained_on = |part: u64| move |&(_, fold): &(usize, &u64)| *fold != part;
    let mut scores = vec![0.0; programs.len()];
    let mut put = |part: u64, score: &dyn Fn(usize) -> f64| {
        for ((index, slot), _) in scores
            .iter_mut()
            .enumerate()
            .zip(&folds)
            .filter(|(_, fold)| **fold == part)
        {
            *slot = score(index);
        }
    };
    let documents = match feature {
        Feature::Length => None,
        Feature::Identifiers => Some(features::documents(programs, features::identifiers)),
        Feature::Layout => Some(features::documents(programs, features::layout)),
    };
    let lengths: Vec<f64> = programs
        .iter()
        .map(|program| program.code.chars().count() as f64)
        .collect();
    for part in 0..FOLDS {
        let training = || {
            folds
                .iter()
                .enumerate()
                .filter(trained_on(part))
                .map(|(index, _)| index)
        };
        match &documents {
            Some(documents) => {
                let model = Multinomial::fit(training().map(|i| (documents[i].as_slice(), labels[i])));
                put(part, &|i| {
                    model.as_ref().map_or(0.0, |model| model.log_odds(&documents[i]))
                });
            }
            None => {
                let model = Gaussian::fit(training().map(|i| (lengths[i], labels[i])));
                put(part, &|i| {
                    model.as_ref().map_or(0.0, |model| model.log_odds(lengths[i]))
                });
            }
        }
    }
    scores
}

/// The reports as a Markdown table: a line a source and feature.
pub fn table<'a>(sources: impl IntoIterator<Item = (&'a str, &'a [LeakReport])>) -> String {
    let mut text = String::from(
        "| labels | problems | programs | feature | across | within | pairs |\n|---|---|---|---|---|---|---|\n",
    );
    let figure = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    for (name, reports) in sources {
        for report in reports {
            text += &format!(
                "| {name} | {} | {} | {} | {} | {} | {} |\n",
                report.problems,
                report.programs,
                report.feature,
                figure(report.across),
                figure(report.within),
                figure(report.paired)
            );
        }
    }
    text
}
