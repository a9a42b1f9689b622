//! Clocks that are wrong and that jump: the wall clock by a small library that answers in place of the C library,
//! the monotonic clock by a time namespace.

use crate::{
    problem::{Outcome, Problem},
    schedule::Schedule,
    system,
};
use rand::RngExt;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const LIBRARY: &str = include_str!("../clock.c");
const YEAR: i64 = 31_557_600;

/// The library, built once, in the directory `dir`.
fn library(dir: &Path) -> Result<PathBuf, String> {
    // The compiler is asked once, by whichever worker comes first.
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        fs::write(&source, LIBRARY).map_err(|e| e.to_string())?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source);
        let output = compiler.output().map_err(|e| format!("cc can't be started: {e}"))?;
        if output.status.success() {
            Ok(library)
        } else {
            Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
    });
    built.clone()
}

/// Whether time namespaces are there, and work for a process from its start.
fn has_time_namespaces() -> bool {
    let uptime = |shift: i64| {
        let mut command = Command::new("cat");
        command.arg("/proc/uptime");
        if shift != 0 {
            system::shift_clocks(&mut command, shift).ok()?;
        }
        let text = String::from_utf8(command.output().ok()?.stdout).ok()?;
        text.split('.').next()?.parse::<i64>().ok()
    };
    uptime(0)
        .zip(uptime(1_000_000))
        .is_some_and(|(now, shifted)| shifted - now > 900_000)
}

/// Why clocks can't be made wrong here.
pub fn missing(dir: &Path) -> Option<String> {
    let problem = library(dir).err()?;
    Some(format!(
        "needs a C compiler for the library with the wrong clock ({problem}); install one"
    ))
}

/// Two processes of a run, each with clocks of its own: the wall clock anywhere from 1926 to 9990, in half of them
/// with jumps back and forth, and the monotonic clock anywhere.
pub fn run(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let until_interrupted = schedule.moment(0.3..0.9);
    for interrupted in [true, false] {
        let mut command = schedule.next_command();
        disturb(schedule, &mut command)?;
        let mut running = schedule.start(&mut command)?;
        if interrupted && !running.until(until_interrupted, || false)? {
            running.kill()?.check_sound()?;
            continue;
        }
        running.wait()?.check_success("a run with wrong clocks")?;
    }
    schedule.compare(&[])
}

fn disturb(schedule: &mut Schedule<'_>, command: &mut Command) -> Result<(), Problem> {
    let place = schedule.home().to_owned();
    let library = library(schedule.world.dir()).map_err(Problem::Wrong)?;
    // From now, which is in the 2020s or later.
    let shift = match schedule.random.random_range(0..4) {
        0 => schedule.random.random_range(-100 * YEAR..-40 * YEAR),
        1 => schedule.random.random_range(-YEAR..YEAR),
        2 => schedule.random.random_range(0..200 * YEAR),
        _ => schedule.random.random_range(200 * YEAR..7_900 * YEAR),
    };
    command
        .env("LD_PRELOAD", library)
        .env("FAULTS_CLOCK_SHIFT", shift.to_string());
    if schedule.chance(0.5) {
        let jump = schedule.one_of(&[-YEAR, -3600, -1, 1, 3600, YEAR]);
        let period = schedule.random.random_range(1..400);
        command.env("FAULTS_CLOCK_JUMP", jump.to_string());
        command.env("FAULTS_CLOCK_PERIOD", period.to_string());
    }
    if has_time_namespaces() && schedule.chance(0.5) {
        let shift = schedule.random.random_range(0..100 * YEAR);
        system::shift_clocks(command, shift).map_err(Problem::io("shifting the clocks of", &place))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_shifts_the_wall_clock_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let library = library(dir.path()).unwrap_or_else(|problem| panic!("the tests need a C compiler: {problem}"));
        let date = |shift: i64| {
            let mut command = Command::new("date");
            command.arg("+%s").env("LD_PRELOAD", &library);
            command.env("FAULTS_CLOCK_SHIFT", shift.to_string());
            let output = command.output().expect("date");
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .parse::<i64>()
                .expect("seconds")
        };
        let apart = date(1_000_000) - date(0);
        assert!((999_990..=1_000_010).contains(&apart), "{apart}");
    }
}
