//! How fast data are tokenised, next to the crate `tokenizers` by itself on the same texts.
//!
//! ```text
//! cargo run --release -p wmtp-data --example tokenize_speed -- DATA [ROWS [TOKENIZER_DIR]]
//! ```
//!
//! Each round takes the sides one after another, in an order that turns: `encode_batch` of the crate on all
//! texts; rendering of all rows to documents; and the whole way from the file to a token cache on disk, with
//! the comparison with benchmark problems. Printed are the medians and the ratios to `encode_batch`.

use rayon::prelude::*;
use std::{path::Path, time::Instant};
use wmtp_data::{
    Body, DataConfig, EvaluationProblem, Record, Rendering, Rows, TokenCache, Tokenizer, Wanted,
    source::{Source, SourceOptions},
    splits,
};

const ROUNDS: usize = 5;

fn text(record: &Record) -> String {
    match record.samples.first().map(|sample| &sample.body) {
        Some(Body::Completion { prompt, completion }) => format!("{prompt}{completion}"),
        Some(Body::Text(text)) => text.clone(),
        _ => panic!("take rows of prompt and completion, or of text"),
    }
}

/// As many problems as the benchmarks have, of their size, none of which is in the data.
fn problems() -> Vec<EvaluationProblem> {
    let problem = |number: usize| EvaluationProblem {
        name: format!("bench/{number}"),
        task: format!("Write a function that gives the sum of the {number} largest elements of a list. ").repeat(4),
        code: format!("def f{number}(x):\n    return sum(sorted(x)[-{number}:])\n").repeat(6),
    };
    (0..1138).map(problem).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let data = Path::new(arguments.first().ok_or("give a data file")?);
    let rows: usize = arguments.get(1).map_or(Ok(20_000), |rows| rows.parse())?;
    let micro = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/micro");
    let dir = Path::new(arguments.get(2).map_or(micro, String::as_str));
    let tokenizer = Tokenizer::load(dir)?;
    let peer = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).map_err(|error| error.to_string())?;
    let options = SourceOptions {
        max_rows: Some(rows),
        ..SourceOptions::default()
    };
    let source = Source::open(data, &options)?;
    let records: Vec<Record> = source.records().collect::<Result<_, _>>()?;
    let texts: Vec<String> = records.iter().map(text).collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let config = DataConfig {
        source: data.to_string_lossy().as_ref().into(),
        ..DataConfig::default()
    };
    let rendering = Rendering::new(&config, &tokenizer);
    let problems = problems();

    let batch = || {
        let encoded = peer.encode_batch(texts.iter().map(String::as_str).collect::<Vec<_>>(), false);
        encoded.map_or(0, |encoded| encoded.iter().map(|text| text.len()).sum::<usize>())
    };
    let render = || {
        let rendered = records.par_iter().map(|record| rendering.record(record));
        let tokens = rendered.map(|row| {
            row.map_or(0, |row| {
                row.iter().flat_map(|r| &r.documents).map(|d| d.tokens.len()).sum()
            })
        });
        tokens.sum::<usize>()
    };
    let whole = || {
        let cache = std::env::temp_dir().join(format!("tokenize-speed-{}", std::process::id()));
        let rows = Rows {
            source: &source,
            held_out: false,
            weight: 1.0,
            without_copies: false,
        };
        let store = TokenCache::below(&cache, &|_| {}).with_memory(0);
        let made = splits(
            &config,
            &tokenizer,
            &problems,
            &[],
            &[rows],
            Wanted::Right,
            Some(&store),
        );
        let tokens = made.map_or(0, |splits| splits.train.lengths().chain(splits.valid.lengths()).sum());
        let _ = std::fs::remove_dir_all(&cache);
        tokens
    };
    let sides: [(&str, &dyn Fn() -> usize); 3] = [
        ("tokenizers::encode_batch", &batch),
        ("rows to documents", &render),
        ("file to token cache", &whole),
    ];
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut tokens = [0; 3];
    for round in 0..ROUNDS {
        for turn in 0..sides.len() {
            let number = (round + turn) % sides.len();
            let started = Instant::now();
            tokens[number] = sides[number].1();
            times[number].push(started.elapsed().as_secs_f64());
        }
    }
    println!(
        "{} rows, {:.1} MB of text, {} threads",
        records.len(),
        bytes as f64 / 1e6,
        rayon::current_num_threads()
    );
    let median = |number: usize| {
        let mut sorted = times[number].clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    for (number, (name, _)) in sides.iter().enumerate() {
        println!(
            "{name:<26}{:>8.2} MB/s {:>8.2} million tokens/s   ratio {:.2}",
            bytes as f64 / 1e6 / median(number),
            tokens[number] as f64 / 1e6 / median(number),
            median(0) / median(number),
        );
    }
    Ok(())
}
