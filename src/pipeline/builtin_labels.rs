//! The shipped labelled programs as training data: `builtin:contest`, `builtin:condefects`.

use crate::{
    data::{
        Body, DataError, Record,
        labels::{
            LabelledSource,
            contest::{self, Filter},
        },
        source::Dataset,
    },
    eval::bench::contest::zero_shot,
};
use sha2::{Digest, Sha256};

/// Records in memory: of a shipped file, or of a source whose rewards were found by running.
pub struct InMemory {
    name: String,
    records: Vec<Record>,
    hash: String,
}

impl InMemory {
    /// ConDefects: repaired and faulty programs, without a statement.
    pub fn condefects() -> Result<Self, DataError> {
        let source = LabelledSource::Condefects;
        let records = source.pairs()?.iter().map(|pair| pair.code_alone()).collect();
        Self::shipped("builtin:condefects", source, records)
    }

    /// CodeContests' training problems: all Python 3 solutions after the statement, as `wmtp eval contest` asks.
    pub fn contest() -> Result<Self, DataError> {
        let source = LabelledSource::Contest;
        let file = source.place();
        let problems = contest::parse(&file, &source.text()?)?;
        let filter = Filter::default();
        let records = problems.iter().filter_map(|problem| {
            problem.record(&file.as_str().into(), &filter, |problem, code| {
                let (prompt, completion) = zero_shot(&problem.description, code);
                Body::Completion { prompt, completion }
            })
        });
        let records = records.collect();
        Self::shipped("builtin:contest", source, records)
    }

    fn shipped(name: &str, source: LabelledSource, records: Vec<Record>) -> Result<Self, DataError> {
        let hash = hex::encode(Sha256::digest(source.text()?));
        Ok(Self::new(name, records, hash))
    }

    /// These records; `hash` is what [`Dataset::hash`] gives.
    pub fn new(name: &str, records: Vec<Record>, hash: String) -> Self {
        Self {
            name: name.into(),
            records,
            hash,
        }
    }
}

impl Dataset for InMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn records(&self) -> Box<dyn Iterator<Item = Result<Record, DataError>> + Send + '_> {
        Box::new(self.records.iter().cloned().map(Ok))
    }

    fn hash(&self) -> Result<String, DataError> {
        Ok(self.hash.clone())
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.records.len())
    }
}
