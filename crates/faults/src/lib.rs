//! Disturbs short training runs by schedules that a seed draws, and compares how they end with undisturbed runs.
//!
//! ```text
//! wmtp-faults --kind kill --kind damaged --schedules 20
//! ```
//!
//! A run is `wmtp train` of the built-in micro model for a few steps, at one of the configurations in `config`.
//! It is disturbed by a fault of a `kinds::Kind`, the fault is taken away, and the run is resumed. It must end as
//! the undisturbed run did, bit for bit (`compare`), or it is refused with a sentence that names the cause. A
//! panic, a crash, a process that hangs and any other error is a failure.

#![cfg(target_os = "linux")]

mod bucket;
mod compare;
mod config;
mod http;
mod kinds;
mod moments;
mod problem;
mod process;
mod schedule;
mod system;
mod table;
mod world;

use clap::Parser;
use kinds::Kind;
use problem::Problem;
use schedule::Schedule;
use std::{
    collections::VecDeque,
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};
use table::{Failure, Row};
use world::World;

/// Schedules of a kind whose time is spent waiting, at most.
const MOST_THAT_WAIT: u64 = 30;

/// Disturb short training runs and compare how they end with undisturbed ones.
#[derive(Debug, Parser)]
#[command(name = "wmtp-faults", version)]
struct Args {
    /// The program under test
    #[arg(long, default_value = "target/release/wmtp")]
    program: PathBuf,
    /// A kind of fault; may be given several times [default: all]
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Schedules of each kind; at most 30 of those that wait for the clock
    #[arg(long, default_value_t = 16)]
    schedules: u64,
    /// Seed of the first schedule of each kind; the next one has the next number
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Begin no schedule after this many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Schedules at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    jobs: u64,
    /// Keep the directories of the schedules that failed
    #[arg(long)]
    keep: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Parses the command line, runs the schedules and prints their table.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the workers share.
struct Work<'a> {
    begun: Instant,
    world: &'a World,
    args: &'a Args,
    left: Mutex<VecDeque<(usize, u64)>>,
    done: Mutex<(Vec<Row>, Vec<Failure>)>,
}

/// True if no schedule failed.
fn run(args: &Args) -> Result<bool, Problem> {
    let program = fs::canonicalize(&args.program).map_err(Problem::io("finding the program", &args.program))?;
    let place = std::env::temp_dir();
    let mut dir = tempfile::Builder::new()
        .prefix("wmtp-faults-")
        .tempdir()
        .map_err(Problem::io("making a directory in", &place))?;
    dir.disable_cleanup(args.keep);
    let world = World::new(program, dir.path().to_owned());
    let kinds = if args.kinds.is_empty() {
        Kind::ALL.to_vec()
    } else {
        args.kinds.clone()
    };
    let mut left = VecDeque::new();
    for (row, kind) in kinds.iter().enumerate() {
        let most = if kind.waits() { MOST_THAT_WAIT } else { u64::MAX };
        left.extend(
            (args.seed..)
                .take(args.schedules.min(most) as usize)
                .map(|seed| (row, seed)),
        );
    }
    let work = Work {
        begun: Instant::now(),
        world: &world,
        args,
        left: Mutex::new(left),
        done: Mutex::new((kinds.iter().copied().map(Row::new).collect(), Vec::new())),
    };
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| work.run());
        }
    });
    let (rows, failures) = work.done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let text = if args.json {
        format!("{:#}\n", table::json(&rows, &failures))
    } else {
        table::text(&rows)
    };
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(Problem::io("writing to", "standard output".as_ref()))?;
    if args.keep {
        let _ = writeln!(io::stderr(), "kept: {}", dir.path().display());
    }
    Ok(failures.is_empty())
}

impl Work<'_> {
    /// One worker: schedules until none is left. Its mounts are its own.
    fn run(&self) {
        let has_mounts = system::private_mounts().is_ok();
        loop {
            let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((row, seed)) = next else { return };
            if self
                .args
                .seconds
                .is_some_and(|most| self.begun.elapsed().as_secs() >= most)
            {
                return;
            }
            let kind = {
                let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.0[row].kind
            };
            if let Some(reason) = kind.missing(has_mounts, self.world.dir()) {
                let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
                done.0[row].left_out = Some(reason);
                continue;
            }
            self.schedule(row, kind, seed, has_mounts);
        }
    }

    fn schedule(&self, row: usize, kind: Kind, seed: u64, has_mounts: bool) {
        let config = kind.config(seed);
        let home = self.world.dir().join(format!("{kind}-{seed}"));
        // Once for each configuration, and not part of the schedule's time.
        let ready = self.world.reference(&config).map(|_| ());
        let started = Instant::now();
        let ended = ready
            .and_then(|()| Schedule::new(self.world, config.clone(), seed, home.clone()))
            .and_then(|mut schedule| kind.run(&mut schedule, has_mounts));
        let seconds = started.elapsed().as_secs_f64();
        if ended.is_ok() || !self.args.keep {
            // The whole directory goes at the end.
            let _ = fs::remove_dir_all(&home);
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.0[row].add(&ended, seconds);
        if let Err(problem) = ended {
            let failure = Failure {
                kind,
                seed,
                config: config.name,
                problem: problem.to_string(),
            };
            let _ = writeln!(io::stderr(), "{}", failure.line());
            done.1.push(failure);
        }
    }
}
