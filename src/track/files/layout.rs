//! Where things lie, and how they are written: whole or not at all.

use super::meta;
use crate::track::{RunInfo, Status, TrackError, describe::short_hash};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// One run's directories.
#[derive(Debug)]
pub(super) struct Layout {
    experiment: PathBuf,
    run: PathBuf,
    info: RunInfo,
}

impl Layout {
    /// Makes experiment and run where they are not there.
    pub fn open(root: &Path, info: &RunInfo) -> Result<Self, TrackError> {
        let experiment = root.join(experiment_id(&info.experiment));
        let layout = Self {
            run: experiment.join(short_hash(&info.uid)),
            experiment,
            info: info.clone(),
        };
        let file = layout.experiment_file("meta.yaml");
        if !file.path.exists() {
            file.write(&meta::experiment(&layout, info))?;
        }
        let file = layout.file("meta.yaml");
        if !file.path.exists() {
            for dir in ["params", "metrics", "tags", "artifacts"] {
                layout.file(dir).make_dir()?;
            }
            layout.write("tags", "mlflow.runName", &info.name)?;
            layout.write("tags", "mlflow.source.name", "wmtp")?;
            layout.write("tags", "mlflow.source.type", "LOCAL")?;
            layout.write("tags", "wmtp.uid", &info.uid)?;
            if let Some(parent) = &info.parent {
                layout.write("tags", "wmtp.parent_run", parent)?;
                if let Some(id) = layout.parent_id(parent) {
                    layout.write("tags", "mlflow.parentRunId", &id)?;
                }
            }
            // Last: a run is what has it.
            layout.status(Status::Running, info.started)?;
        }
        Ok(layout)
    }

    /// The id of a parent that is named by its directory, by its name, or by the id itself.
    fn parent_id(&self, parent: &str) -> Option<String> {
        let beside = self.info.dir.parent().map(|runs| runs.join(parent));
        let from_ledger = |dir: PathBuf| {
            let text = fs::read_to_string(dir.join("tracking/files.json")).ok()?;
            let ledger: serde_json::Value = serde_json::from_str(&text).ok()?;
            ledger["kept"]["run_id"].as_str().map(str::to_owned)
        };
        let named =
            |run: &PathBuf| fs::read_to_string(run.join("tags/mlflow.runName")).is_ok_and(|name| name == parent);
        [Some(PathBuf::from(parent)), beside]
            .into_iter()
            .flatten()
            .find_map(from_ledger)
            .or_else(|| {
                let runs = fs::read_dir(&self.experiment).ok()?.flatten().map(|entry| entry.path());
                let mut runs: Vec<PathBuf> = runs.filter(|run| run.join("meta.yaml").is_file()).collect();
                runs.sort();
                let run = runs.into_iter().find(|run| run.ends_with(parent) || named(run))?;
                Some(run.file_name()?.to_string_lossy().into_owned())
            })
    }

    pub fn run_id(&self) -> &str {
        last(&self.run)
    }

    pub fn experiment_id(&self) -> &str {
        last(&self.experiment)
    }

    pub fn file(&self, name: &str) -> File {
        File {
            path: self.run.join(name),
        }
    }

    pub fn experiment_file(&self, name: &str) -> File {
        File {
            path: self.experiment.join(name),
        }
    }

    /// A parameter or a tag.
    pub fn write(&self, kind: &str, key: &str, value: &str) -> Result<(), TrackError> {
        self.file(&format!("{kind}/{}", file_name(key))).write(value)
    }

