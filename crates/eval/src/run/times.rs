//! Where a run's time goes.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Shares of the time in which a run drew and judged samples, from 0 to 1; zeros where an earlier process had judged
/// all. Drawing and judging overlap, so they do not add up to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeShares {
    /// The model generates.
    pub model: f64,
    /// The model waits for a judge to have room.
    pub waiting: f64,
    /// A judge is at work, the mean over all judges.
    pub judges: f64,
    /// Nothing generates, and no judge is at work.
    pub idle: f64,
}

/// What is measured, by several threads.
pub(super) struct Times {
    started: Instant,
    drawing: AtomicU64,
    waiting: AtomicU64,
    judging: AtomicU64,
    /// Who is at work: judges, and the model; and since when it was nobody.
    at_work: Mutex<(usize, Instant, Duration)>,
}

impl Times {
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            drawing: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            judging: AtomicU64::new(0),
            at_work: Mutex::new((0, now, Duration::ZERO)),
        }
    }

    /// Counts `work` as drawing, of which [`Times::waiting`] is taken off.
    pub fn drawing<R>(&self, work: impl FnOnce() -> R) -> R {
        self.during(&self.drawing, work)
    }

    /// Counts `work`, inside of [`Times::drawing`], as waiting.
    pub fn waiting<R>(&self, work: impl FnOnce() -> R) -> R {
        self.stop_work();
        let started = Instant::now();
        let done = work();
        self.waiting.fetch_add(nanoseconds(started), Relaxed);
        self.begin_work();
        done
    }

    /// Counts `work` as a judge's.
    pub fn judging<R>(&self, work: impl FnOnce() -> R) -> R {
        self.during(&self.judging, work)
    }

    fn during<R>(&self, total: &AtomicU64, work: impl FnOnce() -> R) -> R {
        self.begin_work();
        let started = Instant::now();
        let done = work();
        total.fetch_add(nanoseconds(started), Relaxed);
        self.stop_work();
        done
    }

    /// What a thread that panicked left is taken over.
    fn at_work(&self) -> MutexGuard<'_, (usize, Instant, Duration)> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_work(&self) {
        let mut at_work = self.at_work();
        if at_work.0 == 0 {
            let nobody = at_work.1.elapsed();
            at_work.2 += nobody;
        }
        at_work.0 += 1;
    }

    fn stop_work(&self) {
        let mut at_work = self.at_work();
        at_work.0 = at_work.0.saturating_sub(1);
        at_work.1 = Instant::now();
    }

    /// Up to now, with this many judges.
    pub fn shares(&self, judges: usize) -> TimeShares {
        let total = self.started.elapsed().as_secs_f64().max(1e-9);
        let share = |of: &AtomicU64| of.load(Relaxed) as f64 / 1e9 / total;
        let at_work = self.at_work();
        let nobody = match at_work.0 {
            0 => at_work.2 + at_work.1.elapsed(),
            _ => at_work.2,
        };
        let waiting = share(&self.waiting);
        TimeShares {
            model: (share(&self.drawing) - waiting).max(0.0),
            waiting,
            judges: share(&self.judging) / judges.max(1) as f64,
            idle: nobody.as_secs_f64() / total,
        }
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    /// 40 ms of drawing, of which 20 wait; then 20 ms of nothing; then 20 ms of one of two judges.
    #[test]
    fn shares_are_those_of_what_happened() {
        let times = Times::new();
        let twenty = Duration::from_millis(20);
        times.drawing(|| {
            sleep(twenty);
            times.waiting(|| sleep(twenty));
        });
        sleep(twenty);
        times.judging(|| sleep(twenty));
        let (shares, total) = (times.shares(2), times.started.elapsed().as_secs_f64());
        let seconds = |share: f64| share * total;
        // A sleep takes at least as long as it says, and nothing here takes less.
        for (what, share, at_least) in [
            ("model", shares.model, 0.02),
            ("waiting", shares.waiting, 0.02),
            ("judges", shares.judges, 0.01),
            ("idle", shares.idle, 0.04),
        ] {
            assert!(seconds(share) >= 0.99 * at_least, "{what}: {shares:?} of {total}");
        }
        let all = shares.model + shares.waiting + 2.0 * shares.judges;
        assert!(
            all <= 1.01 && shares.idle <= 1.0 - shares.model - 2.0 * shares.judges + 0.01,
            "{shares:?}"
        );
    }
}
