//! A data file with labels found by running: every row again, with what became of its candidates.
//!
//! The file is read twice: first all rows are checked, so that nothing runs in vain, then they are judged in slabs
//! and written in their order. The result appears whole or not at all; verdicts stay in the cache, so a run that
//! was interrupted need not judge again what it had judged.

use super::{Candidate, LabelCounts, LabelProgress, Pool, tests_of};
use crate::{EvalError, Judgement};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};
use wmtp_base::fs::{Fsync, replace};
use wmtp_data::{
    DataError, Record,
    source::{Source, WholeRow},
};

/// Rows whose tests are compiled together.
const CHECKED_AT_ONCE: usize = 1024;
/// The schema of rows with several completions.
const SEVERAL: &str = "prompt-completions";
/// Schemas whose columns say which answer is right, with these columns.
const LABELLED: [(&str, &str); 4] = [
    ("messages-chosen-rejected", "`chosen` and `rejected`"),
    ("chosen-rejected", "`chosen` and `rejected`"),
    ("prompt-chosen-rejected", "`chosen` and `rejected`"),
    ("contest", "`solutions` and `incorrect_solutions`"),
];
/// Columns that labels found by running take the place of.
const REPLACED: [&str; 6] = ["reward", "label", "rewards", "labels", "result", "results"];

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelReport {
    /// Rows.
    pub rows: usize,
    /// Candidates by what became of them.
    #[serde(flatten)]
    pub counts: LabelCounts,
    /// Verdicts that were found in the cache.
    pub cached: usize,
}

/// Judges the candidates of all rows of `source`, and writes the rows with `label` and `result`, or for several
/// completions `labels` and `results`, to `output`: JSON lines. Labels and rewards that the rows have are replaced.
///
/// # Errors
/// Before anything runs: a row that cannot be read, has no tests or tests that are no Python, is in another language
/// or has its labels in its columns. Then: a sandbox that fails, a stop, a file that cannot be written.
pub fn label_file(
    source: &Source,
    output: &Path,
    pool: &Pool<'_>,
    progress: &mut (dyn FnMut(&LabelProgress) + Send),
) -> Result<LabelReport, EvalError> {
    let mut work = Work {
        pool,
        report: LabelReport::default(),
        progress: Mutex::new((
            LabelProgress {
                total: checked(source, pool)?,
                ..LabelProgress::default()
            },
            progress,
        )),
    };
    let mut failure = None;
    let written = replace(output, Fsync::Yes, |out| {
        work.write(source, out).map_err(|error| match error {
            EvalError::Write { source, .. } => source,
            other => {
                failure = Some(other);
                io::ErrorKind::Other.into()
            }
        })
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    written.map_err(|source| EvalError::Write {
        path: output.to_owned(),
        source,
    })?;
    work.report.cached = pool.judge.cache.map_or(0, |cache| cache.hits());
    Ok(work.report)
}

/// Checks all rows and counts their candidates.
fn checked(source: &Source, pool: &Pool<'_>) -> Result<usize, EvalError> {
    let mut candidates = 0;
    let mut records = Vec::new();
    for row in source.whole_rows() {
        let record = record_of(&row?)?;
        candidates += record.samples.len();
        records.push(record);
        if records.len() == CHECKED_AT_ONCE {
            pool.check_tests(records.iter())?;
            records.clear();
        }
        if pool.stop.is_asked() {
            return Err(EvalError::Stopped);
        }
    }
    pool.check_tests(records.iter())?;
    Ok(candidates)
}

/// The row's record, whose candidates can be judged.
fn record_of(row: &WholeRow) -> Result<Record, EvalError> {
    let mut records = row.records()?;
    let wrong = |problem: String| {
        EvalError::Data(DataError::BadRow {
            place: row.place().clone(),
            problem,
        })
    };
    let (Some(record), true) = (records.pop(), records.is_empty()) else {
        return Err(wrong("has no answer in one language; give one".into()));
    };
    if let Some((_, columns)) = LABELLED.iter().find(|(schema, _)| *schema == record.schema) {
        return Err(wrong(format!(
            "has its labels in the columns {columns}; give `prompt` and `completions` to find labels by running"
        )));
    }
    tests_of(&record)?;
    Ok(record)
}

/// How far the work is, and who receives it.
type Told<'a> = (LabelProgress, &'a mut (dyn FnMut(&LabelProgress) + Send));

struct Work<'a> {
    pool: &'a Pool<'a>,
    report: LabelReport,
    progress: Mutex<Told<'a>>,
}

impl Work<'_> {
    fn write(&mut self, source: &Source, out: &mut dyn Write) -> Result<(), EvalError> {
        let (mut rows, mut candidates) = (Vec::new(), 0);
        for row in source.whole_rows() {
            let row = row?;
            let record = record_of(&row)?;
            candidates += record.samples.len();
            rows.push((row, record));
            if candidates >= self.pool.slab() {
                self.judge(std::mem::take(&mut rows), out)?;
                candidates = 0;
            }
        }
        self.judge(rows, out)
    }

    /// Judges these rows and writes them.
    fn judge(&mut self, rows: Vec<(WholeRow, Record)>, out: &mut dyn Write) -> Result<(), EvalError> {
        let mut candidates = Vec::new();
        for (_, record) in &rows {
            let tests = tests_of(record)?;
            candidates.extend(record.samples.iter().map(|sample| Candidate::new(sample, tests)));
        }
        let judged = self.pool.judge_all(&candidates, &|judgement| {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let (far, tell) = &mut *progress;
            far.done += 1;
            far.passed += usize::from(judgement.verified());
            tell(far);
        })?;
        drop(candidates);
        let mut judged = judged.into_iter();
        for (row, record) in rows {
            let own: Vec<Judgement> = judged.by_ref().take(record.samples.len()).collect();
            for (judgement, sample) in own.iter().zip(&record.samples) {
                self.report.counts.add(judgement, sample.reward);
            }
            self.report.rows += 1;
            let mut line = Value::Object(labelled(row, record.schema, &own)).to_string();
            line.push('\n');
            out.write_all(line.as_bytes()).map_err(|source| EvalError::Write {
                path: Default::default(),
                source,
            })?;
        }
        Ok(())
    }
}

/// The row with its labels.
fn labelled(row: WholeRow, schema: &str, judged: &[Judgement]) -> Map<String, Value> {
    let labels: Vec<bool> = judged.iter().map(|judgement| judgement.verified()).collect();
    let results: Vec<String> = judged.iter().map(|judgement| judgement.verdict.to_string()).collect();
    let added = match schema {
        SEVERAL => vec![("labels", json!(labels)), ("results", json!(results))],
        _ => vec![("label", json!(labels.first())), ("result", json!(results.first()))],
    };
    row.with(&REPLACED, added)
}
