//! The command-line program `wmtp`; everything is in the library.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::Write,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
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

fn main() -> ExitCode {
    wmtp_kernels::disable_malloc_trim();
    wmtp::cli::main()
}
