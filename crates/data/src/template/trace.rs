//! Where a rendering wrote what: which message each part of the text came from, and `{% generation %}`
//! blocks.
//!
//! A part belongs to a message while a `for` loop whose variable is that message is running. Templates
//! loop over `messages` or over a slice or selection of it; the values stay the same ones, so that a
//! message is recognised by identity and never by its content.

use super::{
    fuel,
    value::{Items, Value},
};
use std::{ops::Range, rc::Rc};

/// A part of a rendered text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Byte offsets in the text.
    pub range: Range<usize>,
    /// Index of the message that it came from.
    pub message: Option<usize>,
}

/// What a rendering wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The text from front to back, divided where another message begins. No part is empty.
    pub parts: Vec<Part>,
    /// `{% generation %}` blocks in order, the empty ones included.
    pub generated: Vec<Part>,
    /// A `{% generation %}` block stood inside a macro, a `set` or `filter` block or another
    /// `{% generation %}` block, so that its place in the text is not known. transformers takes a wrong
    /// place there.
    pub generation_misplaced: bool,
}

/// Messages by identity.
type Known = Rc<Items<(Value, Value)>>;

/// Keeps track of a rendering.
#[derive(Default)]
pub struct Trace {
    messages: Vec<Known>,
    message: Option<usize>,
    /// Macros and blocks around the current statement whose text is not yet part of the whole.
    buffers: usize,
    /// Where the text begins to belong to another message.
    changes: Vec<(usize, Option<usize>)>,
    generated: Vec<Part>,
    misplaced: bool,
}

impl Trace {
    /// A trace for a template that is given `messages`.
    pub fn new(messages: Option<&Value>) -> Self {
        let messages = match messages {
            Some(Value::List(items)) => items.iter(),
            _ => [].iter(),
        };
        let messages = messages.filter_map(|message| match message {
            Value::Dict(fields) => Some(fields.clone()),
            _ => None,
        });
        Self {
            messages: messages.collect(),
            ..Self::default()
        }
    }

    /// A loop's variable is now `item`; `at` is the length of its text. Returns what [`Self::leave`] needs.
    pub fn enter(&mut self, item: &Value, at: usize) -> Option<usize> {
        let around = self.message;
        if let Value::Dict(fields) = item
            && let Some(message) = self.messages.iter().position(|known| Rc::ptr_eq(known, fields))
        {
            self.change(Some(message), at);
        }
        around
    }

    /// The loop's body ended.
    pub fn leave(&mut self, around: Option<usize>, at: usize) {
        self.change(around, at);
    }

    fn change(&mut self, message: Option<usize>, at: usize) {
        if self.message != message {
            self.message = message;
            if self.buffers == 0 {
                fuel::made(size_of::<(usize, Option<usize>)>());
                self.changes.push((at, message));
            }
        }
    }

    /// What follows is written into a buffer.
    pub fn open(&mut self) {
        self.buffers += 1;
    }

    /// The buffer is complete.
    pub fn close(&mut self) {
        self.buffers = self.buffers.saturating_sub(1);
    }

    /// A `{% generation %}` block wrote this range of the text.
    pub fn generation(&mut self, range: Range<usize>) {
        self.misplaced |= self.buffers > 0;
        fuel::made(size_of::<Part>());
        self.generated.push(Part {
            range,
            message: self.message,
        });
    }

    /// The trace of the whole text.
    pub fn rendered(self, text: String) -> Rendered {
        let mut parts: Vec<Part> = Vec::new();
        let ends = self.changes.iter().map(|(at, _)| *at).skip(1).chain([text.len()]);
        let first = self.changes.first().map_or(text.len(), |(at, _)| *at);
        let changes = self
            .changes
            .iter()
            .zip(ends)
            .map(|((at, message), end)| (*at..end, *message));
        for (range, message) in [(0..first, None)].into_iter().chain(changes) {
            match parts.last_mut() {
                _ if range.is_empty() => {}
                Some(last) if last.message == message => last.range.end = range.end,
                _ => parts.push(Part { range, message }),
            }
        }
        Rendered {
            text,
            parts,
            generated: self.generated,
            generation_misplaced: self.misplaced,
        }
    }
}
