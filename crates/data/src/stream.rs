//! Records of a source, rendered on all cores while the next ones are read. Holds a few megabytes of rows.

use super::{
    Body, DataConfig, DataError, Record, Rendering, Rows, Tokenized, Wanted,
    chat::content,
    decontaminate::{Index, TextOverlap},
    example::Spelling,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::mpsc::sync_channel, thread};

/// Most records that are rendered together.
const ROWS: usize = 2048;
/// Bytes of text after which no further record is taken to those that are rendered together.
const BYTES: usize = 4 << 20;

/// Hash of what makes rows one problem.
pub(super) type ProblemHash = [u8; 16];

/// How rows are rendered, compared and divided.
pub(super) struct Preparation<'a> {
    pub config: &'a DataConfig,
    pub rendering: Rendering,
    pub spelling: Spelling<'a>,
    pub index: Index,
    pub wanted: Wanted,
    /// Whether a problem of a source is held out.
    pub held_out: &'a (dyn Fn(&ProblemHash) -> bool + Sync),
}

/// A sample that is rendered, with what reports say of it.
pub(super) struct Prepared {
    pub problem: ProblemHash,
    pub held_out: bool,
    pub documents: Vec<Tokenized>,
    /// Of training samples.
    pub known: Option<Known>,
}

/// What reports say of a training sample.
pub(super) struct Known {
    /// A text too short for a document, with its tokens.
    pub short: Option<(String, usize)>,
    pub tail_tokens: usize,
    pub overlap: TextOverlap,
    pub spelled: BTreeMap<u32, usize>,
}

/// The samples of one row.
pub(super) struct PreparedRow {
    pub samples: Vec<Prepared>,
    /// Samples left out because of their label, or because they have none.
    pub unwanted: usize,
}

impl Preparation<'_> {
    /// Hands all rows of a source to `take`, in order and chunk by chunk, until that gives false.
    ///
    /// # Errors
    /// A row that can't be read or rendered, a reward outside 0 to 1, those of `take`.
    pub fn each(
        &self,
        source: &Rows<'_>,
        take: &mut dyn FnMut(Vec<PreparedRow>) -> Result<bool, DataError>,
    ) -> Result<(), DataError> {
        let config = self.config;
        let records = source.source.records();
        let mut records = records.filter(|record| record.as_ref().map_or(true, |record| config.reads(record)));
        thread::scope(|scope| {
            let (send, receive) = sync_channel(1);
            scope.spawn(move || {
                loop {
                    let chunk = chunk(&mut records);
                    let last = chunk.as_ref().map_or(true, Vec::is_empty);
                    // Nobody receives after an error.
                    if send.send(chunk).is_err() || last {
                        return;
                    }
                }
            });
            for records in receive {
                let rows: Vec<_> = records?
                    .into_par_iter()
                    .map(|record| self.row(source, record))
                    .collect();
                if !take(rows.into_iter().collect::<Result<_, _>>()?)? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn row(&self, source: &Rows<'_>, mut record: Record) -> Result<PreparedRow, DataError> {
        let unwanted = only_wanted(&mut record, self.wanted)?;
        let rendered = self.rendering.record(&record)?;
        let samples = rendered.into_iter().map(|sample| {
            let (kind, text) = match &record.task_id {
                Some(task) => ("task", task),
                None if sample.example.prompt.is_empty() => ("text", &sample.example.response),
                None => ("prompt", &sample.example.prompt),
            };
            let problem = problem(kind, text);
            let held_out = source.held_out || (self.held_out)(&problem);
            let known = match held_out {
                true => None,
                false => Some(Known {
                    short: sample.short.map(|tokens| (sample.example.name.clone(), tokens)),
                    tail_tokens: sample.tail_tokens,
                    overlap: self.index.compare_text(&sample.example),
                    spelled: self.spelling.count(&sample.example)?,
                }),
            };
            Ok(Prepared {
                problem,
                held_out,
                documents: sample.documents,
                known,
            })
        });
        Ok(PreparedRow {
            samples: samples.collect::<Result<_, DataError>>()?,
            unwanted,
        })
    }
}

/// The next records that are rendered together; none at the end.
fn chunk(records: &mut dyn Iterator<Item = Result<Record, DataError>>) -> Result<Vec<Record>, DataError> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    while chunk.len() < ROWS && bytes < BYTES {
        let Some(record) = records.next().transpose()? else {
            break;
        };
        bytes += record
            .samples
            .iter()
            .map(|sample| text_bytes(&sample.body))
            .sum::<usize>();
        chunk.push(record);
    }
    Ok(chunk)
}

/// About how many bytes of text a sample has.
fn text_bytes(body: &Body) -> usize {
    match body {
        Body::Text(text) => text.len(),
        Body::Completion { prompt, completion } => prompt.len() + completion.len(),
        Body::Instruction(instruction) => {
            let history = instruction.history.iter().map(|(asked, said)| asked.len() + said.len());
            instruction.instruction.len() + instruction.input.len() + instruction.output.len() + history.sum::<usize>()
        }
        Body::Chat { messages, .. } => messages.iter().map(|message| content(message).len() + 64).sum(),
    }
}

/// Leaves the samples of a record that are wanted, and gives the number of others.
fn only_wanted(record: &mut Record, wanted: Wanted) -> Result<usize, DataError> {
    let before = record.samples.len();
    let rewards = record.samples.iter().filter_map(|sample| sample.reward);
    if let Some(reward) = rewards.into_iter().find(|reward| !(0.0..=1.0).contains(reward)) {
        return Err(DataError::Row {
            file: record.place.file.to_string(),
            line: record.place.row,
            problem: format!("has the reward `{reward}`; scale rewards to 0 (wrong) to 1 (right)"),
        });
    }
    record.samples.retain(|sample| match wanted {
        Wanted::Right => sample.reward.is_none_or(|reward| reward > 0.5),
        Wanted::Labelled => sample.reward.is_some(),
    });
    Ok(before - record.samples.len())
}

/// Hash of a sample's problem: rows with one `task_id`, or else with one prompt, are one problem.
fn problem(kind: &str, text: &str) -> ProblemHash {
    let mut hasher = Sha256::new();
    hasher.update(kind);
    hasher.update([0]);
    hasher.update(text);
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize()[..16]);
    hash
}
