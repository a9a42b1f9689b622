//! Disks that are too small, fill up, or become read-only.

use crate::{
    problem::{Outcome, Problem},
    process::Ended,
    schedule::Schedule,
    system::{self, Limit},
    world,
};
use rand::RngExt;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// Space for a run and all that it writes in between.
const AMPLE: u64 = 1 << 30;
const FULL: &str = "No space left on device";
const TOO_LARGE: &str = "File too large";
const READ_ONLY: &str = "Read-only file system";

/// A file system in memory on the directory of the runs; it is unmounted on drop.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(schedule: &Schedule<'_>, size: u64, files: u64) -> Result<Self, Problem> {
        let at = schedule.runs();
        system::mount_memory(&at, size, files).map_err(Problem::io("mounting a file system on", &at))?;
        Ok(Self { at })
    }

    fn make_ample(&self) -> Result<(), Problem> {
        system::resize_memory(&self.at, AMPLE).map_err(Problem::io("making more space on", &self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It would go with the thread that mounted it.
        let _ = system::unmount(&self.at);
    }
}

/// A disk of any size, or with any number of files, or one that fills up in the middle, or a bound on the size of a
/// file. Once there is space the run ends as the undisturbed one.
pub fn full(schedule: &mut Schedule<'_>, has_mounts: bool) -> Result<Outcome, Problem> {
    // More than a run leaves: a checkpoint is whole before its predecessor goes.
    let most = schedule.reference.bytes * 3 / 2;
    let way = schedule.random.random_range(0..8);
    if !has_mounts || way == 0 {
        let size = schedule.random.random_range(0..most / 8);
        let mut command = schedule.next_command();
        Limit::FileSize.before(&mut command, size);
        let ended = schedule.start(&mut command)?.wait()?;
        return after(schedule, &ended, &[TOO_LARGE]);
    }
    let (size, files) = match way {
        1 => (AMPLE, schedule.random.random_range(1..90)),
        2 => (AMPLE, 0),
        // Small disks are many: half of the sizes are below a fifth of the run.
        3 | 4 => (schedule.random.random_range(4096..most / 5), 0),
        _ => (schedule.random.random_range(4096..most), 0),
    };
    let disk = Disk::new(schedule, size, files)?;
    let ended = if way == 2 {
        fills_up(schedule, &disk)?
    } else {
        schedule.run_next()?
    };
    disk.make_ample()?;
    let ended = kept(schedule, &disk, |schedule| after(schedule, &ended, &[FULL]));
    drop(disk);
    ended
}

/// Something else takes all the space at a random moment, and some time later it may give it back.
fn fills_up(schedule: &mut Schedule<'_>, disk: &Disk) -> Result<Ended, Problem> {
    let mut running = schedule.start_next()?;
    let moment = schedule.moment(0.05..0.9);
    if running.until(moment, || false)? {
        return running.wait();
    }
    let used = world::size(&disk.at);
    let other = disk.at.join("other");
    // As large as it is now, or a little larger.
    let left = schedule.random.random_range(0..64_u64) << 10;
    let resized = system::resize_memory(&disk.at, (used + left).next_multiple_of(4096).max(4096));
    if resized.is_err() {
        // It has grown meanwhile: something takes what is left.
        fill(&other).map_err(Problem::io("filling", &other))?;
    }
    if schedule.chance(0.5) {
        let pause = schedule.moment(0.05..0.3);
        let until = Instant::now() + pause;
        if !running.until(crate::process::LONGEST, || Instant::now() >= until)? {
            _ = fs::remove_file(&other);
            disk.make_ample()?;
        }
    }
    let ended = running.wait();
    _ = fs::remove_file(&other);
    ended
}

/// Writes zeros until there is no space.
fn fill(path: &Path) -> io::Result<()> {
    system::resize_memory(path.parent().unwrap_or(path), 16 << 20)?;
    let mut file = File::create(path)?;
    let zeros = vec![0; 64 << 10];
    loop {
        match file.write_all(&zeros) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => return Ok(()),
            other => other?,
        }
    }
}

