//! Systems other than Linux: there is no sandbox.

use crate::{Limits, Options, Outcome, Pair, Program, Runner, SandboxError};

/// Cannot be made on this system.
#[derive(Debug)]
pub enum Sandbox {}

impl Sandbox {
    /// Always refuses.
    ///
    /// # Errors
    /// [`SandboxError::Layer`].
    pub fn new() -> Result<Self, SandboxError> {
        Self::with(&Options::default())
    }

    /// Always refuses.
    ///
    /// # Errors
    /// [`SandboxError::Layer`].
    pub fn with(_: &Options) -> Result<Self, SandboxError> {
        Err(SandboxError::Layer {
            layer: "landlock",
            reason: "this is not Linux".to_owned(),
            advice: "run inside a Linux container or virtual machine",
        })
    }
}

impl Runner for Sandbox {
    fn run(&self, _: &Program<'_>, _: &Limits) -> Result<Outcome, SandboxError> {
        match *self {}
    }

    fn run_pair(&self, _: &Pair<'_>, _: &Limits) -> Result<[Outcome; 2], SandboxError> {
        match *self {}
    }

    fn level(&self) -> &str {
        match *self {}
    }

    fn python(&self) -> &str {
        match *self {}
    }
}
