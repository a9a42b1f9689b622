//! What an execution may not do: take too much memory, or too long, or panic.
//!
//! The allocator of every program that links this crate counts the bytes that are in use. A second thread looks
//! every few milliseconds at the running execution.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    panic,
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Most bytes that an execution may add to those in use when it begins.
pub const MEMORY: usize = 300 << 20;
/// An allocation beyond this many added bytes fails, so that the machine's own memory is never used up.
const REFUSED: usize = 2 << 30;
/// The longest that an execution may take.
pub const TIME: Duration = Duration::from_secs(5);
/// Exit code of a process that an execution held for longer than [`TIME`].
pub const TOO_LONG: i32 = 71;
/// Exit code of a process in which an execution took more memory than [`MEMORY`].
pub const TOO_LARGE: i32 = 72;

/// Bytes in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// The most of them since the execution began.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Those that an allocation may not go beyond.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// When the running execution began, in milliseconds from the first one, plus 1; 0 between executions.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Counts the bytes in use.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn add(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed).saturating_add(size);
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn may_add(size: usize) -> bool {
    LIVE.load(Ordering::Relaxed).saturating_add(size) <= MOST.load(Ordering::Relaxed)
}

// SAFETY: every call goes to the system's allocator with the arguments as they came, or gives null, which says that
// there is no memory. The counters have no influence on what is returned otherwise.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !may_add(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !may_add(layout.size()) {
            return std::ptr::null_mut();
        }
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && !may_add(size - layout.size()) {
            return std::ptr::null_mut();
        }
        match size.checked_sub(layout.size()) {
            Some(more) => add(more),
            None => {
                LIVE.fetch_sub(layout.size() - size, Ordering::Relaxed);
            }
        }
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Milliseconds since this was first called.
fn now() -> u64 {
    static FIRST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut first = FIRST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = first.get_or_insert_with(Instant::now);
    u64::try_from(first.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Resident bytes of the process, by Linux: they hold what C libraries allocate.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// Starts the thread that ends the process where an execution takes too long or too much.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        now();
        thread::spawn(|| {
            let mut before = resident();
            let mut last = 0;
            loop {
                thread::sleep(Duration::from_millis(20));
                let begun = BEGUN.load(Ordering::Relaxed);
                if begun == 0 {
                    continue;
                }
                if begun != last {
                    (last, before) = (begun, resident());
                }
                let added = resident().saturating_sub(before);
                if added > MEMORY {
                    eprintln!("an execution took {} MiB of resident memory", added >> 20);
                    std::process::exit(TOO_LARGE);
                }
                if now().saturating_sub(begun - 1) > u64::try_from(TIME.as_millis()).unwrap_or(u64::MAX) {
                    eprintln!("an execution took more than {} s", TIME.as_secs());
                    std::process::exit(TOO_LONG);
                }
            }
        });
    });
}

/// What an execution took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes beyond those that were in use.
    pub bytes: usize,
    /// Of the clock.
    pub time: Duration,
}

thread_local! {
    /// Whether a panic of this thread is kept from standard error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Place and words of the last panic of a quiet thread.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Makes panics inside [`measured`] quiet; others are reported as ever.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                *PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(info.to_string());
            } else {
                before(info);
            }
        }));
    });
}

/// Runs an execution; what it took, and its outcome or the words of its panic.
pub fn measured<T>(run: impl FnOnce() -> T) -> (Taken, Result<T, String>) {
    install_hook();
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    MOST.store(live.saturating_add(REFUSED), Ordering::Relaxed);
    let begun = Instant::now();
    BEGUN.store(now() + 1, Ordering::Relaxed);
    let outer = QUIET.replace(true);
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(run));
    QUIET.set(outer);
    BEGUN.store(0, Ordering::Relaxed);
    let time = begun.elapsed();
    MOST.store(usize::MAX, Ordering::Relaxed);
    let bytes = PEAK.load(Ordering::Relaxed).saturating_sub(live);
    let outcome = outcome.map_err(|_| {
        let said = PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        said.unwrap_or_else(|| "a panic without words".into())
    });
    (Taken { bytes, time }, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the counters are the process's.
    #[test]
    fn memory_time_and_panics_are_seen() {
        let (taken, outcome) = measured(|| vec![1u8; 50 << 20].len());
        assert_eq!(outcome, Ok(50 << 20));
        // Other tests of the process take and free some meanwhile.
        assert!((49 << 20..60 << 20).contains(&taken.bytes), "{taken:?}");
        let (taken, _) = measured(|| thread::sleep(Duration::from_millis(30)));
        assert!(taken.time >= Duration::from_millis(30));
        let (_, outcome) = measured(|| assert!(std::hint::black_box(false), "as it should"));
        assert!(outcome.is_err_and(|said| said.contains("as it should") && said.contains("watch.rs")));
        // What would use up the machine's memory is refused, and said to the program as that.
        let (_, outcome) = measured(|| Vec::<u8>::new().try_reserve_exact(3 << 30).is_err());
        assert_eq!(outcome, Ok(true));
    }
}
