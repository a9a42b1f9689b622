//! Candidates for the prompts of a data file, drawn from a model: the rows that `wmtp label` and training read.
//!
//! Rows are appended in the order of the questions as soon as all their completions are there, so that what is
//! written stays written. A run that was interrupted is continued by the same command: questions whose rows are in
//! the file are passed over, and since every completion has a seed of its own the rest is what it would have been.

use super::PipelineError;
use crate::{
    data::{
        DataConfig, DataError, Prompt, Question, Tests, Tokenizer,
        source::{Source, WholeRow},
    },
    eval::{EvalError, GenerationRequest, Generator, StopRule, begins_function, sample_seed},
    stop::Stop,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
};

/// Questions that are handed to the model at once: enough to keep its batches full.
const SLAB: usize = 256;
/// The column that says how completions were drawn.
const DRAWN: &str = "sampled";
/// The key of that column which may differ when a file is continued: the model is known by its hash.
const MODEL: &str = "model";

/// What is drawn.
pub struct SampleRequest<'a> {
    /// The rows with prompts.
    pub source: &'a Source,
    /// How prompts are written: `data.prompt`.
    pub data: &'a DataConfig,
    /// The model's tokenizer, which has its chat template.
    pub tokenizer: &'a Tokenizer,
    /// Completions for each prompt, 1 or more.
    pub samples: usize,
    /// Sampling temperature, 0 for greedy.
    pub temperature: f64,
    /// Every completion's seed follows from this one, the prompt and the completion's number.
    pub seed: u64,
    /// Texts before which a completion ends, in addition to the model's end token.
    pub stops: &'a [String],
    /// What decides the completions, as the rows say it.
    pub drawn: Map<String, Value>,
    /// The file that rows are appended to.
    pub output: &'a Path,
}

/// What was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SampleReport {
    /// Rows of the file that was read.
    pub prompts: usize,
    /// Rows that were written before.
    pub resumed: usize,
    /// Rows that were written now.
    pub rows: usize,
    /// Completions in them.
    pub completions: usize,
    /// Completions that were empty and are left out; a row that has no other is not written.
    pub empty: usize,
    /// Tokens generated.
    pub tokens: usize,
}

/// How far sampling is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleProgress {
    /// Completions drawn, now or before.
    pub done: usize,
    /// Completions in all.
    pub total: usize,
    /// Tokens generated now.
    pub tokens: usize,
}

/// Whether the first prompt is written by the chat template: then all are.
///
/// # Errors
/// A row that cannot be read or asks nothing.
pub fn asks_by_chat(source: &Source, data: &DataConfig, tokenizer: &Tokenizer) -> Result<bool, DataError> {
    match source.whole_rows().next() {
        Some(row) => Ok(row?.question()?.prompt(data, tokenizer)?.is_chat),
        None => Ok(false),
    }
}

/// Draws the completions of all questions that have no row in the output yet.
///
/// # Errors
/// Before anything is drawn: a row that cannot be read or asks nothing, prompts of two kinds, a prompt that is longer
/// than the model takes, an output that this request did not write. Then: a model that fails, a stop, a file that
/// cannot be written.
pub fn sample(
    request: &SampleRequest<'_>,
    generator: &mut dyn Generator,
    stop: &Stop,
    progress: &mut dyn FnMut(&SampleProgress),
) -> Result<SampleReport, PipelineError> {
    let mut done = Written::read(request)?;
    let mut report = SampleReport {
        resumed: done.prompts.len(),
        ..SampleReport::default()
    };
    let last = check(request, generator, &mut done, &mut report)?;
    let mut out = done.append(request.output)?;
    let mut far = SampleProgress {
        done: last * request.samples,
        total: report.prompts * request.samples,
        tokens: 0,
    };
    progress(&far);
    let mut slab: Vec<Asked> = Vec::new();
    for row in request.source.whole_rows().skip(last) {
        let asked = Asked::new(row?, request)?;
        let full = slab.len() == SLAB || slab.first().is_some_and(|first| first.continues != asked.continues);
        if full {
            let slab = std::mem::take(&mut slab);
            draw(request, generator, stop, slab, &mut out, &mut report, &mut |tokens| {
                far.done += 1;
                far.tokens += tokens;
                progress(&far);
            })?;
        }
        slab.push(asked);
    }
    draw(request, generator, stop, slab, &mut out, &mut report, &mut |tokens| {
        far.done += 1;
        far.tokens += tokens;
        progress(&far);
    })?;
    out.sync_all().map_err(PipelineError::io("writing", request.output))?;
    Ok(report)
}

