//! Time until every prompt of a batch has its first token: few-shot prompts begin with the same
//! hundreds of tokens. Then the time of a prompt that enters when its beginning is there already.

use super::{Arguments, Failure, Subject, greedy, median};
use std::time::Instant;
use wmtp_model::{Decoding, Totals, generate};

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = Subject::open(arguments)?;
    let prompts = subject.prompts(arguments.tasks((11, 18))?, arguments.style()?)?;
    let repetitions = arguments.number("--repetitions", 5)?;
    let rows = arguments.number("--rows", prompts.len())?;
    let lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    println!(
        "{} prompts of {} to {} tokens, {rows} at once; medians of {repetitions} alternating repetitions",
        prompts.len(),
        lengths.iter().min().unwrap_or(&0),
        lengths.iter().max().unwrap_or(&0)
    );
    let mut seconds = [Vec::new(), Vec::new()];
    let mut read = [0; 2];
    for round in 0..=repetitions {
        let mut texts = Vec::new();
        for (i, share) in [false, true].into_iter().enumerate() {
            let (took, totals, first) = first_tokens(&subject, &prompts, rows, share)?;
            read[i] = totals.prompt_tokens_read;
            texts.push(first);
            // The first round warms up.
            if round > 0 {
                seconds[i].push(took);
            }
        }
        if texts[0] != texts[1] {
            return Err("sharing changed a first token".into());
        }
    }
    let [apart, shared] = seconds.map(median);
    println!(
        "first tokens without sharing  {apart:8.3} s  {:6} prompt tokens read",
        read[0]
    );
    println!(
        "first tokens with sharing     {shared:8.3} s  {:6} prompt tokens read",
        read[1]
    );
    println!("ratio                         {:8.2}", apart / shared);
    Ok(())
}

/// Seconds until all have one token, and these tokens.
fn first_tokens(
    subject: &Subject,
    prompts: &[Vec<u32>],
    rows: usize,
    share_prefixes: bool,
) -> Result<(f64, Totals, Vec<Vec<u32>>), Failure> {
    let decoding = Decoding {
        rows,
        share_prefixes,
        prepared: subject.prepared.clone(),
        ..Decoding::default()
    };
    let mut tokens = vec![Vec::new(); prompts.len()];
    let started = Instant::now();
    let totals = generate(
        &subject.model,
        &greedy(prompts, 1),
        &decoding,
        &mut |_, _| false,
        &mut |index, generation| tokens[index] = generation.tokens,
    )?;
    Ok((started.elapsed().as_secs_f64(), totals, tokens))
}
