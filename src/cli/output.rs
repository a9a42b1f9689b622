//! Where output goes: results to standard output, everything else to standard error.

use super::Failure;
use crate::text::mib;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// What a command writes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    json: bool,
}

impl Output {
    /// For people, or for programs: one JSON document and nothing else.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether `--json` was given.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A command's result: the document with `--json`, else the text. Called once. A pipe or terminal that was closed
    /// is no error: the command ends, and with the exit code, as if it had been read.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub fn result(&self, json: &Value, people: &str) -> Result<(), Failure> {
        let written = match self.json {
            true => self.raw(&format!("{json:#}")),
            false => self.raw(people),
        };
        match written {
            Err(Failure::Quiet) => Ok(()),
            written => written,
        }
    }

    /// A text as it is, with a line's end.
    ///
    /// # Errors
    /// Standard output can't be written; a closed pipe or terminal is [`Failure::Quiet`].
    pub fn raw(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        write!(out, "{text}{newline}")
            .and_then(|()| out.flush())
            .map_err(unwritable)
    }

    /// A part of a text that is printed as it comes; nothing with `--json`, whose document comes at the end.
    ///
    /// # Errors
    /// As [`Output::raw`].
    pub fn piece(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(unwritable)
    }

    /// Shows a transfer on standard error: a bar on a terminal, a plain line now and then elsewhere.
    pub fn transfer_bar(&self, label: &str) -> TransferBar {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            // The template is a constant of this file: it parses, and the default is good enough.
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}") {
                bar.set_style(style);
            }
            bar.set_message(label.to_owned());
            bar
        });
        TransferBar {
            bar,
            label: label.to_owned(),
            said: None,
        }
    }
}

fn unwritable(error: std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::Quiet,
        _ if is_closed_terminal(&error) => Failure::Quiet,
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    }
}

/// Whether it was a terminal that standard output could not be written to: like a closed pipe, nobody reads it.
#[cfg(unix)]
fn is_closed_terminal(error: &std::io::Error) -> bool {
    let is_device = || {
        let stat = rustix::fs::fstat(std::io::stdout());
        stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device())
    };
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) && is_device()
}

#[cfg(not(unix))]
fn is_closed_terminal(_: &std::io::Error) -> bool {
    false
}

/// A count of bytes that grows.
pub struct TransferBar {
    bar: Option<ProgressBar>,
    label: String,
    said: Option<Instant>,
}

impl TransferBar {
    const LINE_EVERY: Duration = Duration::from_secs(5);

    /// `done` of `total` bytes; `what` is under way.
    pub fn set(&mut self, what: &str, done: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_message(format!("{} {what}", self.label));
            bar.set_position(done);
        } else if self.said.is_none_or(|at| at.elapsed() >= Self::LINE_EVERY) {
            self.said = Some(Instant::now());
            match total {
                Some(total) => {
                    tracing::info!("{} {what}: {:.1} of {:.1} MiB", self.label, mib(done), mib(total));
                }
                None => tracing::info!("{} {what}: {:.1} MiB", self.label, mib(done)),
            }
        }
    }
}

impl Drop for TransferBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
