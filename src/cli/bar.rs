//! A count that grows, on standard error: a bar on a terminal, a plain line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// A count of things done.
pub(super) struct CountBar {
    bar: Option<ProgressBar>,
    /// What is counted, in the plural.
    unit: &'static str,
    said: Option<Instant>,
}

impl CountBar {
    const LINE_EVERY: Duration = Duration::from_secs(5);

    pub fn new(unit: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            // The template is a constant of this file: it parses, and the default is good enough.
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, unit, said: None }
    }

    /// `done` of `total`, with a remark.
    pub fn set(&mut self, done: usize, total: usize, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_message(message);
            bar.set_position(done as u64);
            return;
        }
        if done == total || self.said.is_none_or(|at| at.elapsed() >= Self::LINE_EVERY) {
            self.said = Some(Instant::now());
            say!("{done:>5}/{total} {}  {message}", self.unit);
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