/// Checks every row, and finds the first that has no row in the output yet.
fn check(
    request: &SampleRequest<'_>,
    generator: &dyn Generator,
    done: &mut Written,
    report: &mut SampleReport,
) -> Result<usize, PipelineError> {
    let mut last = 0;
    let mut is_chat = None;
    for (number, row) in (1..).zip(request.source.whole_rows()) {
        let asked = Asked::new(row?, request)?;
        let place = &asked.question.place;
        let wrong = |problem: String| DataError::BadRow {
            place: place.clone(),
            problem,
        };
        if *is_chat.get_or_insert(asked.prompt.is_chat) != asked.prompt.is_chat {
            let problem = "is a conversation where the first row is a text, or the reverse; write two files";
            return Err(wrong(problem.into()).into());
        }
        let too_long = generator
            .prompt_too_long(&asked.requests(request, 1)[0])
            .map_err(of_eval)?;
        if let Some(length) = too_long {
            return Err(wrong(format!(
                "the prompt has {} tokens, more than the model's {} positions; shorten it or leave the row out",
                length.tokens, length.positions
            ))
            .into());
        }
        if done.passes_over(&asked.prompt.column) {
            last = number;
        }
        report.prompts = number;
    }
    match done.prompts.front() {
        None => Ok(last),
        Some(_) => Err(PipelineError::Setting(format!(
            "`{}` has rows of other prompts; give another file as --output",
            request.output.display()
        ))),
    }
}

/// A row with its prompt.
struct Asked {
    row: WholeRow,
    question: Question,
    prompt: Prompt,
    /// The prompt begins a function: the completion is its rest.
    continues: bool,
}

impl Asked {
    fn new(row: WholeRow, request: &SampleRequest<'_>) -> Result<Self, DataError> {
        let question = row.question()?;
        let prompt = question.prompt(request.data, request.tokenizer)?;
        let entry_point = match &question.tests {
            Some(Tests::Asserts { entry_point, .. }) => entry_point.as_deref(),
            Some(Tests::InputOutput(_)) | None => None,
        };
        Ok(Self {
            continues: !prompt.is_chat && entry_point.is_some_and(|name| begins_function(&prompt.text, name)),
            row,
            question,
            prompt,
        })
    }

    fn requests(&self, request: &SampleRequest<'_>, samples: usize) -> Vec<GenerationRequest> {
        (0..samples)
            .map(|sample| GenerationRequest {
                prompt: self.prompt.text.clone(),
                seed: sample_seed(request.seed, &self.prompt.text, sample),
                temperature: request.temperature,
            })
            .collect()
    }

    /// The row of these completions; None if all are empty.
    fn written(self, completions: Vec<String>, drawn: &Map<String, Value>) -> Option<(String, usize)> {
        let is_chat = self.prompt.is_chat;
        let written: Vec<Value> = completions
            .into_iter()
            .filter(|text| !text.trim().is_empty())
            .map(|text| match is_chat {
                true => json!([{"role": "assistant", "content": text}]),
                false => text.into(),
            })
            .collect();
        if written.is_empty() {
            return None;
        }
        let count = written.len();
        let mut row = Map::new();
        if let Some(task) = self.question.task_id {
            row.insert("task_id".into(), task.into());
        }
        row.insert("prompt".into(), self.prompt.column);
        row.insert("completions".into(), written.into());
        for (name, value) in self.question.tests.iter().flat_map(Tests::columns) {
            row.insert(name.into(), value);
        }
        if let Some(language) = self.question.language {
            row.insert("language".into(), language.into());
        }
        for (name, value) in self.row.other_columns() {
            row.entry(name).or_insert(value);
        }
        row.insert(DRAWN.into(), drawn.clone().into());
        Some((Value::Object(row).to_string() + "\n", count))
    }
}

