//! Greedy MBPP completions with and without drafts: token for token, and what it took.

use super::{Arguments, Failure, Subject, greedy, median};
use std::time::Instant;
use wmtp_model::{CausalLm, Decoding, Generation, MtpLlama, Packed, generate_all};

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let subject = Subject::open(arguments)?;
    let prompts = subject.prompts(arguments.tasks((11, 110))?, arguments.style()?)?;
    let rows = arguments.number("--rows", 8)?;
    let new_tokens = arguments.number("--new-tokens", 256)?;
    let drafts = arguments.number("--drafts", Decoding::default().drafts)?;
    let adaptive = !arguments.has("--always");
    println!(
        "{} prompts, {rows} at once, at most {new_tokens} tokens, {} heads, {} {drafts} drafts a pass",
        prompts.len(),
        subject.model.n_heads(),
        if adaptive { "at most" } else { "always" }
    );
    let repetitions = arguments.number("--repetitions", 1)?;
    let mut found = Vec::new();
    let mut ratios = Vec::new();
    for speculative in [false, true].repeat(repetitions.max(1)) {
        let decoding = Decoding {
            rows,
            speculative,
            drafts,
            adaptive,
            prepared: subject.prepared.clone(),
            eos: subject.tokenizer.eos_ids().to_vec(),
            ..Decoding::default()
        };
        let mut stop = |_: usize, tokens: &[u32]| {
            let tail = &tokens[tokens.len().saturating_sub(10)..];
            subject.tokenizer.decode(tail).is_ok_and(|text| text.contains("[DONE]"))
        };
        let started = Instant::now();
        let made = generate_all(&subject.model, &greedy(&prompts, new_tokens), &decoding, &mut stop)?;
        let seconds = started.elapsed().as_secs_f64();
        let (tokens, forwards) = totals(&made);
        println!(
            "{:13} {tokens} tokens, {forwards} trunk forwards of texts ({:.3} tokens each), {seconds:.1} s, {:.1} tokens/s",
            if speculative { "speculative" } else { "plain" },
            tokens as f64 / forwards as f64,
            tokens as f64 / seconds
        );
        if let (true, Some((_, plain_seconds, _))) = (speculative, found.last()) {
            ratios.push(plain_seconds / seconds);
        }
        found.push((made, seconds, forwards));
    }
    let [.., (plain, _, plain_forwards), (fast, _, forwards)] = &found[..] else {
        return Ok(());
    };
    for k in 2..=subject.model.n_heads() {
        let sum = |of: fn(&Generation) -> &Vec<usize>| fast.iter().map(|made| of(made)[k - 2]).sum::<usize>();
        let (drafted, accepted) = (sum(|made| &made.effort.drafted), sum(|made| &made.effort.accepted));
        let share = accepted as f64 / drafted.max(1) as f64;
        println!("head {k}: accepted in {accepted} of {drafted} passes ({share:.3})");
    }
    let copied: usize = fast.iter().map(|made| made.effort.copied).sum();
    println!("copied from the text, of no head: {copied} accepted");
    let judged: usize = fast.iter().map(|made| made.effort.verified).sum();
    println!("drafts judged: {:.1} a pass", judged as f64 / *forwards as f64);
    println!(
        "trunk forwards, plain / speculative: {:.3}",
        *plain_forwards as f64 / *forwards as f64
    );
    println!(
        "seconds, plain / speculative:        {:.3}, of {ratios:.3?}",
        median(ratios.clone())
    );
    let mut same = 0;
    let mut unexplained = 0;
    for (i, (prompt, (plain, fast))) in prompts.iter().zip(plain.iter().zip(fast)).enumerate() {
        let first = plain.tokens.iter().zip(&fast.tokens).position(|(a, b)| a != b);
        let Some(at) = first else {
            if plain.tokens.len() == fast.tokens.len() {
                same += 1;
            } else {
                unexplained += 1;
                println!("prompt {i}: one text ends before the other");
            }
            continue;
        };
        let gap = gap(&subject.model, &[&prompt[..], &plain.tokens[..at]].concat());
        unexplained += usize::from(gap >= 1e-4);
        println!("prompt {i}: differs from token {at} on, where the two best logits are {gap:.1e} apart");
    }
    println!("{same} of {} texts are the same token for token", prompts.len());
    if unexplained > 0 {
        return Err(format!("{unexplained} texts differ where the best logits are not within 1e-4").into());
    }
    Ok(())
}

fn totals(made: &[Generation]) -> (usize, usize) {
    let tokens = made.iter().map(|made| made.tokens.len()).sum();
    let forwards = made.iter().map(|made| made.effort.trunk_forwards).sum();
    (tokens, forwards)
}

/// How far head 1's two best logits after `text` lie apart, by the whole model without a cache.
fn gap(model: &MtpLlama, text: &[u32]) -> f64 {
    let input = Packed::from_documents(&[text.to_vec()], &model.device());
    let context = model.context(&input);
    let hidden = model.head(1, model.trunk(&input, &context), &context);
    let logits = model.logits(hidden.narrow(1, text.len() - 1, 1));
    let mut logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
    logits.sort_by(|a, b| b.total_cmp(a));
    logits[0] - logits[1]
}