    /// `params`, `tags` or `metrics` that are there.
    pub fn keys(&self, kind: &str) -> Result<Vec<String>, TrackError> {
        fn walk(dir: &Path, prefix: &str, keys: &mut Vec<String>) -> std::io::Result<()> {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    walk(&entry.path(), &format!("{name}/"), keys)?;
                } else if !name.ends_with(WRITING) {
                    keys.push(name);
                }
            }
            Ok(())
        }
        let dir = self.run.join(kind);
        let mut keys = Vec::new();
        match walk(&dir, "", &mut keys) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("reading", &dir, &error)),
            _ => Ok(keys),
        }
    }

    /// Time and step of a metric's values. A line that a killed process left unfinished is cut off.
    pub fn metric_lines(&self, key: &str) -> Result<Vec<(i64, i64)>, TrackError> {
        let path = self.run.join("metrics").join(file_name(key));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("reading", &path, &error)),
        };
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            let cut = || fs::OpenOptions::new().write(true).open(&path)?.set_len(whole as u64);
            cut().map_err(|error| failed("cutting", &path, &error))?;
        }
        let lines = text.get(..whole).unwrap_or_default().lines();
        Ok(lines
            .filter_map(|line| {
                let mut words = line.split(' ');
                let at = words.next()?.parse().ok()?;
                Some((at, words.nth(1)?.parse().ok()?))
            })
            .collect())
    }

    pub fn append_metric(&self, key: &str, lines: &str) -> Result<(), TrackError> {
        if lines.is_empty() {
            return Ok(());
        }
        let file = self.file(&format!("metrics/{}", file_name(key)));
        file.make_parent()?;
        let append = || {
            let mut open = fs::OpenOptions::new().create(true).append(true).open(&file.path)?;
            open.write_all(lines.as_bytes())
        };
        append().map_err(|error| failed("writing", &file.path, &error))
    }

    pub fn status(&self, status: Status, at: i64) -> Result<(), TrackError> {
        self.file("meta.yaml").write(&meta::run(self, &self.info, status, at))
    }
}

/// A file of the layout.
pub(super) struct File {
    pub path: PathBuf,
}

const WRITING: &str = ".writing";

impl File {
    /// Under another name first, so that no reader sees half of it.
    pub fn write(&self, text: &str) -> Result<(), TrackError> {
        self.make_parent()?;
        let temporary = self.temporary();
        let write = || fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &self.path));
        write().map_err(|error| failed("writing", &self.path, &error))
    }

    pub fn copy_of(&self, from: &Path) -> Result<(), TrackError> {
        self.make_parent()?;
        let temporary = self.temporary();
        let copy = || fs::copy(from, &temporary).and_then(|_| fs::rename(&temporary, &self.path));
        copy().map_err(|error| failed("writing", &self.path, &error))
    }

    pub fn make_dir(&self) -> Result<(), TrackError> {
        fs::create_dir_all(&self.path).map_err(|error| failed("making", &self.path, &error))
    }

    fn make_parent(&self) -> Result<(), TrackError> {
        let parent = self.path.parent().unwrap_or(&self.path);
        fs::create_dir_all(parent).map_err(|error| failed("making", parent, &error))
    }

    fn temporary(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!("{name}{WRITING}"))
    }
}

/// A disk may be full now and not later.
fn failed(what: &str, path: &Path, error: &std::io::Error) -> TrackError {
    TrackError::Away(format!("{what} `{}` failed: {error}", path.display()))
}

/// MLflow's ids of experiments are numbers of 18 digits; this one follows from the name, so that
/// several processes agree on it.
fn experiment_id(name: &str) -> String {
    let hash = Sha256::digest(name);
    let number = hash
        .iter()
        .take(8)
        .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    (100_000_000_000_000_000 + number % 899_999_999_999_999_999).to_string()
}

/// A key as a path below its folder: nothing in it leads out of there.
pub(super) fn file_name(key: &str) -> String {
    key.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            if part.chars().all(|c| c == '.') {
                part.replace('.', "_")
            } else {
                part.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn last(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_mlflow_takes() {
        let id = experiment_id("mtp/critic/mbpp");
        assert!(id.len() == 18 && id.parse::<i64>().is_ok());
        assert_eq!(id, experiment_id("mtp/critic/mbpp"));
        assert_ne!(id, experiment_id("mtp/rho1/mbpp"));
    }

    #[test]
    fn no_key_leads_out_of_its_folder() {
        assert_eq!(file_name("../../x"), "__/__/x");
        assert_eq!(file_name("/mbpp//pass_at_1"), "mbpp/pass_at_1");
        assert_eq!(file_name("optim.lr"), "optim.lr");
    }
}