/// Draws the completions of these rows, and appends each row when it and all before it are complete.
fn draw(
    request: &SampleRequest<'_>,
    generator: &mut dyn Generator,
    stop: &Stop,
    slab: Vec<Asked>,
    out: &mut File,
    report: &mut SampleReport,
    progress: &mut dyn FnMut(usize),
) -> Result<(), PipelineError> {
    let Some(first) = slab.first() else { return Ok(()) };
    let stops: Vec<&str> = request.stops.iter().map(String::as_str).collect();
    let rule = match first.continues {
        true => StopRule::TopLevel,
        false => StopRule::Strings(&stops),
    };
    let requests: Vec<GenerationRequest> = slab
        .iter()
        .flat_map(|asked| asked.requests(request, request.samples))
        .collect();
    let mut waiting: VecDeque<Asked> = slab.into();
    let mut texts: BTreeMap<usize, String> = BTreeMap::new();
    // Index of the first request of the first row that waits.
    let mut begun = 0;
    let mut unwritten = None;
    let drawn = generator.generate(&requests, &rule, &mut |index, completion| {
        if stop.is_asked() {
            return Err(EvalError::Stopped);
        }
        report.tokens += completion.tokens;
        texts.insert(index, rule.cut(&completion.text).to_owned());
        progress(completion.tokens);
        while texts.range(begun..begun + request.samples).count() == request.samples {
            let Some(asked) = waiting.pop_front() else { break };
            let own = begun..begun + request.samples;
            let completions: Vec<String> = own.filter_map(|index| texts.remove(&index)).collect();
            begun += request.samples;
            let Some((line, count)) = asked.written(completions, &request.drawn) else {
                report.empty += request.samples;
                continue;
            };
            report.rows += 1;
            report.completions += count;
            report.empty += request.samples - count;
            // In one piece, so that an interrupted run leaves no more than the beginning of one line.
            if let Err(error) = out.write_all(line.as_bytes()) {
                unwritten = Some(error);
                return Err(EvalError::Stopped);
            }
        }
        Ok(())
    });
    if let Some(error) = unwritten {
        return Err(PipelineError::io("writing", request.output)(error));
    }
    drawn.map_err(of_eval)?;
    match waiting.len() {
        0 => Ok(()),
        _ => Err(PipelineError::Internal("the model left out completions")),
    }
}

fn of_eval(error: EvalError) -> PipelineError {
    match error {
        EvalError::Data(error) => error.into(),
        other => PipelineError::Eval(other),
    }
}

/// What an output holds.
struct Written {
    /// Hashes of the prompts of its rows, in order.
    prompts: VecDeque<[u8; 32]>,
    /// Bytes of its whole rows.
    bytes: u64,
}

impl Written {
    /// Reads the rows of the output, which must have been drawn as this request draws. A line that was cut is not
    /// there.
    fn read(request: &SampleRequest<'_>) -> Result<Self, PipelineError> {
        let path = request.output;
        let mut written = Self {
            prompts: VecDeque::new(),
            bytes: 0,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(written),
            Err(error) => return Err(PipelineError::io("reading", path)(error)),
        };
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            file.read_until(b'\n', &mut line)
                .map_err(PipelineError::io("reading", path))?;
            if !line.ends_with(b"\n") {
                break;
            }
            let row: Value = serde_json::from_slice(&line).unwrap_or_default();
            let (Some(prompt), Some(drawn)) = (row.get("prompt"), row.get(DRAWN).and_then(Value::as_object)) else {
                return Err(PipelineError::Setting(format!(
                    "`{}` exists and its line {number} is no row of sampled completions; give another file as --output",
                    path.display()
                )));
            };
            if let Some((name, was, is)) = difference(drawn, &request.drawn) {
                return Err(PipelineError::Setting(format!(
                    "`{}` was drawn with `{name}` {was}, and this command has {is}; give another file as --output",
                    path.display()
                )));
            }
            written.prompts.push_back(hash(prompt));
            written.bytes += line.len() as u64;
        }
        Ok(written)
    }

    /// Whether the row of this prompt is the next one that is there; it is then taken.
    fn passes_over(&mut self, prompt: &Value) -> bool {
        let is_next = self.prompts.front() == Some(&hash(prompt));
        if is_next {
            self.prompts.pop_front();
        }
        is_next
    }

    /// Opens the output after its last whole row.
    fn append(&self, path: &Path) -> Result<File, PipelineError> {
        let open = || {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.set_len(self.bytes)?;
            file.flush()?;
            Ok(file)
        };
        open().map_err(PipelineError::io("opening", path))
    }
}

/// The first key that two ways of drawing differ in, with both values.
fn difference(was: &Map<String, Value>, is: &Map<String, Value>) -> Option<(String, Value, Value)> {
    let names = was.keys().chain(is.keys()).filter(|name| *name != MODEL);
    let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or_default();
    names
        .map(|name| (name.clone(), of(was, name), of(is, name)))
        .find(|(_, was, is)| was != is)
}

fn hash(prompt: &Value) -> [u8; 32] {
    Sha256::digest(prompt.to_string()).into()
}

#[cfg(test)]
mod tests;
