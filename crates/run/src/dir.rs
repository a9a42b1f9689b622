use super::{Event, EventLine, Resumption, RunError, RunRecord, RunTiming, TrainerState, file, peak_memory};
use serde::Serialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Receives what a run writes, after it is in the run's directory. Calls must return at once.
pub trait RunObserver: fmt::Debug + Send + Sync {
    /// An event was appended to `events.jsonl`.
    fn event(&self, event: &Event);

    /// A line was appended to `metrics.jsonl`.
    fn metrics(&self, step: usize, line: &Value);
}

/// What `run.json` says from a resumption on.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// What checkpoints name as their recipe.
    pub recipe_id: String,
    /// Planned optimizer steps.
    pub steps: usize,
    /// SHA-256 of the recipe, where settings changed.
    pub recipe_sha256: Option<String>,
    /// Hashes by their key in `run.json`, written where an older version recorded none.
    pub hashes: BTreeMap<String, String>,
    /// The same for `inputs_sha256`.
    pub inputs_sha256: BTreeMap<String, String>,
}

/// A run's directory, `runs/NAME/`, with an observer of what is written to it.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    observer: Option<Arc<dyn RunObserver>>,
}

impl RunDir {
    /// The directory as it is, without a check that it holds a run.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            observer: None,
        }
    }

    /// Opens a run by name, by directory, or the newest one (`auto`).
    pub fn open(parent: &Path, run: &str) -> Result<Self, RunError> {
        let missing = || RunError::NotFound {
            run: run.into(),
            dir: parent.into(),
        };
        let path = if run == "auto" {
            newest(parent, is_run).ok_or_else(missing)?
        } else {
            find(parent, run).ok_or_else(missing)?
        };
        Ok(Self::at(path))
    }

    /// The same, with an observer of what is written.
    pub fn observed(self, observer: Arc<dyn RunObserver>) -> Self {
        Self {
            observer: Some(observer),
            ..self
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The path of a file, by its name in [`mod@file`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// `run.json`; None if there is none that can be read.
    pub fn record(&self) -> Option<RunRecord> {
        RunRecord::read(&self.path)
    }

    /// `timing.json`; None if no process of the run has ended.
    pub fn timing(&self) -> Option<RunTiming> {
        serde_json::from_slice(&fs::read(self.file(file::TIMING)).ok()?).ok()
    }

    /// The directory of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.file(file::CHECKPOINTS)
    }

    /// The directory of a checkpoint: [`file::LAST`], [`file::BEST`], `step-000500`.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.checkpoints().join(name)
    }

    /// The directory of the best checkpoint or, where none is kept, of the last one.
    pub fn best_or_last(&self) -> PathBuf {
        let best = self.checkpoint(file::BEST);
        if best.is_dir() {
            best
        } else {
            self.checkpoint(file::LAST)
        }
    }

    /// `trainer.json` of a checkpoint, without a check of its hash; None if it can't be read.
    pub fn trainer_state(&self, checkpoint: &str) -> Option<TrainerState> {
        let text = fs::read(self.checkpoint(checkpoint).join(file::TRAINER)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes a JSON file into the directory, complete or not at all.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), RunError> {
        let path = self.path.join(name);
        let text =
            serde_json::to_string_pretty(value).map_err(|e| RunError::io("writing", &path)(io::Error::other(e)))?;
        write_atomically(&path, text.as_bytes())
    }

    /// Writes a text file into the directory, complete or not at all.
    pub fn write_text(&self, name: &str, text: &str) -> Result<(), RunError> {
        write_atomically(&self.path.join(name), text.as_bytes())
    }

    /// Notes in `run.json` that the run is resumed. What the file has of other versions stays, and so do the hashes
    /// that it has.
    ///
    /// # Errors
    /// The file can't be read or written, or is no JSON object.
    pub fn note_resumption(&self, renewal: &Renewal, resumption: &Resumption) -> Result<(), RunError> {
        let path = self.file(file::RECORD);
        let failed = |e| RunError::io("reading", &path)(e);
        let text = fs::read(&path).map_err(failed)?;
        let mut record: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        record.insert("recipe_id".into(), renewal.recipe_id.as_str().into());
        record.insert("steps".into(), renewal.steps.into());
        if let Some(hash) = &renewal.recipe_sha256 {
            let before = record.insert("recipe_sha256".into(), hash.as_str().into());
            record.insert("recipe_sha256_before".into(), before.unwrap_or_default());
        }
        add_missing(&mut record, &renewal.hashes);
        if !renewal.inputs_sha256.is_empty() {
            let inputs = record.entry("inputs_sha256").or_insert(Value::Null);
            let mut known = inputs.as_object().cloned().unwrap_or_default();
            add_missing(&mut known, &renewal.inputs_sha256);
            *inputs = known.into();
        }
        let resumption = serde_json::json!(resumption);
        match record.get_mut("resumed").and_then(Value::as_array_mut) {
            Some(resumed) => resumed.push(resumption),
            None => drop(record.insert("resumed".into(), vec![resumption].into())),
        }
        self.write_json(file::RECORD, &record)
    }

    /// Appends an event.
    pub fn event(&self, event: &Event) -> Result<(), RunError> {
        tracing::debug!(step = event.step, event = event.event, "{}", event.reason);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let line = EventLine {
            time,
            step: event.step,
            event: event.event.into(),
            reason: event.reason.clone(),
        };
        self.append(file::EVENTS, &line)?;
        if let Some(observer) = &self.observer {
            observer.event(event);
        }
        Ok(())
    }

    /// Appends a line of `metrics.jsonl`.
    pub fn metrics(&self, step: usize, line: &impl Serialize) -> Result<(), RunError> {
        self.append(file::METRICS, line)?;
        if let Some(observer) = &self.observer {
            observer.metrics(step, &serde_json::to_value(line).unwrap_or_default());
        }
        Ok(())
    }

    /// Appends a line of JSON to a file of the directory. A line before it that was cut off stays a line of its own.
    pub fn append(&self, name: &str, value: &impl Serialize) -> Result<(), RunError> {
        let path = self.path.join(name);
        let mut line = serde_json::to_vec(value).map_err(|e| RunError::io("writing", &path)(io::Error::other(e)))?;
        line.push(b'\n');
        OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .and_then(|mut file| {
                let mut last = [b'\n'];
                if file.seek(io::SeekFrom::End(-1)).is_ok() {
                    file.read_exact(&mut last)?;
                }
                if last != [b'\n'] {
                    line.insert(0, b'\n');
                }
                file.write_all(&line)
            })
            .map_err(RunError::io("writing", &path))
    }

    /// Adds this process's time and peak memory to `timing.json`: what the run has cost so far. A
    /// process that was killed is not in it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add_time(&self, seconds: f64) -> Result<(), RunError> {
        let former = self.timing().unwrap_or_default();
        self.write_json(
            file::TIMING,
            &RunTiming {
                seconds: former.seconds + seconds,
                processes: former.processes + 1,
                peak_memory: former.peak_memory.max(peak_memory()),
            },
        )
    }

    /// Size of a file of the directory in bytes, 0 if there is none.
    pub fn size(&self, name: &str) -> u64 {
        fs::metadata(self.path.join(name)).map_or(0, |m| m.len())
    }

    /// Cuts a file of the directory back to a size that it had before.
    pub fn truncate(&self, name: &str, bytes: u64) -> Result<(), RunError> {
        let path = self.path.join(name);
        if self.size(name) <= bytes {
            return Ok(());
        }
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(bytes))
            .map_err(RunError::io("truncating", &path))
    }
}

