//! Keeps evaluation problems out of training data, by content (algorithms, section 8).
//!
//! Texts are compared as lexical tokens: words and numbers whole, every other visible character
//! by itself, Python comments and all white space left out. What is recognised are copies and
//! near copies; a solution rewritten with other names is not.

use super::{DataError, Example};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// Tokens in an n-gram.
const N: usize = 13;
/// A sample with more than this share of its n-grams in one evaluation problem is a copy.
const MOST: f64 = 0.5;

/// A problem of a benchmark that is to stay unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationProblem {
    /// Name for people: `mbpp/11`.
    pub name: String,
    /// The task: text and tests.
    pub task: String,
    /// Its reference solution.
    pub code: String,
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OverlapReport {
    /// Training samples compared.
    pub checked: usize,
    /// Samples that are copies by the rule: equal normalised code, or more than half of their n-grams
    /// in one evaluation problem.
    pub copies: usize,
    /// Those copies.
    pub found: Vec<Overlap>,
    /// Samples that share some n-grams with an evaluation problem, but at most half: idioms.
    pub partial: usize,
    /// The largest share among those, as (sample, problem, share).
    pub largest: Option<(String, String, f64)>,
}

/// A training sample that is a copy of an evaluation problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// The sample.
    pub sample: String,
    /// The evaluation problem.
    pub problem: String,
    /// The code is equal, but for layout and comments.
    pub equal_code: bool,
    /// The share of the sample's n-grams that the problem has.
    pub share: f64,
}

impl Overlap {
    /// How it was recognised, as a part of a sentence.
    pub fn reason(&self) -> String {
        match self.equal_code {
            true => format!("its code equals that of the evaluation problem {}", self.problem),
            false => format!(
                "{:.0}% of its {N}-token n-grams are in the evaluation problem {}",
                self.share * 100.0,
                self.problem
            ),
        }
    }
}

/// Compares every training sample with every evaluation problem.
///
/// # Errors
/// [`DataError::Contaminated`] for the first sample whose normalised code equals a problem's, or
/// more than half of whose 13-token n-grams (of task and code) are found in one problem, unless
/// `allowed`.
pub fn check(samples: &[Example], evaluation: &[EvaluationProblem], allowed: bool) -> Result<OverlapReport, DataError> {
    let report = compare(samples, evaluation);
    match report.found.first() {
        Some(overlap) if !allowed => Err(DataError::Contaminated {
            sample: overlap.sample.clone(),
            reason: overlap.reason(),
        }),
        _ => Ok(report),
    }
}

/// The same, and copies are only reported. A problem with several solutions may be there several
/// times under one name.
pub fn compare(samples: &[Example], evaluation: &[EvaluationProblem]) -> OverlapReport {
    let mut programs: HashMap<Vec<String>, &str> = HashMap::new();
    let mut ngrams: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, problem) in evaluation.iter().enumerate() {
        let code = normalised_code(&problem.code);
        if !code.is_empty() {
            programs.entry(code).or_insert(&problem.name);
        }
        for gram in grams(&problem.task, &problem.code) {
            ngrams.entry(gram).or_default().push(index);
        }
    }
    let mut report = OverlapReport {
        checked: samples.len(),
        ..Default::default()
    };
    for sample in samples {
        let own = grams(&sample.task, &sample.code);
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        for index in own.iter().filter_map(|gram| ngrams.get(gram)).flatten() {
            *shared.entry(*index).or_default() += 1;
        }
        let most = shared
            .into_iter()
            .max_by_key(|&(index, count)| (count, std::cmp::Reverse(index)))
            .and_then(|(index, count)| Some((evaluation.get(index)?.name.as_str(), count as f64 / own.len() as f64)));
        let equal = programs.get(&normalised_code(&sample.code)).copied();
        let share = most.map_or(0.0, |(_, share)| share);
        match (equal, most) {
            (None, None) => continue,
            (None, Some((name, share))) if share <= MOST => {
                report.partial += 1;
                if report.largest.as_ref().is_none_or(|(_, _, largest)| share > *largest) {
                    report.largest = Some((sample.name.clone(), name.to_owned(), share));
                }
            }
            (Some(name), _) | (None, Some((name, _))) => {
                report.copies += 1;
                report.found.push(Overlap {
                    sample: sample.name.clone(),
                    problem: name.to_owned(),
                    equal_code: equal.is_some(),
                    share,
                });
            }
        }
    }
    report
}

/// A program's lexical tokens without comments: equal for copies that differ in layout only.
pub fn normalised_code(code: &str) -> Vec<String> {
    lexical(&without_comments(code)).map(str::to_owned).collect()
}

/// Distinct n-grams of task and code, each as a 64-bit hash.
fn grams(task: &str, code: &str) -> HashSet<u64> {
    let code = without_comments(code);
    let tokens: Vec<&str> = lexical(task).chain(lexical(&code)).collect();
    tokens
        .windows(N)
        .map(|gram| {
            let mut hasher = DefaultHasher::new();
            gram.hash(&mut hasher);
            hasher.finish()
        })
        .collect()
}

/// Words (letters, digits, underscore) whole, other visible characters one by one.
fn lexical(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let len = match word(first) {
            true => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(token)
    })
}

/// Drops `#` comments, but not a `#` inside a string.
fn without_comments(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '#' => {
                rest = rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or_default();
                continue;
            }
            '"' | '\'' => string_len(rest, c),
            _ => c.len_utf8(),
        };
        let (kept, after) = rest.split_at_checked(len).unwrap_or((rest, ""));
        out.push_str(kept);
        rest = after;
    }
    out
}

/// Bytes of the string literal that `text` begins with. One without an end stops at its line's
/// (a triple-quoted one at the text's) end.
fn string_len(text: &str, quote: char) -> usize {
    let triple: String = [quote; 3].iter().collect();
    let long = text.starts_with(&triple);
    let close = if long { triple } else { quote.to_string() };
    let mut at = close.len();
    while let Some(rest) = text.get(at..) {
        match rest.chars().next() {
            None => break,
            Some('\\') => at += 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            Some('\n') if !long => break,
            Some(_) if rest.starts_with(&close) => return at + close.len(),
            Some(c) => at += c.len_utf8(),
        }
    }
    at.min(text.len())
}
