//! Keeps evaluation problems out of training data, by content (algorithms, section 8).
//!
//! Texts are compared as lexical tokens: words and numbers whole, every other visible character
//! by itself, Python comments and all white space left out. What is recognised are copies and
//! near copies; a solution rewritten with other names is not.

use super::{DataError, Example, seeded::mix};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, Hasher},
};

/// Tokens in an n-gram.
const N: usize = 13;
/// N-grams that a function or class of a text must have for a share of them to count.
const PART_NGRAMS: usize = 20;
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverlapReport {
    /// Training samples compared.
    pub checked: usize,
    /// Samples that are copies by the rule: equal normalised code, or more than half of their n-grams
    /// in one evaluation problem.
    pub copies: usize,
    /// Those copies.
    pub found: Vec<Overlap>,
    /// Copies that were left out of training, which are not in `copies`.
    #[serde(default)]
    pub left_out: usize,
    /// Samples that share some n-grams with an evaluation problem, but at most half: idioms.
    pub partial: usize,
    /// The largest share among those, as (sample, problem, share).
    pub largest: Option<(String, String, f64)>,
}

/// A training sample that is a copy of an evaluation problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    refuse_copies(compare(samples, evaluation), allowed)
}

/// The report, unless it names a copy and that is not `allowed`.
///
/// # Errors
/// [`DataError::Contaminated`] for the first copy.
pub fn refuse_copies(report: OverlapReport, allowed: bool) -> Result<OverlapReport, DataError> {
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
    Index::of(evaluation).compare(samples, 1)
}

/// Evaluation problems by their programs and n-grams, made once for any number of comparisons.
#[derive(Clone, Debug, Default)]
pub struct Index {
    names: Vec<String>,
    /// Each problem's program in normal form.
    programs: Vec<Vec<String>>,
    /// Problems by the hash of that.
    by_program: HashMap<u64, Vec<usize>>,
    ngrams: HashMap<u64, Vec<usize>, Spread>,
}

/// What one sample shares with the evaluation problems: its copy, or its largest share.
enum Shared {
    Copy(Overlap),
    Partial(String, f64),
}

impl Index {
    /// Of these problems.
    pub fn of(evaluation: &[EvaluationProblem]) -> Self {
        let mut index = Self::default();
        for (number, problem) in evaluation.iter().enumerate() {
            index.names.push(problem.name.clone());
            index.programs.push(normalised_code(&problem.code));
            let text = Hashed::of(&problem.task, &problem.code);
            index.by_program.entry(text.program()).or_default().push(number);
            for gram in text.grams() {
                index.ngrams.entry(gram).or_default().push(number);
            }
        }
        index
    }

    /// Compares every sample with every problem, on all cores. A share of n-grams counts for samples
    /// that share at least `at_least` of them: parts of a file are often an idiom and nothing else.
    pub fn compare(&self, samples: &[Example], at_least: usize) -> OverlapReport {
        let mut report = OverlapReport {
            checked: samples.len(),
            ..Default::default()
        };
        let shared: Vec<_> = samples.par_iter().map(|sample| self.shared(sample, at_least)).collect();
        for (sample, shared) in samples.iter().zip(shared) {
            match shared {
                None => {}
                Some(Shared::Partial(problem, share)) => {
                    report.partial += 1;
                    if report.largest.as_ref().is_none_or(|(_, _, largest)| share > *largest) {
                        report.largest = Some((sample.name.clone(), problem, share));
                    }
                }
                Some(Shared::Copy(overlap)) => {
                    report.copies += 1;
                    report.found.push(overlap);
                }
            }
        }
        report
    }

    /// Compares files of text, and of each file every function and class, with every problem. A file
    /// and its parts are one sample, and of the parts only copies are reported.
    pub fn compare_texts(&self, texts: &[Example]) -> OverlapReport {
        let found: Vec<TextOverlap> = texts.par_iter().map(|text| self.compare_text(text)).collect();
        let mut all = TextOverlap::default();
        for overlap in found {
            all += overlap;
        }
        all.report()
    }

    /// The same for one text; the sum over all is [`Self::compare_texts`].
    pub fn compare_text(&self, text: &Example) -> TextOverlap {
        TextOverlap {
            whole: self.compare(std::slice::from_ref(text), 1),
            parts: self.compare(&parts(text), PART_NGRAMS),
        }
    }

    fn shared(&self, sample: &Example, at_least: usize) -> Option<Shared> {
        let text = Hashed::of(&sample.task, &sample.code);
        let own = text.grams();
        let mut shared: BTreeMap<usize, usize> = BTreeMap::new();
        if own.len() >= at_least {
            for index in own.iter().filter_map(|gram| self.ngrams.get(gram)).flatten() {
                *shared.entry(*index).or_default() += 1;
            }
        }
        let most = shared
            .into_iter()
            .max_by_key(|&(index, count)| (count, std::cmp::Reverse(index)))
            .and_then(|(index, count)| Some((self.names.get(index)?.as_str(), count as f64 / own.len() as f64)));
        let equal = self.equal(&text, sample).map(String::as_str);
        let share = most.map_or(0.0, |(_, share)| share);
        match (equal, most) {
            (None, None) => None,
            (None, Some((name, share))) if share <= MOST => Some(Shared::Partial(name.to_owned(), share)),
            (Some(name), _) | (None, Some((name, _))) => Some(Shared::Copy(Overlap {
                sample: sample.name.clone(),
                problem: name.to_owned(),
                equal_code: equal.is_some(),
                share,
            })),
        }
    }
    /// The first problem with the sample's program.
    fn equal(&self, text: &Hashed, sample: &Example) -> Option<&String> {
        let problems = self.by_program.get(&text.program())?;
        let code = Some(normalised_code(&sample.code)).filter(|code| !code.is_empty());
        let equal = problems
            .iter()
            .find(|&&number| self.programs.get(number) == code.as_ref());
        self.names.get(*equal?)
    }
}

