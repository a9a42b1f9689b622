//! How the interpreter is started: its arguments and environment, and the filter that lets only these through.

use crate::{
    SandboxError,
    bpf::Filter,
    interpreter::Interpreter,
    io_error,
    launch::Arguments,
    runner::layer,
    syscalls::{ExecPointers, rules},
};
use std::{io, os::unix::ffi::OsStrExt};

/// What the interpreter is started with. No user site directory, no byte-code files, UTF-8; `-I`
/// would add that PYTHONHASHSEED is ignored and that the program's own directory, the only foreign
/// thing on its path, is not looked in for modules.
const FLAGS: [&[u8]; 5] = [b"-s", b"-B", b"-X", b"utf8", b"main.py"];
/// The same without the module `site`.
const BARE_FLAGS: [&[u8]; 6] = [b"-S", b"-s", b"-B", b"-X", b"utf8", b"main.py"];
/// All of the environment: the order of a set is part of what a program prints, and has to repeat.
pub(crate) const ENVIRONMENT: &[u8] = b"PYTHONHASHSEED=0";

/// How the interpreter is started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// With the packages that are installed, as a user starts it.
    Usual,
    /// Without them: looking for them, and running what they have put into every start, takes most of its time.
    Bare,
}

impl Start {
    /// What follows the interpreter's path.
    pub(crate) fn flags(self) -> &'static [&'static [u8]] {
        match self {
            Self::Usual => &FLAGS,
            Self::Bare => &BARE_FLAGS,
        }
    }
}

/// What there is for each way to start.
#[derive(Debug)]
pub(crate) struct EachStart<T> {
    usual: T,
    bare: T,
}

impl<T> EachStart<T> {
    pub(crate) fn new(make: impl Fn(Start) -> Result<T, SandboxError>) -> Result<Self, SandboxError> {
        Ok(Self {
            usual: make(Start::Usual)?,
            bare: make(Start::Bare)?,
        })
    }

    pub(crate) const fn of(&self, start: Start) -> &T {
        match start {
            Start::Usual => &self.usual,
            Start::Bare => &self.bare,
        }
    }
}

/// The interpreter's own arguments.
pub(crate) fn direct(python: &Interpreter) -> Result<EachStart<Arguments>, SandboxError> {
    EachStart::new(|start| {
        let mut arguments = vec![python.executable.as_os_str().as_bytes()];
        arguments.extend(start.flags());
        Arguments::new(&arguments, &[ENVIRONMENT]).map_err(io_error("name the interpreter"))
    })
}

/// The filters for starts with these arguments.
pub(crate) fn filters(arguments: &EachStart<Arguments>, truncation: bool) -> Result<EachStart<Filter>, SandboxError> {
    EachStart::new(|start| filter(ExecPointers(arguments.of(start).pointers()), truncation))
}

/// The filter for a start with these pointers.
pub(crate) fn filter(exec: ExecPointers, truncation: bool) -> Result<Filter, SandboxError> {
    let unknown = || io::Error::other("there is no table of system calls for this processor");
    Filter::new(&rules(exec, truncation)).ok_or_else(|| layer("seccomp", &unknown()))
}