/// What came of a run that was short of space, and how it ends with enough.
fn after(schedule: &mut Schedule<'_>, ended: &Ended, causes: &[&str]) -> Result<Outcome, Problem> {
    if ended.is_success() {
        return schedule.compare(&[]);
    }
    let causes: Vec<String> = causes.iter().map(|cause| (*cause).to_owned()).collect();
    ended.check_refusal(&causes)?;
    schedule.finish()
}

/// Runs the last part of a schedule; where it fails, the files are copied from the disk, which goes.
fn kept(
    schedule: &mut Schedule<'_>,
    disk: &Disk,
    end: impl FnOnce(&mut Schedule<'_>) -> Result<Outcome, Problem>,
) -> Result<Outcome, Problem> {
    let ended = end(schedule);
    if ended.is_err() {
        let to = schedule.home().join("disk");
        for file in world::files(&disk.at) {
            let Ok(name) = file.strip_prefix(&disk.at) else {
                continue;
            };
            let target = to.join(name);
            let copied = fs::create_dir_all(target.parent().unwrap_or(&to)).and_then(|()| fs::copy(&file, &target));
            copied.map_err(Problem::io("copying to", &target))?;
        }
    }
    ended
}

/// The directory of the runs is read-only from the start or before the run is resumed, or a part of the run's
/// directory becomes so in the middle.
pub fn read_only(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    match schedule.random.random_range(0..4) {
        0 => {
            let runs = schedule.runs();
            refused_while_read_only(schedule, &runs)?;
        }
        1 => {
            schedule.interrupt()?;
            let part = part(schedule);
            refused_while_read_only(schedule, &part)?;
        }
        _ => in_the_middle(schedule)?,
    }
    schedule.finish()
}

/// The run's directory, or one in it, or a log.
fn part(schedule: &mut Schedule<'_>) -> PathBuf {
    let run = schedule.run();
    let parts = [
        "",
        "checkpoints",
        "critic",
        "metrics.jsonl",
        "events.jsonl",
        "steps.jsonl",
        "checkpoints/last",
    ];
    let there: Vec<PathBuf> = parts
        .iter()
        .map(|part| run.join(part))
        .filter(|part| part.exists())
        .collect();
    match there.len() {
        0 => schedule.runs(),
        n => there[schedule.random.random_range(0..n)].clone(),
    }
}

/// Read-only until drop.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(at: &'a Path) -> Result<Self, Problem> {
        system::read_only(at).map_err(Problem::io("making read-only", at))?;
        Ok(Self(at))
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        let _ = system::unmount(self.0);
    }
}

fn refused_while_read_only(schedule: &mut Schedule<'_>, at: &Path) -> Result<(), Problem> {
    let mut command = schedule.next_command();
    let guard = ReadOnly::new(at)?;
    let ended = schedule.start(&mut command)?.wait()?;
    drop(guard);
    check(&ended)
}

fn in_the_middle(schedule: &mut Schedule<'_>) -> Result<(), Problem> {
    let mut running = schedule.start_next()?;
    let moment = schedule.moment(0.1..0.95);
    if running.until(moment, || false)? {
        return running.wait()?.check_success("the run before the fault");
    }
    let part = part(schedule);
    let Ok(guard) = ReadOnly::new(&part) else {
        // It was renamed or removed in this moment.
        return running.wait()?.check_success("the run without a fault");
    };
    let ended = running.wait();
    drop(guard);
    check(&ended?)
}

fn check(ended: &Ended) -> Result<(), Problem> {
    if ended.is_success() {
        return Ok(());
    }
    // A directory that is a mount can't be renamed.
    ended.check_refusal(&[READ_ONLY.into(), "Device or resource busy".into()])
}
