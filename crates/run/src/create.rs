//! The directory of a new run: claimed by making it, and held by its lock from then on.

use crate::{
    RunDir, RunError, RunLock,
    dir::is_run,
    file::{CONFIG, LABELS, RECIPE},
    fs::entries,
    lock,
};
use std::{fs, io, path::Path};

/// The most runs of one name that are numbered.
const MOST: usize = 1000;

impl RunDir {
    /// Makes the directory of a new run and takes its lock. A directory that exists is refused, unless it holds no
    /// more than what a run writes before its `run.json`: what a start that was killed left is removed and its name
    /// used. Where the name is `numbered`, `NAME-2`, `NAME-3`, … take the place of one that is in use.
    ///
    /// # Errors
    /// [`RunError::Exists`], [`RunError::Occupied`] or [`RunError::Locked`] where the name is in use; what the file
    /// system says.
    pub fn create(parent: &Path, name: &str, numbered: bool) -> Result<(Self, RunLock), RunError> {
        fs::create_dir_all(parent).map_err(RunError::io("making", parent))?;
        let mut claimed = claim(&parent.join(name));
        for number in 2..=MOST {
            let in_use = matches!(
                claimed,
                Err(RunError::Exists(_) | RunError::Occupied(_) | RunError::Locked { .. })
            );
            if !(numbered && in_use) {
                break;
            }
            claimed = claim(&parent.join(format!("{name}-{number}")));
        }
        claimed
    }
}

fn claim(path: &Path) -> Result<(RunDir, RunLock), RunError> {
    let is_new = match fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(RunError::io("making", path)(error)),
    };
    if !is_new {
        check_free(path)?;
    }
    let lock = RunLock::take(path)?;
    // Who had the lock before may have made it a run.
    check_free(path)?;
    if !is_new {
        for left in entries(path).map_err(RunError::io("reading", path))? {
            if !left.ends_with(lock::NAME) {
                fs::remove_file(&left).map_err(RunError::io("removing", &left))?;
            }
        }
    }
    Ok((RunDir::at(path), lock))
}

/// Refuses a directory with more in it than what a run writes before `run.json`.
fn check_free(path: &Path) -> Result<(), RunError> {
    if is_run(path) {
        return Err(RunError::Exists(path.into()));
    }
    // Of a file, the system's own words.
    let entries = entries(path).map_err(RunError::io("making", path))?;
    let is_of_start = |entry: &Path| {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let temporary = name.starts_with('.') && name.contains(".tmp-");
        entry.is_file() && (temporary || [lock::NAME, CONFIG, RECIPE, LABELS].contains(&&*name))
    };
    match entries.iter().all(|entry| is_of_start(entry)) {
        true => Ok(()),
        false => Err(RunError::Occupied(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::RECORD;

    #[test]
    fn a_name_in_use_is_refused_or_numbered() {
        let parent = tempfile::tempdir().unwrap();
        let name = |numbered| RunDir::create(parent.path(), "a", numbered).map(|(run, _lock)| run);
        let first = name(false).unwrap();
        fs::write(first.file(RECORD), "{}").unwrap();
        assert!(matches!(name(false), Err(RunError::Exists(path)) if path == first.path()));
        for expected in ["a-2", "a-3"] {
            let run = name(true).unwrap();
            assert_eq!(run.name(), expected);
            fs::write(run.file(RECORD), "{}").unwrap();
        }
    }

    #[test]
    fn many_at_once_get_a_directory_each() {
        let parent = tempfile::tempdir().unwrap();
        let start = || RunDir::create(parent.path(), "a", true).unwrap();
        let held: Vec<(RunDir, RunLock)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let names: std::collections::BTreeSet<String> = held.iter().map(|(run, _)| run.name()).collect();
        assert_eq!(names.len(), 8, "{names:?}");
    }

    #[test]
    fn what_a_killed_start_left_is_no_run_and_its_name_is_used() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("a");
        fs::create_dir(&left).unwrap();
        for name in [".lock", "config.yaml", "recipe.yaml", ".run.json.tmp-Ab12Cd"] {
            fs::write(left.join(name), "").unwrap();
        }
        let (run, lock) = RunDir::create(parent.path(), "a", false).unwrap();
        assert_eq!(run.path(), left);
        assert_eq!(entries(&left).unwrap(), [left.join(".lock")]);
        // While it is held, nobody else may have it.
        assert!(matches!(
            RunDir::create(parent.path(), "a", false),
            Err(RunError::Locked { .. })
        ));
        drop(lock);
    }

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let other = parent.path().join("a");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis.tex"), "").unwrap();
        let error = RunDir::create(parent.path(), "a", false).unwrap_err().to_string();
        assert!(error.contains("holds other files and no `run.json`"), "{error}");
        assert_eq!(entries(&other).unwrap(), [other.join("thesis.tex")]);
    }
}
