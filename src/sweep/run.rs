//! Runs arms as child processes, several at once, until all are finished or failed.
//!
//! An arm's next step is read from its directories each time: a killed sweep resumes, and two sweeps of one
//! directory share the work. The loop is single-threaded.

use super::{
    SweepError,
    arm::{Arm, Sweep},
    child::{Log, Process, last_error},
    config::OnFailure,
    resources::free_memory,
    state::{ArmState, End, Ran, Step, Train, state},
};
use crate::{stop::Stop, train::Progress};
use std::{
    collections::VecDeque,
    path::Path,
    process::ExitStatus,
    thread::sleep,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(50);
/// Polling interval for an arm that another sweep runs.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Limits of what runs at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of arms.
    pub at_once: usize,
    /// Threads of each arm; None sets no limit.
    pub threads: Option<usize>,
    /// Bytes that must be free before a further arm starts; None skips the check.
    pub memory: Option<u64>,
}

/// Runs the arms with these numbers.
///
/// # Errors
/// Errors of the sweep itself. An arm's failure is its [`End`].
pub fn run(
    sweep: &Sweep,
    arms: &[usize],
    limits: Limits,
    stop: &Stop,
    progress: &dyn Progress,
) -> Result<Ran, SweepError> {
    let mut runner = Runner {
        sweep,
        limits,
        stop,
        progress,
        waiting: arms.iter().map(|&arm| (arm, None)).collect(),
        active: Vec::new(),
        ran: Ran::default(),
        durations: Vec::new(),
        total: arms.len(),
        halted: false,
    };
    while !(runner.waiting.is_empty() && runner.active.is_empty()) {
        runner.turn()?;
        sleep(POLL);
    }
    let mut ran = runner.ran;
    ran.ends.sort_by_key(|(arm, _)| *arm);
    Ok(ran)
}

/// An arm at work.
struct Active {
    arm: usize,
    step: Step,
    process: Process,
    began: Instant,
    late: bool,
}

struct Runner<'a> {
    sweep: &'a Sweep,
    limits: Limits,
    stop: &'a Stop,
    progress: &'a dyn Progress,
    /// Arm index, and the earliest time of its next check.
    waiting: VecDeque<(usize, Option<Instant>)>,
    active: Vec<Active>,
    ran: Ran,
    /// Wall-clock times of arms that this process ran from start to end.
    durations: Vec<Duration>,
    total: usize,
    /// An arm failed and `on_failure` is `stop`.
    halted: bool,
}

impl Runner<'_> {
    fn turn(&mut self) -> Result<(), SweepError> {
        for _ in 0..self.active.len() {
            let mut active = self.active.remove(0);
            match active.process.poll()? {
                Some(status) => {
                    let next = self.ended(active, status)?;
                    self.active.extend(next);
                }
                None => {
                    self.check_time(&mut active);
                    self.active.push(active);
                }
            }
        }
        if self.stop.is_asked() || self.halted {
            self.active.iter_mut().for_each(|active| active.process.ask_to_stop());
            for (arm, _) in std::mem::take(&mut self.waiting) {
                self.ran.ends.push((arm, End::Interrupted));
            }
            return Ok(());
        }
        while self.has_room()
            && let Some(at) = self
                .waiting
                .iter()
                .position(|(_, after)| after.is_none_or(|t| t <= Instant::now()))
            && let Some((arm, _)) = self.waiting.remove(at)
        {
            self.begin(arm)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let enough = || match (self.limits.memory, free_memory()) {
            (Some(needed), Some(free)) => free >= needed,
            _ => true,
        };
        self.active.len() < self.limits.at_once && (self.active.is_empty() || enough())
    }

    fn check_time(&self, active: &mut Active) {
        let limit = self.sweep.config.time_limit_seconds.map(Duration::from_secs);
        if limit.is_some_and(|limit| active.began.elapsed() > limit) {
            active.late = true;
            active.process.ask_to_stop();
        }
    }

    fn begin(&mut self, index: usize) -> Result<(), SweepError> {
        let Some(arm) = self.sweep.arms.get(index) else {
            return Ok(());
        };
        let Some(log) = Log::take(&self.sweep.log_file(arm))? else {
            if !self.waiting.iter().any(|(_, after)| after.is_some()) {
                self.progress
                    .message(&format!("{} is being run by another process: waiting for it", arm.name));
            }
            self.waiting.push_back((index, Some(Instant::now() + LOOK_AGAIN)));
            return Ok(());
        };
        let found = state(self.sweep, arm).and_then(|found| clear_debris(&found).map(|()| found));
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.end(index, End::Failed(error.to_string())),
        };
        if found.is_finished() {
            self.ran.skipped += 1;
            self.ran.ends.push((index, End::Finished));
            return Ok(());
        }
        let how = match &found.train {
            Train::Missing => "starts".to_owned(),
            _ => format!("resumes ({})", found.describe(arm)),
        };
        let step = found.next();
        let process = self.start(arm, &step, log)?;
        self.active.push(Active {
            arm: index,
            step,
            process,
            began: Instant::now(),
            late: false,
        });
        self.progress.message(&format!("{} {how}", arm.name));
        Ok(())
    }

    fn start(&self, arm: &Arm, step: &Step, log: Log) -> Result<Process, SweepError> {
        let args = match step {
            Step::Train(false) => self.sweep.train_args(arm),
            Step::Train(true) => self.sweep.resume_args(arm),
            Step::Eval(index, resume) => self.sweep.eval_args(arm, *index, resume.as_deref()),
            Step::Nothing => Vec::new(),
        };
        Process::start(&args, self.limits.threads, log)
    }

    /// Starts the arm's next process and returns it, or records the arm's end.
    fn ended(&mut self, active: Active, status: ExitStatus) -> Result<Option<Active>, SweepError> {
        let Some(arm) = self.sweep.arms.get(active.arm) else {
            return Ok(None);
        };
        let log_file = self.sweep.log_file(arm);
        let found = match state(self.sweep, arm) {
            Ok(found) => found,
            Err(error) => return self.end(active.arm, End::Failed(error.to_string())).map(|()| None),
        };
        let next = found.next();
        let end = if next == Step::Nothing {
            self.durations.push(active.began.elapsed());
            End::Finished
        } else if active.late {
            End::Failed(format!(
                "not finished within time_limit_seconds = {} ({}); the next start of the sweep resumes it",
                self.sweep.config.time_limit_seconds.unwrap_or_default(),
                found.describe(arm)
            ))
        } else if self.stop.is_asked() || self.halted {
            End::Interrupted
        } else if status.success() && !same_step(&active.step, &next) {
            let Active { arm: index, began, .. } = active;
            let process = self.start(arm, &next, active.process.into_log())?;
            return Ok(Some(Active {
                arm: index,
                step: next,
                process,
                began,
                late: false,
            }));
        } else {
            End::Failed(failure(&log_file, status))
        };
        self.end(active.arm, end)?;
        Ok(None)
    }

    fn end(&mut self, index: usize, end: End) -> Result<(), SweepError> {
        let name = self.sweep.arms.get(index).map_or("", |arm| arm.name.as_str());
        let what = match &end {
            End::Finished => format!("{name} is done"),
            End::Failed(reason) => format!("{name} failed: {reason}"),
            End::Interrupted => format!("{name} is interrupted, a checkpoint is saved"),
        };
        if matches!(end, End::Failed(_)) && self.sweep.config.on_failure == OnFailure::Stop {
            self.halted = true;
        }
        self.ran.ends.push((index, end));
        self.progress.message(&format!("{what}; {}", self.counts()));
        Ok(())
    }

    /// `5 of 12 done, 2 running, 1 failed, about 3 min left`.
    fn counts(&self) -> String {
        let done = self.ran.ends.iter().filter(|(_, end)| *end == End::Finished).count();
        let running = self.active.len();
        let left = self.total.saturating_sub(self.ran.ends.len());
        let mut text = format!(
            "{done} of {} done, {running} running, {} failed",
            self.total,
            self.ran.failed()
        );
        if left > 0 && !self.stop.is_asked() && !self.halted {
            text += &match self.time_left(left) {
                Some(time) => format!(", about {} left", crate::text::duration(time.as_secs_f64())),
                None => ", time left unknown".to_owned(),
            };
        }
        text
    }

    /// Estimated from the arms that this process has finished.
    fn time_left(&self, arms: usize) -> Option<Duration> {
        let n = u32::try_from(self.durations.len()).ok().filter(|n| *n > 0)?;
        let mean = self.durations.iter().sum::<Duration>() / n;
        let begun: Duration = self.active.iter().map(|a| a.began.elapsed().min(mean)).sum();
        let work = mean.saturating_mul(u32::try_from(arms).ok()?).saturating_sub(begun);
        Some(work / u32::try_from(self.limits.at_once.min(arms).max(1)).ok()?)
    }
}

