//! The command-line program `wmtp`; everything is in the library.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    panic,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// The system's allocator. Where it has no memory left, the program ends with a sentence and exit code 1; without
/// this it would abort, with words for programmers.
struct OrSentence;

// SAFETY: every call goes to the system's allocator as it came, and its result comes back as it is unless it is null.
unsafe impl GlobalAlloc for OrSentence {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same contract.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps to the same contract.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps to the same contract.
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: OrSentence = OrSentence;

fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        no_memory(bytes);
    }
    pointer
}

/// Nothing in here may ask for memory, or for a lock that a thread may hold which comes here as well.
#[cold]
fn no_memory(bytes: usize) -> ! {
    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::Relaxed) {
        // Another thread is ending the program.
        std::process::exit(1)
    }
    let mut text = [0; 256];
    let mut rest = &mut text[..];
    let (size, unit) = match bytes >> 20 {
        0 => (bytes, "bytes"),
        mib => (mib, "MiB"),
    };
    let _ = writeln!(
        rest,
        "error: {size} {unit} of memory cannot be had: free some, raise the limit (`ulimit -v`, or the container's), \
         or lower batching.micro_batch or data.seq_len"
    );
    let left = rest.len();
    say(&text[..256 - left]);
    std::process::exit(1)
}

#[cfg(unix)]
fn say(text: &[u8]) {
    use std::os::fd::FromRawFd;
    // SAFETY: standard error, which is not closed here: the file is never dropped.
    let mut error = std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(2) });
    let _ = error.write_all(text);
}

#[cfg(not(unix))]
fn say(text: &[u8]) {
    let _ = std::io::stderr().write_all(text);
}

/// What a panic says whose cause is that the system gives no more threads: the standard library's word, rayon's, and
/// the error itself where a library unwraps it. None of them can be reached by anything that is foreseen.
const NO_THREAD: [&str; 3] = [
    "failed to spawn thread",
    "global thread pool has not been initialized",
    "kind: WouldBlock, message: \"Resource temporarily unavailable\"",
];

/// Libraries start threads and panic where that can't be done: that is a sentence and exit code 1 as well.
fn say_when_threads_fail() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if NO_THREAD.iter().any(|said| text.contains(said)) {
            no_thread();
        }
        before(panic);
    }));
}

fn no_thread() -> ! {
    say(
        b"error: a thread can't be started: free memory, or raise the limit (`ulimit -v`, `ulimit -u`, or the \
          container's)\n",
    );
    std::process::exit(1)
}

/// Of the thread that does everything.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    wmtp_kernels::disable_malloc_trim();
    say_when_threads_fail();
    // The first thread's stack grows as it is used; where that can't be, the system kills the process without a word.
    // Another thread has the whole of its own from the start, or doesn't start.
    let all = thread::Builder::new()
        .name("main".into())
        .stack_size(STACK)
        .spawn(wmtp::cli::main);
    let Ok(all) = all else { no_thread() };
    // Its panic was printed by the hook; 101 is what the standard library ends with.
    all.join().unwrap_or(ExitCode::from(101))
}
