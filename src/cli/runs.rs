//! Models that are named by a run: `auto`, or a run's directory.

use super::Failure;
use crate::{
    run::{RunDir, file, is_run, newest},
    storage::Location,
};
use std::path::{Path, PathBuf};

/// The checkpoint that `auto` (the newest run in `runs`) or a run's directory stands for: its best, else
/// its last. None for whatever is no run.
pub(super) fn checkpoint_of(uri: &str, runs: &Path) -> Result<Option<PathBuf>, Failure> {
    if uri == "auto" {
        let newest = newest(runs, |run| checkpoint(run).is_some());
        return newest.and_then(|run| checkpoint(&run)).map(Some).ok_or_else(|| {
            Failure::usage(format!(
                "there is no run with a checkpoint in `{}`: train first, or name a model",
                runs.display()
            ))
        });
    }
    let Location::Path(path) = Location::parse(uri)? else {
        return Ok(None);
    };
    if path.join("config.json").is_file() || !is_run(&path) {
        return Ok(None);
    }
    match checkpoint(&path) {
        Some(checkpoint) => Ok(Some(checkpoint)),
        None => Err(Failure::usage(format!(
            "`{uri}` is a run without a checkpoint: wait for its first one, or name a model"
        ))),
    }
}

/// The same in words.
pub(super) fn said(uri: &str, checkpoint: &Path) -> String {
    let named = if uri == "auto" { "the newest run" } else { "a run" };
    format!("`{uri}` is {named}: taking its checkpoint {}", checkpoint.display())
}

/// A run's best checkpoint, else its last one.
fn checkpoint(run: &Path) -> Option<PathBuf> {
    let holds_model = |dir: &PathBuf| {
        ["config.json", "adapter_config.json"]
            .iter()
            .any(|name| dir.join(name).is_file())
    };
    [file::BEST, file::LAST]
        .map(|name| RunDir::at(run).checkpoint(name))
        .into_iter()
        .find(holds_model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    fn run(runs: &Path, name: &str, age: u64, checkpoints: &[&str]) {
        for checkpoint in checkpoints {
            let dir = runs.join(name).join("checkpoints").join(checkpoint);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("config.json"), "{}").unwrap();
        }
        fs::create_dir_all(runs.join(name)).unwrap();
        let json = fs::File::create(runs.join(name).join("run.json")).unwrap();
        json.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    }

    #[test]
    fn a_run_stands_for_its_best_checkpoint_else_its_last() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path();
        let error = checkpoint_of("auto", runs).unwrap_err();
        assert!(
            error.message().contains("no run with a checkpoint"),
            "{}",
            error.message()
        );
        run(runs, "c-old", 300, &["best", "last"]);
        run(runs, "b-newer", 100, &["last"]);
        run(runs, "a-newest", 0, &[]);
        let of = |uri: &str| checkpoint_of(uri, runs).map(|found| found.map(|path| path.display().to_string()));
        let path = |name: &str| runs.join(name).display().to_string();
        assert_eq!(of("auto").unwrap(), Some(path("b-newer/checkpoints/last")));
        assert_eq!(of(&path("c-old")).unwrap(), Some(path("c-old/checkpoints/best")));
        assert_eq!(of(&path("c-old/checkpoints/last")).unwrap(), None);
        assert_eq!(of("builtin:micro").unwrap(), None);
        assert_eq!(of(&path("nothing")).unwrap(), None);
        let error = of(&path("a-newest")).unwrap_err();
        assert!(
            error.message().contains("is a run without a checkpoint"),
            "{}",
            error.message()
        );
    }
}
