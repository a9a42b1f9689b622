//! A case's folder as a fresh copy, and the commands that run in it.

use crate::common::wmtp;
use safetensors::{SafeTensors, tensor::TensorView};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// A copy of `tests/cases/NAME` in a temporary directory, shared files included.
pub struct Case {
    home: TempDir,
    name: &'static str,
}

impl Case {
    /// Copies the case.
    pub fn new(name: &'static str) -> Self {
        let home = TempDir::new().expect("a temporary directory");
        let from = cases().join(name);
        let to = home.path().join(name);
        copy(&from, &to);
        if let Ok(list) = fs::read_to_string(from.join("shared.txt")) {
            for line in list.lines() {
                let (path, shared) = line.split_once(' ').expect("`PATH shared/FILE`");
                let path = to.join(path);
                fs::create_dir_all(path.parent().expect("inside the case")).expect("a folder");
                fs::copy(cases().join(shared), path).expect("a shared file");
            }
        }
        Self { home, name }
    }

    /// Copies a further case next to this one, as `../NAME`.
    pub fn with(self, name: &'static str) -> Self {
        let other = Self::new(name);
        copy(&other.dir(), &self.home.path().join(name));
        self
    }

    /// The copy's directory.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join(self.name)
    }

    /// A path inside the copy.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir().join(relative)
    }

    /// The built program in the case's directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = wmtp(&self.dir());
        command.args(args);
        command
    }

    /// Runs the program and returns what came out, whatever the exit code.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }

    /// Runs a command that must succeed and returns its JSON document.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        crate::common::json(&crate::common::succeed(&mut self.command(args)))
    }

    /// Runs a command that must end with `code`, and returns its standard error.
    pub fn refused(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        text
    }

    /// Mean cross-entropy (nats) of head 1 over `text.txt` by `wmtp score --json`.
    pub fn mean_ce(&self, model: &str) -> f64 {
        let report = self.json(&["score", "--model", model, "--text", "text.txt", "--json"]);
        let ce: Vec<f64> = report["ce"][0]
            .as_array()
            .expect("a list")
            .iter()
            .map(|ce| ce.as_f64().expect("a number"))
            .collect();
        ce.iter().sum::<f64>() / ce.len() as f64
    }

    /// Writes `to` with the tensors of `from` (paths inside the copy): `change` maps a tensor's name
    /// and bytes to its new name and bytes; `None` leaves it out.
    pub fn derive_tensors(
        &self,
        from: &str,
        to: &str,
        mut change: impl FnMut(&str, &[u8]) -> Option<(String, Vec<u8>)>,
    ) {
        let bytes = fs::read(self.path(from)).expect("a tensor file");
        let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
        let changed: Vec<_> = tensors
            .iter()
            .filter_map(|(name, view)| {
                let (name, data) = change(name, view.data())?;
                Some((name, data, view.dtype(), view.shape().to_vec()))
            })
            .collect();
        let views = changed.iter().map(|(name, data, dtype, shape)| {
            let view = TensorView::new(*dtype, shape.clone(), data).expect("as many bytes as before");
            (name.clone(), view)
        });
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        let bytes = safetensors::serialize(views, metadata).expect("tensors");
        fs::write(self.path(to), bytes).expect("a tensor file");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "shared.txt" {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}
