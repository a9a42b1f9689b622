use super::{Tracking, figures};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// A run directory that can't be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file system said no.
    #[error("{what} `{}` failed: {source}", path.display())]
    Io {
        /// What was tried: "writing".
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new run would overwrite an old one.
    #[error("the run directory `{}` exists already: give another --run-name, or continue it with --resume", .0.display())]
    Exists(PathBuf),
    /// A run to resume is not there.
    #[error("there is no run `{run}` under `{}`: --resume takes a run's name, its directory, or `auto` for the newest", dir.display())]
    NotFound {
        /// What was asked for.
        run: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
}

impl RunError {
    /// Adds what was tried and where to an I/O error.
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

/// Something that happened to a run, a line of `events.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Optimizer step.
    pub step: usize,
    /// Name of the event: `skip`, `rollback`, `resume`, `checkpoint`, ...
    pub event: &'static str,
    /// Why, for people.
    pub reason: String,
}

/// What a training run has cost, over all processes that ended by themselves: `timing.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunTiming {
    /// Wall-clock seconds, loading and validation included.
    pub seconds: f64,
    /// How many processes.
    pub processes: usize,
    /// The largest resident size of any in bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

impl RunTiming {
    /// Of the run in this directory, if any of its processes has ended.
    pub fn read(run: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(run.join("timing.json")).ok()?).ok()
    }
}

/// `runs/<run-id>/`, and whoever follows the run beside it.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    tracking: Tracking,
}

impl RunDir {
    /// Makes the directory of a new run; one that exists is refused.
    pub fn create(parent: &Path, name: &str) -> Result<Self, RunError> {
        let path = parent.join(name);
        fs::create_dir_all(parent).map_err(RunError::io("making", parent))?;
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self {
                path,
                tracking: Tracking::none(),
            }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(RunError::Exists(path)),
            Err(e) => Err(RunError::io("making", &path)(e)),
        }
    }

    /// Opens a run by name, by directory, or the newest one (`auto`).
    pub fn open(parent: &Path, run: &str) -> Result<Self, RunError> {
        let missing = || RunError::NotFound {
            run: run.into(),
            dir: parent.into(),
        };
        let path = if run == "auto" {
            newest(parent, |p| p.join("run.json").is_file()).ok_or_else(missing)?
        } else if parent.join(run).join("run.json").is_file() {
            parent.join(run)
        } else {
            PathBuf::from(run)
        };
        if path.join("run.json").is_file() {
            Ok(Self {
                path,
                tracking: Tracking::none(),
            })
        } else {
            Err(missing())
        }
    }

    /// The same, with trackers that are told what is written.
    pub fn tracked(self, tracking: Tracking) -> Self {
        Self { tracking, ..self }
    }

    /// The run's trackers.
    pub fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
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

    /// Appends an event.
    pub fn event(&self, event: &Event) -> Result<(), RunError> {
        tracing::debug!(step = event.step, event = event.event, "{}", event.reason);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut value = serde_json::json!({ "time": time });
        if let (Some(object), Ok(serde_json::Value::Object(fields))) =
            (value.as_object_mut(), serde_json::to_value(event))
        {
            object.extend(fields);
        }
        self.append("events.jsonl", &value)?;
        self.tracking.event(event.step as i64, event.event, &event.reason);
        Ok(())
    }

    /// Appends a line of `metrics.jsonl`; its trackers get the numbers in it.
    pub fn metrics(&self, step: usize, line: &impl Serialize) -> Result<(), RunError> {
        self.append("metrics.jsonl", line)?;
        if self.tracking.is_on() {
            let line = serde_json::to_value(line).unwrap_or_default();
            self.tracking
                .series(figures::series(&line), step as i64, figures::values(&line));
        }
        Ok(())
    }

    /// Appends a line of JSON to a file of the directory.
    pub fn append(&self, name: &str, value: &impl Serialize) -> Result<(), RunError> {
        let path = self.path.join(name);
        let mut line = serde_json::to_vec(value).map_err(|e| RunError::io("writing", &path)(io::Error::other(e)))?;
        line.push(b'\n');
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(&line))
            .map_err(RunError::io("writing", &path))
    }

    /// Adds this process's time and peak memory to `timing.json`: what the run has cost so far. A
    /// process that was killed is not in it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn add_time(&self, seconds: f64) -> Result<(), RunError> {
        let former = RunTiming::read(&self.path).unwrap_or_default();
        self.write_json(
            "timing.json",
            &RunTiming {
                seconds: former.seconds + seconds,
                processes: former.processes + 1,
                peak_memory: former.peak_memory.max(super::peak_memory()),
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

/// The newest subdirectory (by modification time, then name) that passes `is`.
pub fn newest(parent: &Path, is: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    fs::read_dir(parent)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is(path))
        .filter_map(|path| {
            let time = fs::metadata(path.join("run.json")).and_then(|m| m.modified()).ok()?;
            Some((time, path))
        })
        .max()
        .map(|(_, path)| path)
}

/// Writes under a temporary name, flushes to the disk, renames.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    let temporary = path.with_extension(format!("tmp-{}", std::process::id()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
        RunError::io("writing", path)(e)
    })
}
