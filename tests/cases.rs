//! Regression tests for reported faults: one folder per fault under `tests/cases/`, with the input
//! and a `README.md` that gives the command and the correct result. Each test runs the built
//! program on a copy of the folder.
//!
//! Files that several cases share are kept once, in `tests/cases/shared/`; a case's `shared.txt`
//! names them, one `PATH shared/FILE` a line. Weights that differ from the shared ones only in
//! names or values are derived by [`case::Case`].

#[path = "cases/case.rs"]
mod case;
#[path = "cases/chat.rs"]
mod chat;
mod common;
#[path = "cases/evaluation.rs"]
mod evaluation;
#[path = "cases/models.rs"]
mod models;
#[path = "cases/runs.rs"]
mod runs;
#[path = "cases/settings.rs"]
mod settings;
#[path = "cases/tokens.rs"]
mod tokens;
