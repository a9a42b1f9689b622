//! How well the labels of every shipped source follow from names, length and layout: the table of
//! `docs/labels.md`, or JSON with `--json`.
//!
//!     cargo run --release -p wmtp-data --example leak [-- --json]

use std::process::ExitCode;
use wmtp_data::{
    DataError,
    labels::{Labelled, LabelledSource, unix_line_ends},
    leak, rows,
};

fn main() -> ExitCode {
    match run(std::env::args().any(|argument| argument == "--json")) {
        Ok(text) => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(json: bool) -> Result<String, Box<dyn std::error::Error>> {
    let mut sources: Vec<(String, Vec<Labelled>)> = Vec::new();
    for source in LabelledSource::ALL {
        sources.push((source.place(), source.load()?));
    }
    let old = old()?;
    let of = |kind: &str| -> Vec<Labelled> {
        let chosen = old.iter().filter(|(k, program)| !program.correct || k == kind);
        chosen.map(|(_, program)| program.clone()).collect()
    };
    let all = old.iter().map(|(_, program)| program.clone()).collect();
    sources.push(("mbpp_pairs.jsonl".into(), all));
    sources.push(("mbpp_pairs.jsonl, renamed and wrong".into(), of("rename")));
    sources.push(("mbpp_pairs.jsonl, references and wrong".into(), of("reference")));
    let reports: Vec<(String, Vec<leak::LeakReport>)> = sources
        .into_iter()
        .map(|(name, programs)| (name, leak::measure_all(&programs)))
        .collect();
    if json {
        return Ok(serde_json::to_string_pretty(&reports)?);
    }
    Ok(leak::table(
        reports
            .iter()
            .map(|(name, reports)| (name.as_str(), reports.as_slice())),
    ))
}

/// The labelled programs of `mbpp_pairs.jsonl` with how each was made. Critics are not trained on it.
fn old() -> Result<Vec<(String, Labelled)>, DataError> {
    let text = include_str!("../../../data/mbpp/mbpp_pairs.jsonl");
    let field = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = rows::<serde_json::Value>("mbpp_pairs.jsonl", text)?;
    let programs = rows.iter().map(|(_, row)| {
        let program = Labelled {
            problem: format!("Mbpp/{}", row["task_id"]),
            pair: None,
            code: unix_line_ends(&field(row, "code")),
            correct: row["is_correct"] == true,
            language: "python".into(),
            edit: None,
            difficulty: None,
        };
        (field(row, "mutation"), program)
    });
    Ok(programs.collect())
}
