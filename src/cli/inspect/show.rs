//! `wmtp inspect data --show N`: training documents as the model reads them, with the tokens that are trained.

use crate::{
    cli::{
        Failure, Lines, Output,
        common::{ModelSource, data_source, resolve_model},
    },
    data::{Tokenized, Tokenizer},
    paths::expand_home,
    pipeline::{self, DataStore},
    settings::Settings,
    stop::Stop,
};
use serde_json::{Value, json};
use std::{fmt::Write, io::IsTerminal, path::Path, sync::Arc};

/// A document's tokens: their texts, whether they are trained, and the weights that the data give them.
struct Shown {
    name: String,
    reward: Option<f32>,
    tokens: Vec<(String, bool, f32)>,
}

impl Shown {
    fn of(document: &Tokenized, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let pieces = tokenizer.pieces_after(&[], &document.tokens)?;
        let tokens = pieces.into_iter().enumerate().map(|(index, piece)| {
            let untrained = document.untrained.iter().any(|range| range.contains(&index));
            let given = document.given.iter().find(|(range, _)| range.contains(&index));
            let weight = given.map_or(1.0, |(_, weight)| *weight);
            (piece, index >= document.prompt_len && !untrained, weight)
        });
        Ok(Self {
            name: document.name.clone(),
            reward: document.reward,
            tokens: tokens.collect(),
        })
    }

    fn title(&self) -> String {
        let trained = self.tokens.iter().filter(|(_, trained, _)| *trained).count();
        let reward = self.reward.map_or(String::new(), |reward| format!(", reward {reward}"));
        format!("{}: {} tokens, {trained} trained{reward}", self.name, self.tokens.len())
    }

    fn json(&self) -> Value {
        let tokens = self
            .tokens
            .iter()
            .map(|(text, trained, weight)| json!([text, trained, weight]));
        json!({"name": self.name, "reward": self.reward, "tokens": tokens.collect::<Vec<_>>()})
    }

    /// The text with what is trained in green, or between `[[` and `]]` where there are no colours.
    fn text(&self, colours: bool) -> String {
        let (begin, end) = if colours { ("\x1b[32m", "\x1b[0m") } else { ("[[", "]]") };
        let mut text = String::new();
        let mut inside = false;
        for (piece, trained, _) in &self.tokens {
            if *trained != inside {
                text.push_str(if *trained { begin } else { end });
                inside = *trained;
            }
            text.push_str(piece);
        }
        if inside {
            text.push_str(end);
        }
        text
    }

    fn html(&self) -> String {
        let mut page = format!("<h2>{}</h2>\n<pre>", escaped(&self.title()));
        for (piece, trained, weight) in &self.tokens {
            let class = if *trained { "trained" } else { "prompt" };
            let title = if *weight == 1.0 {
                String::new()
            } else {
                format!(" title=\"weight {weight}\"")
            };
            let _ = write!(page, "<span class=\"{class}\"{title}>{}</span>", escaped(piece));
        }
        page.push_str("</pre>\n");
        page
    }
}

/// Shows the first `number` training documents of the recipe, and with `page` writes them as a page of HTML.
pub fn show(settings: &Settings, number: usize, page: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let model = resolve_model(&settings.recipe.model.base, &settings.config, output)?;
    let mut config = settings.recipe.data.clone();
    let tokenizer = match &model.source {
        ModelSource::Directory(dir) => Tokenizer::load(dir)?,
        ModelSource::Builtin(_) => Tokenizer::builtin_micro()?,
    };
    config.record_chat_date(&tokenizer);
    let tokenizer = config.dated(tokenizer).with_choice(config.choice())?;
    config.source = config
        .source
        .try_map(|name| data_source(name, &settings.config, output))?;
    let store = DataStore::new(
        expand_home(&settings.config.paths.cache),
        Arc::new(Lines),
        Stop::default(),
    );
    let splits = pipeline::training_documents(&config, &tokenizer, &store)?;
    let documents = splits.train.documents().take(number);
    let shown: Vec<Shown> = documents
        .map(|document| Shown::of(&*document?, &tokenizer))
        .collect::<Result<_, Failure>>()?;
    if let Some(path) = page {
        std::fs::write(path, html(&shown))
            .map_err(|error| Failure::failed(format!("cannot write `{}`: {error}", path.display())))?;
    }
    let report = splits.train.report();
    let colours = std::io::stdout().is_terminal();
    let mut text = format!(
        "{} documents to train on, {} held out; {} prompt tokens, {} trained tokens; {} left out as too long\n",
        report.documents,
        splits.valid.len(),
        report.prompt_tokens,
        report.response_tokens,
        report.too_long
    );
    for document in &shown {
        let _ = write!(text, "\n{}\n{}\n", document.title(), document.text(colours));
    }
    output.result(
        &json!({
            "documents": report.documents,
            "held_out": splits.valid.len(),
            "prompt_tokens": report.prompt_tokens,
            "trained_tokens": report.response_tokens,
            "too_long": report.too_long,
            "shown": shown.iter().map(Shown::json).collect::<Vec<_>>(),
        }),
        text.trim_end(),
    )
}

fn html(shown: &[Shown]) -> String {
    let body: String = shown.iter().map(Shown::html).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Training documents</title>\n<style>\n\
         body {{ font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}\n\
         pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f4; padding: 1rem; }}\n\
         .prompt {{ color: #666; }}\n\
         .trained {{ color: #111; background: #cfe8cf; }}\n\
         h2 {{ font-size: 1rem; }}\n\
         </style></head><body>\n<h1>Training documents</h1>\n\
         <p>Green tokens are trained; grey ones are context.</p>\n{body}</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
