//! Optimizer steps of MBPP fine-tuning in a file that both sides read.
//!
//! The first line holds the settings, `{"steps", "optim": {recipe section optim}}`; each further one
//! a step, `{"micro": [{"rows", "seq_len", "tokens", "positions", "docs", "response", "documents":
//! [[row, start, len, prompt_len], …]}, …]}` with row-major `[B, S]` lists as in `Batch`.

use crate::Options;
use serde_json::{Value, json};
use std::{io::Write, path::Path};
use wmtp::{
    data::{Batch, BatchingConfig, DataConfig, Document, Tokenizer},
    train::{OptimConfig, StepBatch},
};

/// Settings and steps of a file.
pub struct Steps {
    /// AdamW's settings; the schedule runs over all steps of the file.
    pub optim: OptimConfig,
    /// The steps, in order.
    pub steps: Vec<StepBatch>,
}

/// Writes the steps that `wmtp train baseline` takes on MBPP: documents packed, prompts masked.
pub fn write(to: &Path, options: &Options) {
    let number = |name: &str, default: usize| options.get(name).map_or(default, |n| n.parse().expect("a number"));
    let dir = Path::new(options.get("--model").expect("--model DIR, for its tokenizer"));
    let tokenizer = Tokenizer::load(dir).expect("a model directory with a tokenizer");
    let config = DataConfig {
        seq_len: number("--seq-len", 256),
        ..DataConfig::default()
    };
    let data = wmtp::eval::bench::mbpp::training::problems(&config, &tokenizer)
        .expect("MBPP is built in")
        .train;
    let tokens = number("--tokens-per-step", 2048);
    let shape = BatchingConfig {
        micro_batch: number("--micro-batch", 2),
        accumulate: None,
        tokens_per_step: Some(tokens),
    }
    .shape(config.seq_len)
    .expect("a shape");
    let wanted = number("--steps", data.epoch(0, 0, shape).len());
    let optim = OptimConfig {
        lr: options.get("--lr").map_or(5e-5, |n| n.parse().expect("a number")),
        ..OptimConfig::default()
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(to).expect("a writable FILE"));
    let mut line = |value: Value| writeln!(file, "{value}").expect("room on the disk");
    line(json!({"steps": wanted, "optim": optim}));
    let mut written = 0;
    for epoch in 0.. {
        let epoch = data.epoch(0, epoch, shape);
        for step in 0..epoch.len() {
            if written == wanted {
                return;
            }
            line(json!({"micro": epoch.step(step).expect("in memory").iter().map(to_json).collect::<Vec<_>>()}));
            written += 1;
        }
    }
}

fn to_json(batch: &Batch) -> Value {
    let documents: Vec<_> = batch
        .documents
        .iter()
        .map(|d| [d.row, d.start, d.len, d.prompt_len])
        .collect();
    json!({"rows": batch.rows, "seq_len": batch.seq_len, "tokens": batch.tokens, "positions": batch.positions,
        "docs": batch.docs, "response": batch.response, "documents": documents})
}

/// Reads what [`write`] wrote.
pub fn read(path: &Path) -> Steps {
    let text = std::fs::read_to_string(path).expect("a readable --batches FILE");
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let settings = lines.next().expect("a line of settings");
    let optim = serde_json::from_value(settings["optim"].clone()).expect("settings of AdamW");
    let step = |line: Value| StepBatch {
        micro_batches: line["micro"]
            .as_array()
            .expect("micro-batches")
            .iter()
            .map(from_json)
            .collect(),
        ..StepBatch::default()
    };
    Steps {
        optim,
        steps: lines.map(step).collect(),
    }
}

fn from_json(value: &Value) -> Batch {
    fn field<T: serde::de::DeserializeOwned>(value: &Value, name: &str) -> T {
        serde_json::from_value(value[name].clone()).unwrap_or_else(|e| panic!("{name} of a micro-batch: {e}"))
    }
    let documents: Vec<[usize; 4]> = field(value, "documents");
    let document = |(sample, [row, start, len, prompt_len]): (usize, [usize; 4])| Document {
        sample,
        name: format!("row {row}, token {start}"),
        problem: sample as u32,
        row,
        start,
        len,
        prompt_len,
        reward: None,
    };
    let tokens: Vec<u32> = field(value, "tokens");
    Batch {
        rows: field(value, "rows"),
        seq_len: field(value, "seq_len"),
        given: vec![1.0; tokens.len()],
        tokens,
        positions: field(value, "positions"),
        docs: field(value, "docs"),
        response: field(value, "response"),
        documents: documents.into_iter().enumerate().map(document).collect(),
    }
}
