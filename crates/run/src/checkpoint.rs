//! Checkpoints: complete or absent, each file's hash in a manifest that is written last.
//!
//! A checkpoint is written under a temporary name and renamed into place; `last` becomes `previous`
//! in the same move, so that at every instant a complete one exists. One whose files do not match
//! their hashes is named and passed over, and the one before it is used.

use super::{
    CheckpointError, RunError, TrainerState,
    file::{LAST, PREVIOUS, STEP_PREFIX, TRAINER},
    manifest::{Manifest, entries, file_name, hash, sync_dir, write_manifest},
    write_atomically,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Is told of every checkpoint that is complete, as soon as it is in its place: something that copies
/// it elsewhere, say. It must return at once, and what becomes of its copy is its own affair.
pub trait Mirror: fmt::Debug + Send + Sync {
    /// The checkpoint `name` (`last`, `best`, `step-000500`) lies in `dir` now, until the next of this name.
    fn saved(&self, name: &str, dir: &Path);
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    root: PathBuf,
    mirror: Option<Arc<dyn Mirror>>,
}

impl CheckpointStore {
    /// The store in a directory, which is made; what a killed writer left half-done is removed.
    pub fn open(root: PathBuf) -> Result<Self, CheckpointError> {
        fs::create_dir_all(&root).map_err(RunError::io("making", &root))?;
        for path in entries(&root)? {
            if file_name(&path).starts_with(".tmp-") {
                fs::remove_dir_all(&path).map_err(RunError::io("removing", &path))?;
            }
        }
        Ok(Self { root, mirror: None })
    }

    /// The same, telling `mirror` of every checkpoint.
    pub fn with_mirror(mut self, mirror: Option<Arc<dyn Mirror>>) -> Self {
        self.mirror = mirror;
        self
    }

    fn tell(&self, name: &str, dir: &Path) {
        if let Some(mirror) = &self.mirror {
            mirror.saved(name, dir);
        }
    }

    /// Writes the checkpoint `last`; the former `last` becomes `previous`. `write` puts the model
    /// and optimizer files into the directory that it is given.
    pub fn save(
        &self,
        state: &TrainerState,
        write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
    ) -> Result<PathBuf, CheckpointError> {
        self.put(state, write, true)
    }

    /// The same for a `last` that has these weights already: it is replaced, and `previous` stays what it is.
    pub fn renew(
        &self,
        state: &TrainerState,
        write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
    ) -> Result<PathBuf, CheckpointError> {
        self.put(state, write, false)
    }

    fn put(
        &self,
        state: &TrainerState,
        write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
        moves_on: bool,
    ) -> Result<PathBuf, CheckpointError> {
        let temporary = self.temporary("save");
        remove_dir(&temporary)?;
        fs::create_dir_all(&temporary).map_err(RunError::io("making", &temporary))?;
        let whole = || {
            write(&temporary)?;
            let json = serde_json::to_vec_pretty(state).map_err(|e| CheckpointError::Content {
                path: temporary.clone(),
                problem: e.to_string(),
            })?;
            write_atomically(&temporary.join(TRAINER), &json)?;
            write_manifest(&temporary, state.step, true)
        };
        // On a full disk what was written would keep it full.
        whole().inspect_err(|_| _ = remove_dir(&temporary))?;

        let (last, previous) = (self.root.join(LAST), self.root.join(PREVIOUS));
        // Without a `previous`, `last` would be missing for an instant with nothing in its place.
        let moves_on = moves_on || !previous.exists();
        if last.exists() {
            let old = self.temporary("old");
            remove_dir(&old)?;
            if !moves_on {
                rename(&last, &old)?;
            } else {
                if previous.exists() {
                    rename(&previous, &old)?;
                }
                rename(&last, &previous)?;
            }
            rename(&temporary, &last)?;
            remove_dir(&old)?;
        } else {
            rename(&temporary, &last)?;
        }
        sync_dir(&self.root)?;
        self.tell(LAST, &last);
        Ok(last)
    }

    /// Keeps `last` under another name (`best`, `step-000500`). `fill` gets the directory of `last` and the
    /// new one; [`link_files`] makes it a full checkpoint without a second copy on the disk.
    pub fn keep(
        &self,
        name: &str,
        fill: impl FnOnce(&Path, &Path) -> Result<(), CheckpointError>,
    ) -> Result<PathBuf, CheckpointError> {
        let (last, kept) = (self.root.join(LAST), self.root.join(name));
        let temporary = self.temporary(name);
        remove_dir(&temporary)?;
        fs::create_dir_all(&temporary).map_err(RunError::io("making", &temporary))?;
        fill(&last, &temporary)?;
        let old = self.temporary("old");
        remove_dir(&old)?;
        if kept.exists() {
            rename(&kept, &old)?;
        }
        rename(&temporary, &kept)?;
        remove_dir(&old)?;
        self.tell(name, &kept);
        Ok(kept)
    }

    /// Removes the oldest `step-*` checkpoints beyond `keep` (0: keeps all).
    pub fn prune(&self, keep: usize) -> Result<(), CheckpointError> {
        let mut steps: Vec<PathBuf> = entries(&self.root)?
            .into_iter()
            .filter(|p| file_name(p).starts_with(STEP_PREFIX))
            .collect();
        steps.sort();
        if keep > 0 {
            let surplus = steps.len().saturating_sub(keep);
            for path in &steps[..surplus] {
                remove_dir(path)?;
            }
        }
        Ok(())
    }

    /// The newest checkpoint that can be resumed and whose files are what its manifest says. Damaged ones
    /// are handed to `report`, one sentence each, and passed over.
    pub fn newest(&self, report: &mut dyn FnMut(&str)) -> Result<(PathBuf, TrainerState), CheckpointError> {
        let mut candidates = Vec::new();
        let mut damaged = Vec::new();
        let mut incomplete = Vec::new();
        for path in entries(&self.root)? {
            if file_name(&path).starts_with('.') || !path.is_dir() {
                continue;
            }
            match Manifest::read(&path) {
                Ok(manifest) if !manifest.resumable => incomplete.push(not_resumable(&path)),
                // At equal steps `last` is taken before its other names.
                Ok(manifest) => candidates.push((manifest.step, file_name(&path) == LAST, path)),
                Err(error) => damaged.push(error.to_string()),
            }
        }
        candidates.sort();
        for problem in &damaged {
            report(problem);
        }
        for (_, _, path) in candidates.into_iter().rev() {
            match verify(&path) {
                Ok(state) => return Ok((path, state)),
                Err(error) => {
                    report(&error.to_string());
                    damaged.push(error.to_string());
                }
            }
        }
        damaged.extend(incomplete);
        Err(CheckpointError::None {
            dir: self.root.clone(),
            damaged,
        })
    }

    /// What is wrong, a sentence each, with the checkpoints but `resumed`: files that are missing or have another
    /// size than their manifest says. Their content is not hashed: that would read every checkpoint of the run.
    ///
    /// # Errors
    /// What the file system says.
    pub fn incomplete(&self, resumed: &Path) -> Result<Vec<String>, CheckpointError> {
        let mut problems = Vec::new();
        for path in entries(&self.root)? {
            if file_name(&path).starts_with('.') || !path.is_dir() || path == resumed {
                continue;
            }
            let problem = Manifest::read(&path)
                .and_then(|manifest| check_sizes(&path, &manifest))
                .err();
            problems.extend(problem.map(|problem| problem.to_string()));
        }
        Ok(problems)
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.root.join(format!(".tmp-{name}"))
    }
}

/// Checks every file of a checkpoint against its manifest and reads the trainer's state.
pub fn verify(path: &Path) -> Result<TrainerState, CheckpointError> {
    let manifest = Manifest::read(path)?;
    check_sizes(path, &manifest)?;
    for (name, expected) in &manifest.files {
        if hash(&path.join(name))?.sha256 != expected.sha256 {
            let problem = format!("`{name}` was altered (its SHA-256 is not the manifest's)");
            return Err(damaged(path, problem));
        }
    }
    let trainer = path.join(TRAINER);
    let text = fs::read_to_string(&trainer).map_err(RunError::io("reading", &trainer))?;
    serde_json::from_str(&text).map_err(|e| damaged(path, format!("`{TRAINER}`: {e}")))
}

/// Whether every file is there with the size that the manifest says.
fn check_sizes(path: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    for (name, expected) in &manifest.files {
        let found = fs::metadata(path.join(name)).ok().filter(fs::Metadata::is_file);
        let problem = match found.map(|file| file.len()) {
            None => format!("`{name}` is missing"),
            Some(bytes) if bytes == expected.bytes => continue,
            Some(bytes) => format!("`{name}` has {bytes} bytes instead of {}", expected.bytes),
        };
        return Err(damaged(path, problem));
    }
    Ok(())
}

fn damaged(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.into(),
        problem,
    }
}

