//! Code of other crates on foreign files, run so that a panic of it is an error and nothing else.
//!
//! The Parquet crate asserts in many places what damaged bytes can break (lengths of dictionaries, levels, bit
//! widths), and the `tokenizers` library indexes by what a file says elsewhere; which places do is known only when
//! they are used: there is nothing to check beforehand. Their panics are therefore caught. Before a panic unwinds,
//! the process's hook prints it; the one that is installed here prints nothing for a thread that is inside
//! [`guarded`], and is the one that was there for all others.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The hook is the process's, and there is no other place in which a panic can be kept from standard error. It
/// is installed once and stays: to put back the old one would race with other threads.
static HOOK: Once = Once::new();

/// Runs `foreign`; None where it panics, which is not printed.
pub(crate) fn guarded<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(foreign));
    GUARDED.set(outer);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Run by the test below, in a process of its own.
    #[test]
    #[ignore = "a part of another test"]
    fn child() {
        let panicking = |text: &'static str| move || -> () { panic!("{text}") };
        let nested = guarded(|| {
            assert_eq!(guarded(panicking("quiet, inside")), None);
            panicking("quiet, after the inner one")();
        });
        assert_eq!(nested, None);
        assert_eq!(guarded(|| 3), Some(3));
        // Another panic is reported as ever, in this thread and in others.
        assert!(catch_unwind(panicking("loud, here")).is_err());
        assert!(std::thread::spawn(panicking("loud, there")).join().is_err());
    }

    #[test]
    fn a_panic_inside_is_an_error_and_is_not_printed() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "guard::tests::child";
        let output = command
            .args([name, "--exact", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        assert!(!said.contains("quiet"), "{said}");
        assert!(said.contains("loud, here") && said.contains("loud, there"), "{said}");
    }
}
