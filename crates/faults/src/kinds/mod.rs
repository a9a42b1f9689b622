//! The kinds of faults.

mod clock;
mod disk;
mod files;
mod interrupt;
mod limits;
mod output;
mod servers;

use crate::{
    config::Config,
    problem::{Outcome, Problem},
    schedule::Schedule,
};
use std::{fmt, path::Path};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// SIGKILL at random moments.
    Kill,
    /// Every other signal at random moments.
    Signal,
    /// SIGSTOP, and SIGCONT some time later.
    StopContinue,
    /// Several processes that resume one run at once.
    Together,
    /// Standard output and standard error that are full, closed or read to a part only.
    Output,
    /// Disks of every size, disks that fill up in the middle, and bounds on the size of a file.
    FullDisk,
    /// A directory or a file that becomes read-only.
    ReadOnly,
    /// A bit of any file of the run's directory is flipped.
    Damaged,
    /// Any file of the run's directory is cut, emptied or removed, or a directory is removed.
    Cut,
    /// An S3 server that answers slowly, wrongly, partly or never.
    S3,
    /// A tracking server that does.
    Mlflow,
    /// Clocks that are wrong and that jump.
    Clock,
    /// Too few file descriptors.
    Fds,
    /// Too little address space.
    Memory,
}

impl Kind {
    /// All of them, in the order of their table.
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::Signal,
        Self::StopContinue,
        Self::Together,
        Self::Output,
        Self::FullDisk,
        Self::ReadOnly,
        Self::Damaged,
        Self::Cut,
        Self::S3,
        Self::Mlflow,
        Self::Clock,
        Self::Fds,
        Self::Memory,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Signal => "signal",
            Self::StopContinue => "stop-continue",
            Self::Together => "together",
            Self::Output => "output",
            Self::FullDisk => "full-disk",
            Self::ReadOnly => "read-only",
            Self::Damaged => "damaged",
            Self::Cut => "cut",
            Self::S3 => "s3",
            Self::Mlflow => "mlflow",
            Self::Clock => "clock",
            Self::Fds => "fds",
            Self::Memory => "memory",
        }
    }

    /// What the schedule of a seed trains: other kinds begin at other configurations, so that a few schedules of
    /// each train all of them.
    pub fn config(self, seed: u64) -> Config {
        Config::of(seed.wrapping_add(2 * self as u64))
    }

    /// Whether its schedules spend their time waiting: of them fewer are run.
    pub fn waits(self) -> bool {
        matches!(self, Self::StopContinue | Self::S3 | Self::Mlflow | Self::Clock)
    }

    /// Why this machine or this user can't make such faults; None where they can. `dir` is for what they
    /// need.
    pub fn missing(self, has_mounts: bool, dir: &Path) -> Option<String> {
        match self {
            Self::ReadOnly if !has_mounts => {
                Some("needs mounts of its own, which the system gives to root alone; run it as root".into())
            }
            Self::Clock => clock::missing(dir),
            _ => None,
        }
    }

    /// Runs a schedule.
    ///
    /// # Errors
    /// What the program did that it must not do.
    pub fn run(self, schedule: &mut Schedule<'_>, has_mounts: bool) -> Result<Outcome, Problem> {
        match self {
            Self::Kill => interrupt::kill(schedule),
            Self::Signal => interrupt::signal(schedule),
            Self::StopContinue => interrupt::stop_and_continue(schedule),
            Self::Together => interrupt::together(schedule),
            Self::Output => output::run(schedule),
            Self::FullDisk => disk::full(schedule, has_mounts),
            Self::ReadOnly => disk::read_only(schedule),
            Self::Damaged => files::damaged(schedule),
            Self::Cut => files::cut(schedule),
            Self::S3 => servers::s3(schedule),
            Self::Mlflow => servers::mlflow(schedule),
            Self::Clock => clock::run(schedule),
            Self::Fds => limits::files(schedule),
            Self::Memory => limits::memory(schedule),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_kind_has_the_name_that_the_command_line_takes() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_str(kind.name(), false), Ok(kind));
        }
        assert_eq!(Kind::ALL.len(), Kind::value_variants().len());
    }
}
