//! Calls of the `tokenizers` library on what a file made of a tokenizer.

use crate::guard::guarded;
use tokenizers::Result;

/// Runs a call of the library; a panic of it is an error.
///
/// The library checks little of a file when it reads it: a template may name a special token that it does not
/// describe, a merge be shorter than the prefix that is cut off it. It then panics, at once or at some text.
pub(crate) fn call<T>(what: impl FnOnce() -> Result<T>) -> Result<T> {
    let problem = "the `tokenizers` library cannot work with it: its parts do not fit together";
    guarded(what).unwrap_or_else(|| Err(problem.into()))
}