/// Adds texts under keys that have none.
fn add_missing(to: &mut Map<String, Value>, texts: &BTreeMap<String, String>) {
    for (key, text) in texts {
        if to.get(key).is_none_or(Value::is_null) {
            to.insert(key.clone(), text.as_str().into());
        }
    }
}

/// Whether a directory holds a run of any kind.
pub fn is_run(dir: &Path) -> bool {
    dir.join(file::RECORD).is_file()
}

/// The directory of a run that is given by its name under `parent` or by its directory.
pub fn find(parent: &Path, run: &str) -> Option<PathBuf> {
    [parent.join(run), PathBuf::from(run)]
        .into_iter()
        .find(|dir| !run.is_empty() && is_run(dir))
}

/// The run of which `dir` is a checkpoint.
pub fn run_of_checkpoint(dir: &Path) -> Option<&Path> {
    let run = dir
        .parent()
        .filter(|parent| parent.ends_with(file::CHECKPOINTS))?
        .parent()?;
    is_run(run).then_some(run)
}

/// The newest subdirectory (by modification time of `run.json`, then name) that passes `is`.
pub fn newest(parent: &Path, is: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    newest_first(parent, is).into_iter().next()
}

/// All subdirectories that are runs and pass `is`, the newest first.
pub fn newest_first(parent: &Path, is: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| is(path))
        .filter_map(|path| {
            let time = fs::metadata(path.join(file::RECORD)).and_then(|m| m.modified()).ok()?;
            Some((time, path))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// [`crate::fs::write`], with an error that names the file.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    crate::fs::write(path, bytes).map_err(RunError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn noted(record: &str) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(file::RECORD), record).unwrap();
        let hashes = |key: &str| BTreeMap::from([(key.to_owned(), "h".to_owned())]);
        let renewal = Renewal {
            recipe_id: "r".into(),
            steps: 7,
            recipe_sha256: Some("new".into()),
            hashes: hashes("data_sha256"),
            inputs_sha256: hashes("model"),
        };
        let run = RunDir::at(dir.path());
        run.note_resumption(&renewal, &Resumption::default())
            .map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&fs::read(run.file(file::RECORD)).unwrap()).unwrap())
    }

    #[test]
    fn what_is_recorded_stays_and_what_is_missing_is_added() {
        let record = noted(r#"{"x": 1, "recipe_sha256": "old", "data_sha256": "d", "resumed": [{}]}"#).unwrap();
        assert_eq!(record["x"], 1);
        assert_eq!((&record["recipe_id"], &record["steps"]), (&json!("r"), &json!(7)));
        assert_eq!(
            (&record["recipe_sha256_before"], &record["recipe_sha256"]),
            (&json!("old"), &json!("new"))
        );
        assert_eq!(
            (&record["data_sha256"], &record["inputs_sha256"]),
            (&json!("d"), &json!({"model": "h"}))
        );
        assert_eq!(record["resumed"].as_array().map(Vec::len), Some(2));
    }

    /// Each of these was a panic or could have become one.
    #[test]
    fn a_record_of_another_form_is_refused_or_mended() {
        for record in ["[]", "[1]", "\"x\"", "7", "null", "{"] {
            assert!(noted(record).unwrap_err().contains("run.json"), "{record}");
        }
        let record = noted(r#"{"inputs_sha256": "x", "resumed": 3, "data_sha256": null}"#).unwrap();
        assert_eq!(record["inputs_sha256"], json!({"model": "h"}));
        assert_eq!(record["resumed"].as_array().map(Vec::len), Some(1));
        assert_eq!(record["data_sha256"], "h");
    }
}
