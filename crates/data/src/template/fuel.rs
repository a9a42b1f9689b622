//! What a rendering may use up: steps, and bytes of the texts and lists that it makes. Models come from anywhere, and
//! so do their templates.
//!
//! Bytes are counted where a value is made and never given back, so what a rendering holds is at most what it may
//! make. Texts that are read take steps by their length.

use super::value::{Fallible, LARGEST_TEXT};
use std::cell::Cell;

/// Most statements, expressions, comparisons and elements that a rendering takes; 64 bytes of text are one more.
const STEPS: u64 = 10_000_000;
/// Bytes of texts and lists that it makes, whatever it is given.
const BYTES: u64 = 64 << 20;
/// The same for each byte of the messages: what a template does with each of them.
const BYTES_PER_BYTE: u64 = 64;
/// Bytes of the text that it writes, whatever it is given: its tokens take many times as many.
const WRITTEN: u64 = 256 << 10;
/// The same for each byte of the messages.
const WRITTEN_PER_BYTE: u64 = 16;
/// Bytes that take as long as a step.
const BYTES_PER_STEP: usize = 64;

/// What is left.
#[derive(Clone, Copy)]
struct Tank {
    steps: u64,
    bytes: u64,
    /// Of the text that is written; this is not used up.
    written: usize,
}

impl Tank {
    const ENDLESS: Self = Self {
        steps: u64::MAX,
        bytes: u64::MAX,
        written: LARGEST_TEXT,
    };
}

thread_local! {
    // Values are made and compared in functions that know no interpreter. A rendering is on one thread, and there is
    // one at a time on each.
    static TANK: Cell<Tank> = const { Cell::new(Tank::ENDLESS) };
}

/// Counts until it is dropped. What is made of the messages before [`Rendering::begin`] is free.
pub struct Rendering(());

impl Rendering {
    /// The messages are about to be made.
    pub fn prepare() -> Self {
        TANK.set(Tank::ENDLESS);
        Self(())
    }

    /// The template is about to run.
    pub fn begin(&self) {
        let given = u64::MAX - TANK.get().bytes;
        TANK.set(Tank {
            steps: STEPS,
            bytes: BYTES.saturating_add(given.saturating_mul(BYTES_PER_BYTE)),
            written: WRITTEN
                .saturating_add(given.saturating_mul(WRITTEN_PER_BYTE))
                .min(LARGEST_TEXT as u64) as usize,
        });
    }
}

impl Drop for Rendering {
    fn drop(&mut self) {
        TANK.set(Tank::ENDLESS);
    }
}

/// Something of this size is made. The next step fails if it was too much.
pub fn made(bytes: usize) {
    let tank = TANK.get();
    TANK.set(Tank {
        steps: tank.steps.saturating_sub((bytes / BYTES_PER_STEP) as u64),
        bytes: tank.bytes.saturating_sub(bytes as u64),
        ..tank
    });
}

/// Work on this many elements.
pub fn steps(count: usize) -> Fallible<()> {
    let tank = TANK.get();
    let steps = tank.steps.saturating_sub(count as u64);
    TANK.set(Tank { steps, ..tank });
    if tank.bytes == 0 {
        return Err(format!(
            "the template makes texts and lists of more than {} MiB, far more than its messages",
            BYTES >> 20
        ));
    }
    if steps == 0 {
        return Err(format!("the template takes more than {STEPS} steps"));
    }
    Ok(())
}

/// Bytes that the text which is written may have.
pub fn largest_text() -> usize {
    TANK.get().written
}

/// So many bytes of a text are read.
pub fn read(bytes: usize) -> Fallible<()> {
    steps(1 + bytes / BYTES_PER_STEP)
}