/// What texts and their parts share with the evaluation problems.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextOverlap {
    whole: OverlapReport,
    parts: OverlapReport,
}

impl TextOverlap {
    /// Whether the text or a part of it is a copy.
    pub fn is_copy(&self) -> bool {
        self.whole.copies + self.parts.copies > 0
    }

    /// That of a copy which is left out.
    pub fn left_out() -> Self {
        let whole = OverlapReport {
            checked: 1,
            left_out: 1,
            ..OverlapReport::default()
        };
        Self {
            whole,
            ..Self::default()
        }
    }

    /// The report: copies of whole texts come before those of parts.
    pub fn report(self) -> OverlapReport {
        let mut report = self.whole;
        report.copies += self.parts.copies;
        report.found.extend(self.parts.found);
        report
    }
}

impl std::ops::AddAssign for TextOverlap {
    fn add_assign(&mut self, other: Self) {
        self.whole += other.whole;
        self.parts += other.parts;
    }
}

/// Adds what another comparison found.
impl std::ops::AddAssign for OverlapReport {
    fn add_assign(&mut self, other: Self) {
        let share = |largest: &Option<(String, String, f64)>| largest.as_ref().map_or(0.0, |(.., share)| *share);
        if share(&other.largest) > share(&self.largest) {
            self.largest = other.largest;
        }
        self.checked += other.checked;
        self.copies += other.copies;
        self.left_out += other.left_out;
        self.partial += other.partial;
        self.found.extend(other.found);
    }
}

/// The functions and classes of a Python file, each from its first line (decorators included) to the
/// next statement without indentation: a file with many programs hides each of them. Those of fewer
/// than an n-gram's tokens are left out.
pub fn parts(file: &Example) -> Vec<Example> {
    let defines = |line: &str| {
        ["def ", "async def ", "class "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut parts: Vec<(usize, Vec<&str>)> = Vec::new();
    for (number, line) in (1..).zip(file.code.lines()) {
        let begins = line.starts_with(|c: char| !c.is_whitespace() && !")]}#".contains(c));
        let decorated = parts
            .last()
            .is_some_and(|(_, lines)| lines.iter().all(|line| line.starts_with('@')));
        match parts.last_mut() {
            Some((_, lines)) if !begins || decorated => lines.push(line),
            _ => parts.push((number, vec![line])),
        }
    }
    parts
        .into_iter()
        .filter(|(_, lines)| lines.iter().any(|line| defines(line)))
        .map(|(number, lines)| Example {
            name: format!("{}:{number}", file.name),
            code: lines.join("\n"),
            // Not compared, and a copy of all of it for each part would be long.
            prompt: String::new(),
            response: String::new(),
            task: file.task.clone(),
            ..*file
        })
        .filter(|part| lexical(&without_comments(&part.code)).nth(N - 1).is_some())
        .collect()
}

/// A program's lexical tokens without comments: equal for copies that differ in layout only.
pub fn normalised_code(code: &str) -> Vec<String> {
    lexical(&without_comments(code)).map(str::to_owned).collect()
}

/// The lexical tokens of a sample as hashes.
struct Hashed {
    /// Those of the task, then those of the code.
    tokens: Vec<u64>,
    /// Where the code begins.
    code: usize,
}

impl Hashed {
    fn of(task: &str, code: &str) -> Self {
        let mut tokens: Vec<u64> = lexical(task).map(hashed).collect();
        let begin = tokens.len();
        tokens.extend(lexical(&without_comments(code)).map(hashed));
        Self { tokens, code: begin }
    }

    /// A hash of the program in normal form.
    fn program(&self) -> u64 {
        let code = self.tokens.get(self.code..).unwrap_or_default();
        code.iter().fold(0, |state, token| mix(state.rotate_left(17) ^ token))
    }

    /// Distinct n-grams, each as a 64-bit hash: a polynomial of its tokens' hashes, which one further token
    /// changes by one term (Karp and Rabin 1987).
    fn grams(&self) -> HashSet<u64, Spread> {
        /// Odd, so that no bit of a token is lost.
        const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut first = 1u64;
        for _ in 1..N {
            first = first.wrapping_mul(BASE);
        }
        let mut grams = HashSet::with_capacity_and_hasher(self.tokens.len(), Spread);
        let mut state = 0u64;
        for (end, &token) in (1..).zip(&self.tokens) {
            state = state.wrapping_mul(BASE).wrapping_add(token);
            if end >= N {
                grams.insert(mix(state));
                let leaves = self.tokens.get(end - N).copied().unwrap_or_default();
                state = state.wrapping_sub(leaves.wrapping_mul(first));
            }
        }
        grams
    }
}

/// Hashes a lexical token, 8 bytes at a time.
fn hashed(token: &str) -> u64 {
    let (words, rest) = token.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let words = words.iter().chain(std::iter::once(&last));
    words.fold(token.len() as u64, |state, word| mix(state ^ u64::from_le_bytes(*word)))
}

/// For keys that are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Spread;

/// Gives back the one number that it is given.
#[derive(Clone, Copy, Debug, Default)]
struct Given(u64);

impl BuildHasher for Spread {
    type Hasher = Given;

    fn build_hasher(&self) -> Given {
        Given(0)
    }
}

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are numbers, which come by `write_u64`.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
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
    while !rest.is_empty() {
        let plain = rest.find(['#', '"', '\'']).unwrap_or(rest.len());
        let (before, after) = rest.split_at_checked(plain).unwrap_or((rest, ""));
        out.push_str(before);
        rest = after;
        let Some(c) = rest.chars().next() else { break };
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
