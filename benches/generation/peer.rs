//! Ours as a process that generates what it is asked for, a line of JSON each.
//!
//! `{"tasks": [11, 18], "style": "zero-shot"}` gives `{"prompts": [[ids]]}`; `{"prompts": [[ids]],
//! "new_tokens": 64}` gives `{"seconds", "first_seconds", "tokens": [[ids]]}`, all prompts in one
//! batch, greedy, without end tokens; `quit` ends it.

use super::{Arguments, Failure, Subject, greedy};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;
use wmtp::data::PromptStyle;
use wmtp_model::{Decoding, generate};

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = Subject::open(arguments)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", json!({"ready": true}))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == "quit" {
            return Ok(());
        }
        let reply = answer(&subject, &serde_json::from_str(&line)?)?;
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(subject: &Subject, request: &Value) -> Result<Value, Failure> {
    if let Some([first, last]) = request["tasks"].as_array().map(Vec::as_slice) {
        let style = match request["style"].as_str() {
            Some("few-shot") => PromptStyle::FewShot,
            _ => PromptStyle::ZeroShot,
        };
        let id = |value: &Value| value.as_u64().map(|id| id as u32).ok_or("a task is no number");
        return Ok(json!({"prompts": subject.prompts((id(first)?, id(last)?), style)?}));
    }
    let prompts: Vec<Vec<u32>> = serde_json::from_value(request["prompts"].clone())?;
    let new_tokens = request["new_tokens"].as_u64().ok_or("new_tokens is no number")? as usize;
    let requests = greedy(&prompts, new_tokens);
    let decoding = Decoding {
        rows: prompts.len(),
        prepared: subject.prepared.clone(),
        ..Decoding::default()
    };
    let mut tokens = vec![Vec::new(); prompts.len()];
    let started = Instant::now();
    let mut first = None;
    generate(
        &subject.model,
        &requests,
        &decoding,
        &mut |_, _| {
            first.get_or_insert_with(|| started.elapsed().as_secs_f64());
            false
        },
        &mut |index, generation| tokens[index] = generation.tokens,
    )?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({"seconds": seconds, "first_seconds": first, "tokens": tokens}))
}
