//! A scorer of one's own: implement `Scorer`, and hand it to the pipeline.
//!
//!     cargo run --release --example own_scorer -- runs
//!
//! This one gives the tokens of a solution's first line (its signature) the highest score and every
//! other token one that falls with its distance from the start. It is here to show the interface, not
//! because it is a good idea.

use wmtp::{
    cli::Lines,
    data::Batch,
    pipeline::Experiment,
    scorer::{Needs, ScoreInput, Scorer, ScorerError},
    settings::{Pipeline, Sources},
};

/// Scores fall with the distance from the response's first token.
struct EarlyFirst;

impl Scorer for EarlyFirst {
    fn name(&self) -> &str {
        "early-first"
    }

    /// Neither hidden states nor losses have to be computed for it.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let batch: &Batch = input.batch;
        let mut scores = vec![0.0; batch.tokens.len()];
        for document in &batch.documents {
            for t in document.prompt_len..document.len {
                scores[document.row * batch.seq_len + document.start + t] = -((t - document.prompt_len) as f32).ln_1p();
            }
        }
        Ok(scores)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output = std::env::args().nth(1).unwrap_or_else(|| "runs".into());
    let cache = tempfile::tempdir()?;
    let settings = Sources::new(Some(Pipeline::Baseline))
        .set("train.steps=20")
        .set("devices.backend=flex")
        .set(format!("paths.runs={output}"))
        .set(format!("paths.cache={}", cache.path().display()))
        .load()?;
    let summary = Experiment::from(settings)
        .progress(Lines)
        .run_name("own-scorer")
        .scorer(EarlyFirst)
        .run()?;
    println!("{}", summary.checkpoint.display());
    Ok(())
}