/// Whether a process has ended without progress: it would be restarted forever.
fn same_step(ended: &Step, next: &Step) -> bool {
    match (ended, next) {
        (Step::Train(_), Step::Train(_)) => true,
        (Step::Eval(a, _), Step::Eval(b, _)) => a == b,
        _ => false,
    }
}

fn failure(log: &Path, status: ExitStatus) -> String {
    let hint = match status.code() {
        None => "; the system kills processes this way when memory runs out",
        Some(_) => "",
    };
    match last_error(log) {
        Some(error) => error,
        None if status.success() => format!(
            "its process ended without an error and without being finished: see {}",
            log.display()
        ),
        None => format!("its process ended with {status}{hint}: see {}", log.display()),
    }
}

/// Removes a directory that a kill left before its run began.
fn clear_debris(found: &ArmState) -> Result<(), SweepError> {
    let run = &found.run;
    if found.train != Train::Missing || !run.exists() {
        return Ok(());
    }
    let entries = std::fs::read_dir(run).map_err(SweepError::io("reading", run))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = ["config.", "recipe.", "run."]
            .iter()
            .any(|start| name.trim_start_matches('.').starts_with(start));
        if !ours || entry.path().is_dir() {
            return Err(SweepError::Foreign(run.clone()));
        }
    }
    std::fs::remove_dir_all(run).map_err(SweepError::io("removing", run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(run: &Path) -> ArmState {
        ArmState {
            run: run.to_owned(),
            train: Train::Missing,
            evals: Vec::new(),
        }
    }

    #[test]
    fn what_a_kill_left_before_a_run_began_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a");
        clear_debris(&found(&run)).unwrap();

        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("config.yaml"), "").unwrap();
        std::fs::write(run.join(".run.json.tmp-a1B2c3"), "").unwrap();
        clear_debris(&found(&run)).unwrap();
        assert!(!run.exists());

        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("thesis.tex"), "").unwrap();
        assert!(matches!(clear_debris(&found(&run)), Err(SweepError::Foreign(_))));
        assert!(run.join("thesis.tex").exists());
    }

    #[test]
    fn a_process_that_changed_nothing_is_not_started_again() {
        assert!(same_step(&Step::Train(false), &Step::Train(true)));
        assert!(same_step(&Step::Eval(0, None), &Step::Eval(0, Some("a".into()))));
        assert!(!same_step(&Step::Eval(0, None), &Step::Eval(1, None)));
        assert!(!same_step(&Step::Train(true), &Step::Eval(0, None)));
    }
}
