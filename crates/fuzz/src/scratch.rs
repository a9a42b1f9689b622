//! A directory in memory in which inputs become files.

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

/// A directory that is removed in the end.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// A new one, in `/dev/shm` where there is such a directory.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new() -> io::Result<Self> {
        let shared = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("wmtp-fuzz-");
        let made = match shared.is_dir() {
            true => builder.tempdir_in(shared)?,
            false => builder.tempdir()?,
        };
        Ok(Self(made))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Writes a file; a target without its file has nothing to try.
pub fn put(path: &Path, bytes: &[u8]) -> PathBuf {
    let write = || fs::File::create(path)?.write_all(bytes);
    if let Err(error) = write() {
        panic!("the scratch directory cannot be written, {}: {error}", path.display());
    }
    path.to_owned()
}

/// An empty directory of this name.
pub fn emptied(path: &Path) -> PathBuf {
    let made = match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(path),
    };
    if let Err(error) = made {
        panic!("the scratch directory cannot be emptied, {}: {error}", path.display());
    }
    path.to_owned()
}

/// The parts of an input as files of an empty directory. Names that leave it, or that are none, are left out.
pub fn spread(path: &Path, parts: &[(String, Vec<u8>)]) -> PathBuf {
    let dir = emptied(path);
    for (name, content) in parts {
        let plain = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || name.len() > 200 || name.contains('\0') || !Path::new(name).components().all(plain) {
            continue;
        }
        let file = dir.join(name);
        // A name may be a file's and a folder's at once; the first one stays.
        let _ = file.parent().map(fs::create_dir_all);
        let _ = fs::write(file, content);
    }
    dir
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_files_and_stay_inside() {
        let scratch = Scratch::new().unwrap();
        let part = |name: &str| (name.to_owned(), b"x".to_vec());
        let dir = spread(
            &scratch.path().join("d"),
            &[part("a/b.json"), part("../out"), part("/abs"), part(""), part("c")],
        );
        assert!(dir.join("a/b.json").is_file() && dir.join("c").is_file());
        assert!(!scratch.path().join("out").exists());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        assert_eq!(fs::read_dir(emptied(&dir)).unwrap().count(), 0);
    }
}
