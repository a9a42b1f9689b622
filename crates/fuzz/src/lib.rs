//! Fuzzing of every parser of foreign input.
//!
//! A [`Target`] hands bytes to a parser, through the items that its crate has for its users; what the parser says of
//! them is of no interest. Inputs are made from known ones ([`mutate`]) and kept where the answer is a new one. An
//! execution that panics, ends the process, takes more than 300 MB or more than 5 s is a finding ([`watch`]).
//!
//! `wmtp-fuzz TARGET --executions N --seed S` runs it; `docs/testing.md` says how.

pub mod mutate;
mod random;
pub mod run;
mod scratch;
mod target;
pub mod targets;
pub mod watch;

pub use random::Random;
pub use scratch::Scratch;
pub use target::{Kind, Outcome, Run, Target};
