//! What a row of a data file says, whatever its format and its columns.
//!
//! Readers make records (module `source`), rendering makes token ids of them. A record knows its place in
//! a file, so that every later error can name it.

use crate::chat::Message;
use serde_json::Value;
use std::{fmt, sync::Arc};

/// Where a row was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user names it.
    pub file: Arc<str>,
    /// Row number, from 1. In JSON lines it is the line's number.
    pub row: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", self.file, self.row)
    }
}

/// One row: a problem, and what was written for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it was read.
    pub place: Place,
    /// The columns that it was recognised by: `messages`, `prompt-completion`, … For reports.
    pub schema: &'static str,
    /// The row's own name of its problem (column `task_id`), if it has one.
    pub task_id: Option<String>,
    /// What was written: at least one sample.
    pub samples: Vec<Sample>,
    /// How an answer is judged, if the row says so.
    pub tests: Option<Tests>,
    /// Programming language of the answers, in lower case, if the row says so.
    pub language: Option<String>,
}

/// One text to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The text.
    pub body: Body,
    /// Its label or reward: finite; 1 for right, 0 for wrong where the row has labels.
    pub reward: Option<f32>,
    /// Weight of all its trained tokens: finite, 0 or more; 1 if the row says nothing.
    pub weight: f32,
    /// Weights of parts of the completion.
    pub spans: Vec<Span>,
}

impl Sample {
    /// A sample of this text, without a label, with weight 1.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            reward: None,
            weight: 1.0,
            spans: Vec::new(),
        }
    }
}

/// The text of a sample, and which parts of it are trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Plain text, all of it trained.
    Text(String),
    /// A prompt, not trained, and its completion, trained.
    Completion {
        /// Not trained.
        prompt: String,
        /// Trained.
        completion: String,
    },
    /// An instruction in the style of Alpaca. Rendered by a fixed template or the model's chat template.
    Instruction(Instruction),
    /// A conversation through the model's chat template.
    Chat {
        /// In order. A message may have `weight` (a number) or `train` (true, false), which decide
        /// whether and with what weight it is trained.
        messages: Vec<Message>,
        /// Definitions of tools, as the template reads them.
        tools: Option<Value>,
        /// Messages before this index are never trained: the prompt of a completion.
        trained_from: usize,
    },
}

/// An instruction and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Text before everything, if there is one.
    pub system: Option<String>,
    /// Earlier turns: (instruction, answer).
    pub history: Vec<(String, String)>,
    /// What to do.
    pub instruction: String,
    /// What to do it with; may be empty.
    pub input: String,
    /// The answer, trained.
    pub output: String,
}

/// A part of a completion with a weight of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// First character (Unicode scalar value), from 0; in a conversation, of the last trained message's content.
    pub start: usize,
    /// Character after the last one.
    pub end: usize,
    /// Weight of the tokens that begin in it: finite, 0 or more.
    pub weight: f32,
}

/// How an answer is judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tests {
    /// Python asserts that run after the answer's program.
    Asserts {
        /// Code between the program and the asserts; may be empty.
        setup: String,
        /// One statement each.
        asserts: Vec<String>,
        /// The function that the answer has to define. Where the prompt begins it, the answer is the rest of it.
        entry_point: Option<String>,
    },
    /// What the program reads and must print: pairs of standard input and output.
    InputOutput(Vec<(String, String)>),
}
