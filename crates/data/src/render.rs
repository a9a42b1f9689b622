//! From records to token ids: each sample of a [`Record`] becomes a document, a plain text several.
//!
//! Instructions are rendered by the model's chat template or, without `data.prompt: chat`, by the template of
//! Alpaca (Taori et al. 2023) in its two forms, with and without input.

use super::{Body, DataError, Example, Instruction, Record, Sample, Span, Tokenized, Tokenizer, TrainOn, chat, text};
use std::ops::Range;

/// How records become documents.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// For texts, prompts and completions.
    pub plain: Tokenizer,
    /// The same for what the chat template renders.
    pub chat: Tokenizer,
    /// Instructions go through the chat template.
    pub instructions_as_chat: bool,
    /// Which turns of a conversation are trained.
    pub train_on: TrainOn,
    /// Tokens in a row: a plain text is cut into documents of at most this length.
    pub seq_len: usize,
}

/// A sample as text, for the comparison with evaluation problems, and as documents.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The texts; `sample` and `problem` are 0.
    pub example: Example,
    /// One document, or for a plain text one or more; `sample` and `problem` are 0.
    pub documents: Vec<Tokenized>,
    /// A plain text that is too short for a document, with its tokens.
    pub short: Option<usize>,
    /// Tokens at the end of a plain text that are too few for a document.
    pub tail_tokens: usize,
}

impl Rendering {
    /// All samples of a record, in order.
    ///
    /// # Errors
    /// What the tokenizer or the chat template refuses, with the record's file and row.
    pub fn record(&self, record: &Record) -> Result<Vec<Rendered>, DataError> {
        let named = record.samples.iter().zip(record.names());
        named
            .map(|(sample, name)| {
                self.sample(sample, name).map_err(|error| DataError::Row {
                    file: record.place.file.to_string(),
                    line: record.place.row,
                    problem: error.to_string(),
                })
            })
            .collect()
    }

    fn sample(&self, sample: &Sample, name: String) -> Result<Rendered, DataError> {
        match &sample.body {
            Body::Text(_) => self.text(sample, name),
            Body::Completion { prompt, completion } => self.completion(sample, name, prompt, completion),
            Body::Instruction(instruction) if !self.instructions_as_chat => {
                self.completion(sample, name, &alpaca(instruction), &instruction.output)
            }
            Body::Instruction(instruction) => {
                let messages = as_messages(instruction);
                self.conversation(sample, name, &messages, None, 0)
            }
            Body::Chat {
                messages,
                tools,
                trained_from,
            } => self.conversation(sample, name, messages, tools.as_ref(), *trained_from),
        }
    }

    fn completion(&self, sample: &Sample, name: String, prompt: &str, response: &str) -> Result<Rendered, DataError> {
        let (tokens, prompt_len, starts) = self.plain.trained_with_offsets(prompt, response)?;
        if prompt_len == 0 {
            return Err(DataError::Empty {
                what: "prompt".into(),
                why: "the completion's first token would have nothing before it; give a prompt".into(),
            });
        }
        let given = span_weights(sample, response, &starts, prompt_len);
        let document = Tokenized {
            sample: 0,
            name: name.clone(),
            problem: 0,
            tokens,
            prompt_len,
            untrained: Vec::new(),
            given,
            reward: sample.reward,
        };
        Ok(Rendered::one(sample.example(name), document))
    }

    fn text(&self, sample: &Sample, name: String) -> Result<Rendered, DataError> {
        let example = sample.example(name);
        let read = text::tokenized(std::slice::from_ref(&example), &self.plain, self.seq_len, 0)?;
        let mut documents = read.documents;
        for document in &mut documents {
            document.reward = sample.reward;
            if sample.weight != 1.0 {
                document.given = vec![(document.prompt_len..document.tokens.len(), sample.weight)];
            }
        }
        Ok(Rendered {
            example,
            documents,
            short: read.short.first().map(|(_, tokens)| *tokens),
            tail_tokens: read.tail_tokens,
        })
    }
}

impl Rendered {
    pub(super) fn one(example: Example, document: Tokenized) -> Self {
        Self {
            example,
            documents: vec![document],
            short: None,
            tail_tokens: 0,
        }
    }
}

impl Record {
    /// A name for each sample: file, row, and the sample's number where there are several.
    fn names(&self) -> Vec<String> {
        let several = self.samples.len() > 1;
        let task = self.task_id.as_ref().map_or(String::new(), |task| format!(":{task}"));
        let name = format!("{}:{}{task}", self.place.file, self.place.row);
        let numbers = 0..self.samples.len();
        numbers
            .map(|number| {
                if several {
                    format!("{name}/{number}")
                } else {
                    name.clone()
                }
            })
            .collect()
    }

