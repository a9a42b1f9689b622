//! Too few file descriptors, too little memory.

use crate::{
    problem::{Outcome, Problem},
    process::Ended,
    schedule::Schedule,
    system::Limit,
};
use rand::RngExt;

/// What the error of a process says that has too few file descriptors: the system's words, or the loader's.
const FILES: [&str; 2] = ["Too many open files", "os error 24"];
/// What the error of a process says that has too little memory: its own words (a thread takes address space as well),
/// or the system's.
const MEMORY: [&str; 4] = [
    "of memory cannot be had",
    "a thread can't be started",
    "Cannot allocate memory",
    "os error 12",
];

/// A limit of a few descriptors from the start, or at a random moment.
pub fn files(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let most = schedule.random.random_range(3..40);
    let ended = limited(schedule, Limit::Files, most)?;
    if ended.is_success() {
        return schedule.compare(&[]);
    }
    // Without a descriptor the loader does not find the program's libraries.
    if ended.status.code() != Some(127) {
        ended.check_refusal(&FILES.map(str::to_owned))?;
    }
    schedule.finish()
}

/// A limit of address space from the start, or at a random moment: any part of what the undisturbed run took.
pub fn memory(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let peak = schedule.reference.address_space;
    let most = schedule.random.random_range(peak / 20..peak + peak / 10);
    let ended = limited(schedule, Limit::Memory, most)?;
    if ended.is_success() {
        return schedule.compare(&[]);
    }
    // Where an allocation fails, the process ends at once with a sentence of Rust's runtime; the run is whole.
    let aborted = ended.is_by(libc::SIGABRT) && ended.said.contains("memory allocation of ");
    // The loader, or the kernel before it, has no room for the program.
    let unloaded = ended.status.code() == Some(127) || (ended.is_by(libc::SIGSEGV) && ended.said.is_empty());
    if !aborted && !unloaded {
        ended.check_refusal(&MEMORY.map(str::to_owned))?;
    }
    schedule.finish()
}

fn limited(schedule: &mut Schedule<'_>, limit: Limit, most: u64) -> Result<Ended, Problem> {
    let mut command = schedule.next_command();
    if schedule.chance(0.5) {
        limit.before(&mut command, most);
        return schedule.start(&mut command)?.wait();
    }
    let mut running = schedule.start(&mut command)?;
    let moment = schedule.moment(0.05..0.9);
    if !running.until(moment, || false)? {
        let limited = limit.on(running.pid(), most);
        limited.map_err(Problem::io("limiting", schedule.home()))?;
    }
    running.wait()
}
