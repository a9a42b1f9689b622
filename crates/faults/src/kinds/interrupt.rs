//! Kills, other signals, stops, and several processes at once.

use crate::{
    problem::{Outcome, Problem},
    process::Ended,
    schedule::Schedule,
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// SIGKILL one to four times, at random moments from the start of the process to its end.
pub fn kill(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    for _ in 0..schedule.one_of(&[1, 2, 3, 4]) {
        let mut running = schedule.start_next()?;
        let moment = schedule.moment(0.02..1.05);
        if running.until(moment, || false)? {
            running.wait()?.check_success("a run that was not killed")?;
            break;
        }
        let ended = running.kill()?;
        ended.check_sound()?;
    }
    schedule.finish()
}

/// The program saves a checkpoint and stops.
const ASKS: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1];
/// The process ends at once.
const ENDS: [i32; 13] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGSYS,
];
/// The run takes no notice.
const NONE: [i32; 5] = [
    libc::SIGPIPE,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
];

/// One to four signals of any kind, some of them twice in short order.
pub fn signal(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    for _ in 0..schedule.one_of(&[1, 2, 3, 4]) {
        let group: &[i32] = schedule.one_of(&[&ASKS[..], &ASKS[..], &ENDS[..], &NONE[..]]);
        let signal = schedule.one_of(group);
        let twice = schedule.chance(0.2);
        let mut running = schedule.start_next()?;
        let moment = schedule.moment(0.02..1.05);
        if running.until(moment, || false)? {
            running.wait()?.check_success("a run that got no signal")?;
            break;
        }
        running.signal(signal)?;
        if twice {
            let pause = schedule.moment(0.0..0.05);
            sleep(pause);
            running.signal(signal)?;
        }
        let ended = running.wait()?;
        check_signal(&ended, signal)?;
        if ended.is_success() {
            break;
        }
    }
    schedule.finish()
}

/// How a process may end that got this signal, once or twice.
fn check_signal(ended: &Ended, signal: i32) -> Result<(), Problem> {
    // The default of the system: it came before the program listened, or the program leaves it as it is.
    if !NONE.contains(&signal) && ended.is_by(signal) {
        return Ok(());
    }
    if !ASKS.contains(&signal) || ended.is_success() {
        return ended.check_success(&format!("a run that got signal {signal}"));
    }
    ended.check_sound()?;
    match ended.status.code() {
        // The second one ends it at once, with the code that shells give to a signal.
        Some(code) if code == 128 + signal => Ok(()),
        Some(1) if ended.said.contains("asked to stop") || ended.said.contains("stopped") => Ok(()),
        _ => Problem::wrong(format!(
            "signal {signal} ended the run with {} and these words: {}",
            ended.status, ended.said
        )),
    }
}

/// Stopped up to four times for some tenths of a second; in some schedules killed while it is stopped.
pub fn stop_and_continue(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let mut running = schedule.start_next()?;
    for _ in 0..schedule.one_of(&[1, 2, 3, 4]) {
        let moment = schedule.moment(0.05..0.4);
        let until = Instant::now() + moment;
        if running.until(crate::process::LONGEST, || Instant::now() >= until)? {
            break;
        }
        let stop = schedule.one_of(&[libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN]);
        running.signal(stop)?;
        sleep(Duration::from_millis(schedule.one_of(&[10, 100, 300, 700])));
        if schedule.chance(0.1) {
            running.kill()?.check_sound()?;
            return schedule.finish();
        }
        running.signal(libc::SIGCONT)?;
    }
    running.wait()?.check_success("a run that was stopped and continued")?;
    schedule.compare(&[])
}

/// Two or three processes that resume one run at once, in half of the schedules while the first one still runs.
pub fn together(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let mut running = Vec::new();
    if schedule.chance(0.5) {
        schedule.interrupt()?;
    } else {
        let record = schedule.run().join("run.json");
        let mut first = schedule.start_next()?;
        first.until(crate::process::LONGEST, || record.exists())?;
        running.push(first);
    }
    for _ in 0..schedule.one_of(&[2, 3]) {
        if !schedule.run().join("run.json").exists() {
            break;
        }
        running.push(schedule.start_next()?);
        let pause = schedule.moment(0.0..0.2);
        sleep(pause);
    }
    let mut succeeded = running.is_empty();
    for process in running {
        let ended = process.wait()?;
        succeeded |= ended.is_success();
        if !ended.is_success() {
            ended.check_refusal(&["works on the run".into()])?;
        }
    }
    if !succeeded {
        return Problem::wrong("each process says that another one works on the run");
    }
    // A process that was refused may have ended last: nothing is left to do but by the run itself.
    schedule.finish()
}
