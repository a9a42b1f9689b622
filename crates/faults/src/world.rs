//! The program under test, and what its runs give without a fault.

use crate::{
    config::{COUNT, Config},
    problem::Problem,
    process::Running,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The name of every run.
pub const RUN: &str = "run";

/// An undisturbed run.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its directory.
    pub run: PathBuf,
    /// Wall-clock seconds of its process.
    pub seconds: f64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Largest address space of its process, in bytes.
    pub address_space: u64,
}

/// The program, a directory for everything, and the undisturbed run of each configuration, made when it is first
/// asked for.
#[derive(Debug)]
pub struct World {
    program: PathBuf,
    dir: PathBuf,
    references: [OnceLock<Result<Reference, String>>; COUNT],
}

impl World {
    /// Works in `dir`.
    pub fn new(program: PathBuf, dir: PathBuf) -> Self {
        Self {
            program,
            dir,
            references: Default::default(),
        }
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The program in the directory `home`, with an environment that no setting of the caller's reaches.
    pub fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let ours = |key: &str| {
            ["WMTP_", "HF_", "AWS_", "MLFLOW_"]
                .iter()
                .any(|start| key.starts_with(start))
        };
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(ours) {
                command.env_remove(key);
            }
        }
        command
            .current_dir(home)
            .env("WMTP_PATHS__CACHE", self.dir.join("cache"));
        command
    }

    /// `wmtp train` of a configuration.
    pub fn train(&self, home: &Path, config: &Config) -> Command {
        let mut command = self.command(home);
        command.args([
            "train",
            config.pipeline,
            "--plain",
            "--output",
            "runs",
            "--run-name",
            RUN,
        ]);
        command.args(config.set.iter().flat_map(|set| ["--set", set]));
        command
    }

    /// `wmtp train --resume` of a run, by its name or its address.
    pub fn resume(&self, home: &Path, config: &Config, run: &str) -> Command {
        let mut command = self.command(home);
        command.args(["train", config.pipeline, "--plain", "--output", "runs", "--resume", run]);
        command
    }

    /// The undisturbed run of a configuration.
    ///
    /// # Errors
    /// It failed.
    pub fn reference(&self, config: &Config) -> Result<&Reference, Problem> {
        let reference = self.references[config.index].get_or_init(|| self.make(config).map_err(|e| e.to_string()));
        reference
            .as_ref()
            .map_err(|e| Problem::Wrong(format!("the undisturbed run of {} failed: {e}", config.name)))
    }

    fn make(&self, config: &Config) -> Result<Reference, Problem> {
        let home = self.dir.join("undisturbed").join(&config.name);
        fs::create_dir_all(&home).map_err(Problem::io("making", &home))?;
        let mut running = Running::start(&mut self.train(&home, config), home.join("log.txt"), false)?;
        running.until(crate::process::LONGEST, || false)?;
        let address_space = running.address_space;
        let ended = running.wait()?;
        ended.check_success("it")?;
        let run = home.join("runs").join(RUN);
        Ok(Reference {
            seconds: ended.seconds,
            bytes: size(&run),
            address_space,
            run,
        })
    }
}

/// Bytes of all files below a directory, hard links counted once for each name.
pub fn size(dir: &Path) -> u64 {
    files(dir)
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// All files below a directory, in order.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}
