//! Many programs on a bounded number of threads.

use crate::{Limits, Outcome, Program, Runner, SandboxError};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Runs all `programs` on at most `threads` threads; outcomes come in the order of the programs.
pub fn run_all<R: Runner + ?Sized>(
    runner: &R,
    programs: &[Program<'_>],
    limits: &Limits,
    threads: usize,
) -> Vec<Result<Outcome, SandboxError>> {
    map_bounded(programs, threads, |program| runner.run(program, limits))
}

/// Applies `job` to every item on at most `threads` threads, the caller's among them. Results come
/// in the order of the items. A panic of `job` is resumed in the caller.
pub fn map_bounded<I: Sync, T: Send>(items: &[I], threads: usize, job: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let result = job(item);
            done.lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, items.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.sort_unstable_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_and_no_more_threads_work_than_allowed() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<u64> = (0..40).collect();
        let squares = map_bounded(&items, 3, |i| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(1));
            now.fetch_sub(1, Ordering::SeqCst);
            i * i
        });
        assert_eq!(squares, items.iter().map(|i| i * i).collect::<Vec<_>>());
        assert!((2..=3).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        assert_eq!(map_bounded(&[] as &[u64], 8, |i| *i), Vec::<u64>::new());
        assert_eq!(map_bounded(&[5], 0, |i| *i), [5]);
    }
}
