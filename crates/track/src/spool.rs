//! The spool: every record for the trackers, one line of JSON each, in the run's directory.
//!
//! It is the queue between the run and its trackers. The run appends, which takes microseconds and
//! needs no server; every tracker's thread reads from where its last delivery ended. Nothing waits in
//! memory, so that a killed process loses nothing, and its size is bounded by the disk alone.

use super::tracker::{Artifact, Input, Model, RunEvent, RunInfo, Status};
use crate::run::RunError;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// A line of the spool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Record {
    Run(RunInfo),
    Status {
        status: Status,
        at: i64,
    },
    Params {
        params: BTreeMap<String, String>,
    },
    Tags {
        tags: BTreeMap<String, String>,
    },
    Inputs {
        inputs: Vec<Input>,
    },
    Metrics {
        at: i64,
        step: i64,
        /// A series' name: its steps rise from record to record.
        #[serde(skip_serializing_if = "Option::is_none")]
        series: Option<String>,
        /// As text, because a reader of JSON may lose a number's last bit.
        values: BTreeMap<String, String>,
    },
    Event(RunEvent),
    Artifact(Artifact),
    Model(Model),
}

/// The writing end. Several processes may append to one spool.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    file: File,
}

impl Spool {
    pub const FILE: &'static str = "spool.jsonl";

    /// Opens or makes it. With `alone`, no other process writes to it, and a line that a killed one
    /// left unfinished is cut off.
    pub fn open(dir: &Path, alone: bool) -> Result<Self, RunError> {
        let path = dir.join(Self::FILE);
        let open = || {
            std::fs::create_dir_all(dir)?;
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            if alone {
                cut_unfinished_line(&mut file)?;
            }
            Ok(file)
        };
        let file = open().map_err(RunError::io("opening", &path))?;
        Ok(Self { path, file })
    }

    pub fn append(&mut self, record: &Record) -> Result<(), RunError> {
        let mut line =
            serde_json::to_vec(record).map_err(|e| RunError::io("writing", &self.path)(io::Error::other(e)))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(RunError::io("writing", &self.path))
    }

    pub fn reader(&self) -> Reader {
        Reader::new(&self.path)
    }
}

fn cut_unfinished_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut byte = [0u8];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        end -= 1;
    }
    if end < length { file.set_len(end) } else { Ok(()) }
}

/// Reads whole lines from a position on.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
}

impl Reader {
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Bytes of the spool.
    pub fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Calls `take` with each record from byte `from` on and the position behind it, until it says
    /// false or there is no more. A line that is no record is passed over with a warning.
    pub fn read(&self, from: u64, mut take: impl FnMut(Record, u64) -> bool) -> Result<(), RunError> {
        let failed = RunError::io("reading", &self.path);
        let open = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(from))?;
            Ok(BufReader::new(file))
        };
        let mut lines = open().map_err(failed)?;
        let mut at = from;
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = lines
                .read_until(b'\n', &mut line)
                .map_err(RunError::io("reading", &self.path))?;
            if line.pop() != Some(b'\n') {
                return Ok(());
            }
            at += n as u64;
            match serde_json::from_slice(&line) {
                Ok(record) => {
                    if !take(record, at) {
                        return Ok(());
                    }
                }
                Err(error) => tracing::warn!("{} has a line that can't be read: {error}", self.path.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: i64) -> Record {
        let values = BTreeMap::from([("loss".to_owned(), "0.1".to_owned())]);
        Record::Metrics {
            at: 5,
            step,
            series: Some("train".into()),
            values,
        }
    }

    fn all(reader: &Reader, from: u64) -> Vec<(Record, u64)> {
        let mut records = Vec::new();
        reader
            .read(from, |record, end| {
                records.push((record, end));
                true
            })
            .unwrap();
        records
    }

    #[test]
    fn what_was_appended_is_read_from_any_record_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), true).unwrap();
        (0..3).for_each(|step| spool.append(&metrics(step)).unwrap());
        let records = all(&spool.reader(), 0);
        assert_eq!(records.len(), 3);
        let rest = all(&spool.reader(), records[0].1);
        assert_eq!(
            rest.iter().map(|r| &r.0).collect::<Vec<_>>(),
            [&metrics(1), &metrics(2)]
        );
        assert_eq!(records[2].1, spool.reader().length());
    }

    #[test]
    fn an_unfinished_line_is_not_read_and_is_gone_after_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), true).unwrap();
        spool.append(&metrics(0)).unwrap();
        spool.file.write_all(b"{\"kind\":\"metr").unwrap();
        assert_eq!(all(&spool.reader(), 0).len(), 1);
        let mut spool = Spool::open(dir.path(), true).unwrap();
        spool.append(&metrics(1)).unwrap();
        let read: Vec<_> = all(&spool.reader(), 0).into_iter().map(|r| r.0).collect();
        assert_eq!(read, [metrics(0), metrics(1)]);
    }
}
