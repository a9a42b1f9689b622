//! Short parallel work without waiting for threads to wake up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The task has not begun: whoever comes stays awake for it.
const OPEN: u8 = 0;
/// It has begun: whoever comes now goes.
const BEGUN: u8 = 1;
/// It is over: all go.
const OVER: u8 = 2;

/// Longest wait for the other threads before a task begins.
const WAIT: Duration = Duration::from_micros(100);
/// Looks for work in vain before the processor is given to whoever wants it.
const SPINS: u32 = 64;

/// Runs on a thread of rayon's pool. From outside of it each matrix product costs a hand-off between
/// threads, while the pool's idle threads spin on the same cores.
///
/// A step of decoding has some two hundred products and attentions of some dozens of microseconds, with less than
/// that between them. The pool's other threads would fall asleep there, and to be woken takes as long as a product:
/// those that come before the task begins look for its work until it is over.
///
/// A thread that came later might sit in a job of the task itself, which could then never end. One that comes before
/// holds at most jobs of tasks that began earlier, so that tasks wait for later ones only, and never in a circle.
pub fn in_pool<R: Send>(task: impl FnOnce() -> R + Send) -> R {
    let state = Arc::new(State::default());
    let _over = Over(state.clone());
    rayon::scope(|_| {
        let own = rayon::current_thread_index();
        let others = rayon::current_num_threads() - 1;
        let theirs = state.clone();
        rayon::spawn_broadcast(move |context| {
            if Some(context.index()) != own {
                theirs.stay();
            }
        });
        let called = Instant::now();
        while state.come.load(Ordering::Acquire) < others && called.elapsed() < WAIT {
            std::hint::spin_loop();
        }
        state.now.store(BEGUN, Ordering::Release);
        task()
    })
}

/// What a task and the threads that stay awake for it share.
#[derive(Default)]
struct State {
    now: AtomicU8,
    /// Threads that came in time.
    come: AtomicUsize,
}

impl State {
    /// Works for the pool until the task is over.
    fn stay(&self) {
        if self.now.load(Ordering::Acquire) != OPEN {
            return;
        }
        self.come.fetch_add(1, Ordering::AcqRel);
        let mut idle = 0;
        while self.now.load(Ordering::Acquire) != OVER {
            match rayon::yield_now() {
                Some(rayon::Yield::Executed) => idle = 0,
                _ if idle < SPINS => {
                    idle += 1;
                    std::hint::spin_loop();
                }
                _ => std::thread::yield_now(),
            }
        }
    }
}

/// Ends a task, also one that panics.
struct Over(Arc<State>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.now.store(OVER, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    /// Tasks of joins within joins, from many threads at once, in pools of any size: all end.
    #[test]
    fn tasks_at_once_end() {
        fn sum(from: u64, to: u64) -> u64 {
            match to - from {
                0 | 1 => from,
                count => {
                    let (left, right) = rayon::join(|| sum(from, from + count / 2), || sum(from + count / 2, to));
                    left + right
                }
            }
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let found = pool.install(|| {
                                in_pool(|| {
                                    let all: u64 = (0..8u64).into_par_iter().map(|i| sum(64 * i, 64 * (i + 1))).sum();
                                    all
                                })
                            });
                            assert_eq!(found, 511 * 512 / 2);
                        }
                    });
                }
            });
        }
    }

    /// Within a job of the task it would wait for itself.
    #[test]
    fn whoever_comes_late_goes() {
        let state = Arc::new(State::default());
        state.now.store(BEGUN, Ordering::Release);
        let (say, said) = std::sync::mpsc::channel();
        let late = state.clone();
        let thread = std::thread::spawn(move || {
            late.stay();
            say.send(()).unwrap();
        });
        let gone = said.recv_timeout(Duration::from_secs(20));
        state.now.store(OVER, Ordering::Release);
        thread.join().unwrap();
        assert!(gone.is_ok() && state.come.load(Ordering::Acquire) == 0);
    }

    #[test]
    fn a_task_that_panics_lets_the_others_go() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for _ in 0..20 {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| in_pool(|| panic!("meant")))
            }));
            assert!(caught.is_err());
        }
        assert_eq!(
            pool.install(|| in_pool(|| (0..100u64).into_par_iter().sum::<u64>())),
            4950
        );
    }
}