    /// Its samples as texts, for the comparison with evaluation problems. `sample` and `problem` are 0.
    pub fn examples(&self) -> Vec<Example> {
        let named = self.samples.iter().zip(self.names());
        named.map(|(sample, name)| sample.example(name)).collect()
    }
}

impl Sample {
    /// What is asked and what is written, without the words that a template puts around them.
    pub(super) fn example(&self, name: String) -> Example {
        let (prompt, response) = match &self.body {
            Body::Text(text) => (String::new(), text.clone()),
            Body::Completion { prompt, completion } => (prompt.clone(), completion.clone()),
            Body::Instruction(instruction) => {
                let asked = format!("{}\n{}", instruction.instruction, instruction.input);
                (asked.trim_end().to_owned(), instruction.output.clone())
            }
            Body::Chat { messages, .. } => (said(messages, false), said(messages, true)),
        };
        Example {
            sample: 0,
            name,
            problem: 0,
            task: prompt.clone(),
            code: response.clone(),
            prompt,
            response,
            reward: self.reward,
        }
    }
}

/// What the assistant wrote in a conversation, or what everybody else did.
fn said(messages: &[chat::Message], by_assistant: bool) -> String {
    let of = messages.iter().filter(|message| {
        let role = message.get("role").and_then(serde_json::Value::as_str);
        (role == Some("assistant")) == by_assistant
    });
    of.map(chat::content).collect::<Vec<String>>().join("\n")
}

/// Weights other than 1 of the response's tokens: that of the span that a token begins in, else 1, times that of
/// the row. `starts`: where each begins, in bytes of `response`; the first is token `first`.
fn span_weights(sample: &Sample, response: &str, starts: &[usize], first: usize) -> Vec<(Range<usize>, f32)> {
    let spans = bytes_of(&sample.spans, response);
    weight_runs((first..).zip(starts).map(|(token, start)| {
        let span = spans.iter().find(|(range, _)| range.contains(start));
        (token, sample.weight * span.map_or(1.0, |(_, weight)| *weight))
    }))
}

/// Runs of neighbouring tokens with the same weight other than 1.
pub(super) fn weight_runs(weights: impl IntoIterator<Item = (usize, f32)>) -> Vec<(Range<usize>, f32)> {
    let mut runs: Vec<(Range<usize>, f32)> = Vec::new();
    for (token, weight) in weights {
        match runs.last_mut() {
            Some((range, last)) if *last == weight && range.end == token => range.end += 1,
            _ if weight != 1.0 => runs.push((token..token + 1, weight)),
            _ => {}
        }
    }
    runs
}

/// Spans of characters as spans of bytes.
fn bytes_of(spans: &[Span], text: &str) -> Vec<(Range<usize>, f32)> {
    if spans.is_empty() {
        return Vec::new();
    }
    let mut bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
    bytes.push(text.len());
    let at = |character: usize| bytes.get(character).copied().unwrap_or(text.len());
    let range = |span: &Span| (at(span.start)..at(span.end), span.weight);
    spans.iter().map(range).collect()
}

/// An instruction as Alpaca's prompt, earlier turns before it in the same form.
pub(super) fn alpaca(instruction: &Instruction) -> String {
    let mut prompt = match &instruction.system {
        Some(system) if !system.is_empty() => format!("{system}\n\n"),
        _ if instruction.input.is_empty() => {
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
                .to_owned()
        }
        _ => "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n".to_owned(),
    };
    for (earlier, answer) in &instruction.history {
        prompt.push_str(&format!("### Instruction:\n{earlier}\n\n### Response:\n{answer}\n\n"));
    }
    prompt.push_str(&format!("### Instruction:\n{}\n\n", instruction.instruction));
    if !instruction.input.is_empty() {
        prompt.push_str(&format!("### Input:\n{}\n\n", instruction.input));
    }
    prompt.push_str("### Response:\n");
    prompt
}

/// An instruction as a conversation.
pub(super) fn as_messages(instruction: &Instruction) -> Vec<chat::Message> {
    let mut messages = Vec::new();
    if let Some(system) = instruction.system.as_deref().filter(|system| !system.is_empty()) {
        messages.push(chat::message("system", system));
    }
    for (earlier, answer) in &instruction.history {
        messages.push(chat::message("user", earlier));
        messages.push(chat::message("assistant", answer));
    }
    let asked = match instruction.input.is_empty() {
        true => instruction.instruction.clone(),
        false => format!("{}\n\n{}", instruction.instruction, instruction.input),
    };
    messages.push(chat::message("user", &asked));
    messages.push(chat::message("assistant", &instruction.output));
    messages
}
