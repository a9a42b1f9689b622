//! Ending early in an orderly way: Ctrl-C, SIGTERM, a terminal or a parent that goes away.
//!
//! A long command asks a [`Stop`] now and then and saves what it has when the answer is yes. A second
//! Ctrl-C or SIGTERM ends the process at once.

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Asks once more or less without being taken for impatience, as a second SIGTERM is.
#[cfg(unix)]
const GENTLE: i32 = signal_hook::consts::SIGUSR1;
#[cfg(not(unix))]
const GENTLE: i32 = SIGTERM;

/// A variable that makes the program end as by SIGUSR1 when its standard input ends. Who started it
/// holds the other end of that pipe, and so asks it to stop by closing it, or by dying in any way.
pub const STOP_AT_EOF: &str = "WMTP_STOP_AT_EOF";

/// Whether this process was started to ignore a signal; unknown, so false, but on Linux.
#[cfg(unix)]
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Whether the work under way is to be saved and left. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    unsaved: Arc<AtomicBool>,
}

impl Stop {
    const POLL: Duration = Duration::from_millis(50);

    /// Whether somebody asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Asks.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Asks to leave the work under way without saving it.
    pub fn ask_without_saving(&self) {
        self.unsaved.store(true, Ordering::Relaxed);
        self.ask();
    }

    /// Whether what there is should be saved before the end.
    pub fn saves(&self) -> bool {
        !self.unsaved.load(Ordering::Relaxed)
    }

    /// From now on SIGINT, SIGTERM, SIGUSR1 and, unless it is ignored, SIGHUP ask; a second one of the first two ends
    /// the process with the exit code that shells give to a signal (128 and its number).
    ///
    /// # Errors
    /// What the system says.
    pub fn on_signals(&self) -> io::Result<()> {
        let once = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and the next one finds it up.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&once))?;
            flag::register(signal, Arc::clone(&once))?;
            flag::register(signal, Arc::clone(&self.asked))?;
        }
        flag::register(GENTLE, Arc::clone(&self.asked))?;
        // A terminal that goes away, unless `nohup` said that this is to make no difference.
        #[cfg(unix)]
        if !ignores(signal_hook::consts::SIGHUP) {
            flag::register(signal_hook::consts::SIGHUP, Arc::clone(&self.asked))?;
        }
        Ok(())
    }

    /// Calls `then` soon after somebody asked, from another thread, until what is returned is dropped.
    pub fn watch(&self, then: impl FnOnce() + Send + 'static) -> Watch {
        let (stop, over) = (self.clone(), Stop::default());
        let done = over.clone();
        let thread = thread::spawn(move || {
            while !done.is_asked() {
                if stop.is_asked() {
                    then();
                    return;
                }
                thread::sleep(Self::POLL);
            }
        });
        Watch {
            over,
            thread: Some(thread),
        }
    }
}

/// Ends the watching when dropped.
#[derive(Debug)]
pub struct Watch {
    over: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.ask();
        if let Some(thread) = self.thread.take() {
            // A panic in `then` was printed by its thread.
            let _ = thread.join();
        }
    }
}

/// Where [`STOP_AT_EOF`] is set: SIGUSR1 for this process when its standard input ends.
pub fn follow_standard_input() {
    if std::env::var_os(STOP_AT_EOF).is_none() {
        return;
    }
    thread::spawn(|| {
        // An error is an end as well.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = low_level::raise(GENTLE);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_watch_calls_once_when_asked_and_never_after_it_was_dropped() {
        let stop = Stop::default();
        let (send, received) = mpsc::channel();
        let watch = stop.watch(move || send.send(()).unwrap());
        assert!(received.try_recv().is_err());
        stop.ask();
        received.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(watch);

        let quiet = Stop::default();
        let (send, received) = mpsc::channel();
        drop(quiet.watch(move || send.send(()).unwrap()));
        quiet.ask();
        assert_eq!(received.recv(), Err(mpsc::RecvError), "the watcher is gone");
    }
}
