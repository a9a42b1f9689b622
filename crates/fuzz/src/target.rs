//! What is fuzzed.

use crate::mutate::Shape;
use std::{fmt::Display, path::Path};

/// What a parser made of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It could be read.
    Accepted,
    /// It could not, for a reason of this number: equal for equal sentences but for numbers and what is quoted.
    Refused(u64),
}

impl Outcome {
    /// Of a parser's result.
    pub fn of<T, E: Display>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(error) => Self::refused(&error.to_string()),
        }
    }

    /// With a sentence.
    pub fn refused(said: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut quoted = false;
        for c in said.chars().take(300) {
            quoted ^= c == '`';
            if !quoted && !c.is_ascii_digit() {
                hash = (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self::Refused(hash)
    }

    /// Accepted, or refused without a sentence.
    pub fn of_option<T>(found: &Option<T>) -> Self {
        match found {
            Some(_) => Self::Accepted,
            None => Self::Refused(0),
        }
    }
}

/// Gives an input to a parser.
pub type Run = Box<dyn FnMut(&[u8]) -> Outcome>;

/// How long an execution takes, which decides how many are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Microseconds: texts and messages.
    Memory,
    /// More: loaders of files, and answers of servers.
    Loader,
}

impl Kind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Loader => "loader",
        }
    }
}

/// A parser and what it is given.
#[derive(Clone, Copy)]
pub struct Target {
    /// On the command line, and of its directory in `corpus`.
    pub name: &'static str,
    /// What is parsed, in words.
    pub what: &'static str,
    /// See [`Kind`].
    pub kind: Kind,
    /// The format of inputs.
    pub shape: Shape,
    /// Words of the format.
    pub words: &'static [&'static str],
    /// Bytes of the stack on which the parser runs in the program: 8 MiB, or 2 MiB where it runs on a thread of a
    /// pool.
    pub stack: usize,
    /// Inputs to begin with, in addition to those of the corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes what is needed in a directory, and gives what runs.
    pub open: fn(&Path) -> Run,
}

/// The stack of a program's first thread.
pub(crate) const FIRST: usize = 8 << 20;
/// The stack of a thread of a pool.
pub(crate) const POOL: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_reasons_have_equal_numbers() {
        let refused = Outcome::refused;
        assert_eq!(refused("line 12: `abc` is wrong"), refused("line 7: `x` is wrong"));
        assert_ne!(refused("line 12: `abc` is wrong"), refused("line 12: `abc` is right"));
        assert_eq!(Outcome::of(&"1".parse::<u8>()), Outcome::Accepted);
        assert_eq!(Outcome::of(&"x".parse::<u8>()), Outcome::of(&"y".parse::<u8>()));
    }
}