/// Links the files of a checkpoint into the directory `to`, but those that `left_out` names and those that
/// are there already. File systems without hard links get a copy.
pub fn link_files(from: &Path, to: &Path, left_out: impl Fn(&str) -> bool) -> Result<(), CheckpointError> {
    for file in entries(from)? {
        let name = file_name(&file);
        let target = to.join(&name);
        if left_out(&name) || target.exists() {
            continue;
        }
        if fs::hard_link(&file, &target).is_err() {
            fs::copy(&file, &target).map_err(RunError::io("copying", &file))?;
        }
    }
    Ok(())
}

/// Writes the manifest of a kept checkpoint that holds less than `from`, a full one: it can't be resumed.
pub fn write_manifest_of_kept(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    write_manifest(to, Manifest::read(from)?.step, false)
}

/// Why a kept checkpoint is passed over, and what to do with it.
fn not_resumable(path: &Path) -> String {
    format!(
        "`{}` holds the model without all of its training state and cannot be resumed: start a new run from it with `--model`",
        path.display()
    )
}

fn rename(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    Ok(fs::rename(from, to).map_err(RunError::io("renaming", from))?)
}

fn remove_dir(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RunError::io("removing", path)(e).into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, CheckpointStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(dir.path().join("checkpoints")).unwrap();
        (dir, store)
    }

    fn save(store: &CheckpointStore, step: usize) {
        let state = TrainerState {
            step,
            ..TrainerState::new("r".into(), "d".into())
        };
        store
            .save(&state, |dir| {
                Ok(write_atomically(
                    &dir.join("weights"),
                    format!("weights {step}").as_bytes(),
                )?)
            })
            .unwrap();
    }

    fn keep(store: &CheckpointStore, name: &str) {
        store.keep(name, |from, to| link_files(from, to, |_| false)).unwrap();
    }

    #[test]
    fn the_newest_is_used_and_the_one_before_is_kept() {
        let (_dir, store) = store();
        for step in [1, 2, 3] {
            save(&store, step);
        }
        let (path, state) = store.newest(&mut |_| panic!("nothing is damaged")).unwrap();
        assert_eq!((file_name(&path).as_str(), state.step), ("last", 3));
        assert_eq!(verify(&store.root.join("previous")).unwrap().step, 2);
    }

    #[test]
    fn a_renewed_checkpoint_leaves_the_one_before_where_it_is() {
        let (_dir, store) = store();
        for step in [1, 2] {
            save(&store, step);
        }
        let state = TrainerState {
            step: 7,
            ..TrainerState::new("r".into(), "d".into())
        };
        let write = |dir: &Path| Ok(write_atomically(&dir.join("weights"), b"weights 2")?);
        store.renew(&state, write).unwrap();
        assert_eq!(verify(&store.root.join("last")).unwrap().step, 7);
        assert_eq!(verify(&store.root.join("previous")).unwrap().step, 1);
        assert_eq!(entries(&store.root).unwrap().len(), 2);
    }

    #[test]
    fn files_that_other_checkpoints_lack_are_named() {
        let (_dir, store) = store();
        save(&store, 1);
        for name in ["best", "step-1", "step-2"] {
            keep(&store, name);
        }
        save(&store, 2);
        let (last, _) = store.newest(&mut |_| panic!("nothing is damaged")).unwrap();
        assert_eq!(store.incomplete(&last).unwrap(), [""; 0]);
        // Removed first: the files of one step are one file with several names.
        for name in ["best", "step-1"] {
            fs::remove_file(store.root.join(name).join("weights")).unwrap();
        }
        fs::write(store.root.join("step-1/weights"), "weigh").unwrap();
        let said = store.incomplete(&last).unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("best") && said[0].ends_with("`weights` is missing"),
            "{said:?}"
        );
        assert!(
            said[1].contains("step-1") && said[1].ends_with("has 5 bytes instead of 9"),
            "{said:?}"
        );
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
        for damage in ["truncate", "alter", "remove", "manifest"] {
            let (_dir, store) = store();
            save(&store, 1);
            save(&store, 2);
            let file = store.root.join("last/weights");
            match damage {
                "truncate" => fs::write(&file, "weigh").unwrap(),
                "alter" => fs::write(&file, "weights 9").unwrap(),
                "remove" => fs::remove_file(&file).unwrap(),
                _ => fs::write(store.root.join("last/manifest.json"), "{\"format\": 1, \"st").unwrap(),
            }
            let mut said = Vec::new();
            let (path, state) = store.newest(&mut |s| said.push(s.to_string())).unwrap();
            assert_eq!((file_name(&path).as_str(), state.step), ("previous", 1), "{damage}");
            assert_eq!(said.len(), 1, "{damage}");
            assert!(said[0].contains("last") && said[0].contains("damaged"), "{said:?}");
        }
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_never_taken() {
        let (_dir, store) = store();
        save(&store, 1);
        fs::create_dir(store.root.join(".tmp-save")).unwrap();
        fs::write(store.root.join(".tmp-save/weights"), "half").unwrap();
        let store = CheckpointStore::open(store.root.clone()).unwrap();
        assert!(!store.root.join(".tmp-save").exists());
        assert_eq!(store.newest(&mut |_| ()).unwrap().1.step, 1);
    }

    #[test]
    fn only_the_newest_step_checkpoints_are_kept() {
        let (_dir, store) = store();
        for step in [100, 200, 300] {
            save(&store, step);
            keep(&store, &format!("step-{step:06}"));
        }
        store.prune(2).unwrap();
        assert!(!store.root.join("step-000100").exists());
        assert_eq!(verify(&store.root.join("step-000200")).unwrap().step, 200);
    }

    #[test]
    fn a_mirror_hears_of_complete_checkpoints_only() {
        #[derive(Debug, Default)]
        struct Heard(std::sync::Mutex<Vec<(String, usize)>>);
        impl Mirror for Heard {
            fn saved(&self, name: &str, dir: &Path) {
                let step = verify(dir).unwrap().step;
                self.0.lock().unwrap().push((name.to_owned(), step));
            }
        }
        let (_dir, store) = store();
        let heard = Arc::new(Heard::default());
        let store = store.with_mirror(Some(heard.clone()));
        save(&store, 1);
        keep(&store, "best");
        save(&store, 2);
        let heard = heard.0.lock().unwrap();
        let expected = [("last", 1), ("best", 1), ("last", 2)].map(|(name, step)| (name.to_owned(), step));
        assert_eq!(*heard, expected);
    }

    #[test]
    fn nothing_usable_is_an_error_that_says_why() {
        let (_dir, store) = store();
        save(&store, 1);
        fs::write(store.root.join("last/weights"), "x").unwrap();
        let error = store.newest(&mut |_| ()).unwrap_err().to_string();
        assert!(
            error.contains("no complete checkpoint") && error.contains("weights"),
            "{error}"
        );
    }
}
