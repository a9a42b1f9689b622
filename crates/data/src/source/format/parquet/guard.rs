//! Code of the Parquet crate, run so that a panic of it is an error and nothing else.
//!
//! The crate asserts in many places what damaged bytes can break (lengths of dictionaries, levels, bit widths),
//! and which ones do is known only when they are decoded: there is nothing to check beforehand. Its panics are
//! therefore caught. Before a panic unwinds, the process's hook prints it; the one that is installed here prints
//! nothing for a thread that is inside [`guarded`], and is the one that was there for all others.

use parquet::errors::ParquetError;
use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

/// Why a column cannot be decoded.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file is not what its format says.
    Damaged(String),
    /// The column holds bytes that are no text.
    NotText(String),
}

impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error.to_string())
    }
}

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The hook is the process's, and there is no other place in which a panic can be kept from standard error. It
/// is installed once and stays: to put back the old one would race with other threads.
static HOOK: Once = Once::new();

/// Runs `read`; a panic is an error, and is not printed.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|_| Err(Fault::Damaged("it cannot be decoded".into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Run by the test below, in a process of its own.
    #[test]
    #[ignore = "a part of another test"]
    fn child() {
        let panicking = |text: &'static str| move || -> Result<(), Fault> { panic!("{text}") };
        let nested = guarded(|| {
            let inner = guarded(panicking("quiet, inside"));
            assert!(matches!(inner, Err(Fault::Damaged(_))));
            panicking("quiet, after the inner one")()
        });
        assert!(matches!(nested, Err(Fault::Damaged(problem)) if problem == "it cannot be decoded"));
        assert!(matches!(guarded(|| Ok(3)), Ok(3)));
        // Another panic is reported as ever, in this thread and in others.
        assert!(catch_unwind(panicking("loud, here")).is_err());
        assert!(std::thread::spawn(panicking("loud, there")).join().is_err());
    }

    #[test]
    fn a_panic_inside_is_an_error_and_is_not_printed() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "source::format::parquet::guard::tests::child";
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
