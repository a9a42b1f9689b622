//! One schedule: a run, what disturbs it, and its verdict.

use crate::{
    compare::{Scar, differences},
    config::{Config, STEPS},
    problem::{Outcome, Problem},
    process::{Ended, LONGEST, Running, lines},
    world::{RUN, Reference, World},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A run that is disturbed. Everything that is drawn follows from its seed.
#[derive(Debug)]
pub struct Schedule<'a> {
    pub world: &'a World,
    pub config: Config,
    /// The undisturbed run.
    pub reference: &'a Reference,
    pub random: StdRng,
    /// Settings in addition to the configuration's.
    pub set: Vec<String>,
    home: PathBuf,
    processes: usize,
}

impl<'a> Schedule<'a> {
    /// The schedule of a seed, in the new directory `home`.
    pub fn new(world: &'a World, config: Config, seed: u64, home: PathBuf) -> Result<Self, Problem> {
        let runs = home.join("runs");
        fs::create_dir_all(&runs).map_err(Problem::io("making", &runs))?;
        Ok(Self {
            reference: world.reference(&config)?,
            world,
            config,
            random: StdRng::seed_from_u64(seed),
            set: Vec::new(),
            home,
            processes: 0,
        })
    }

    /// Its directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of runs.
    pub fn runs(&self) -> PathBuf {
        self.home.join("runs")
    }

    /// The run's directory.
    pub fn run(&self) -> PathBuf {
        self.runs().join(RUN)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// A moment at a share of the time that the undisturbed run took.
    pub fn moment(&mut self, share: Range<f64>) -> Duration {
        Duration::from_secs_f64(self.reference.seconds * self.random.random_range(share))
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, several: &[T]) -> T {
        several[self.random.random_range(0..several.len())]
    }

    /// The command that begins the run or, where there is something to resume, resumes it.
    pub fn next_command(&self) -> Command {
        let mut command = if self.run().join("run.json").exists() {
            self.world.resume(&self.home, &self.config, RUN)
        } else {
            self.world.train(&self.home, &self.config)
        };
        command.args(self.set.iter().flat_map(|set| ["--set", set]));
        command
    }

    /// A name for what the next process says.
    pub fn log(&mut self) -> PathBuf {
        self.processes += 1;
        self.home.join(format!("log-{}.txt", self.processes))
    }

    /// Starts a command.
    pub fn start(&mut self, command: &mut Command) -> Result<Running, Problem> {
        let log = self.log();
        Running::start(command, log, false)
    }

    /// Starts the next process of the run.
    pub fn start_next(&mut self) -> Result<Running, Problem> {
        let mut command = self.next_command();
        self.start(&mut command)
    }

    /// Runs the next process to its end.
    pub fn run_next(&mut self) -> Result<Ended, Problem> {
        self.start_next()?.wait()
    }

    /// Starts the run and kills it after a random number of steps of a random stage.
    pub fn interrupt(&mut self) -> Result<(), Problem> {
        let stage = if self.config.pipeline == "critic" && self.chance(0.3) {
            "critic/metrics.jsonl"
        } else {
            "metrics.jsonl"
        };
        let (log, wanted) = (self.run().join(stage), self.random.random_range(1..STEPS + 3));
        let mut running = self.start_next()?;
        if running.until(LONGEST, || lines(&log) >= wanted)? {
            return running.wait()?.check_success("the run before the fault");
        }
        running.kill()?.check_sound()
    }

    /// Runs to the end without a fault, and compares.
    pub fn finish(&mut self) -> Result<Outcome, Problem> {
        let ended = self.run_next()?;
        ended.check_success("the run without a fault")?;
        self.compare(&[])
    }

    /// Compares the run that has ended with the undisturbed one.
    pub fn compare(&self, scars: &[Scar]) -> Result<Outcome, Problem> {
        let found = differences(&self.reference.run, &self.run(), scars);
        if found.is_empty() {
            return Ok(Outcome::Identical);
        }
        let shown: Vec<String> = found.iter().take(3).map(|d| d.chars().take(300).collect()).collect();
        Problem::wrong(format!("{} differences: {}", found.len(), shown.join("; ")))
    }
}
