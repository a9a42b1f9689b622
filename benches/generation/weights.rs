//! Greedy generation with weights of several sizes, alternating in one process.

use super::{Arguments, Failure, Subject, greedy, median};
use std::time::Instant;
use wmtp_model::{Decoding, PreparedWeights, Quantization, generate_all};

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let new_tokens = arguments.number("--new-tokens", 128)?;
    let repetitions = arguments.number("--repetitions", 5)?;
    let open = |precision: &str| {
        let mut all = arguments.0.clone();
        all.extend(["--heads".into(), "1".into(), "--precision".into(), precision.into()]);
        // The first mention counts.
        all.rotate_right(4);
        Subject::open(&Arguments(all))
    };
    let subjects = [open("f32")?, open("bf16")?];
    let prepared = |subject: &Subject, quantization| PreparedWeights::new(&subject.model, false, quantization);
    let all = [
        ("f32", &subjects[0].model, prepared(&subjects[0], None)?),
        ("bf16", &subjects[1].model, prepared(&subjects[1], None)?),
        (
            "int8",
            &subjects[1].model,
            prepared(&subjects[1], Some(Quantization::Int8))?,
        ),
        (
            "int4",
            &subjects[1].model,
            prepared(&subjects[1], Some(Quantization::Int4))?,
        ),
    ];
    println!("{new_tokens} new tokens each, tokens/s and ratio to bf16, medians of {repetitions}");
    for batch in [1, 8] {
        let (first, last) = (11, 10 + batch as u32);
        let prompts = subjects[0].prompts((first, last), arguments.style()?)?;
        let requests = greedy(&prompts, new_tokens);
        let mut seconds = vec![Vec::new(); all.len()];
        for repetition in 0..=repetitions {
            for ((_, model, prepared), seconds) in all.iter().zip(&mut seconds) {
                let decoding = Decoding {
                    rows: batch,
                    prepared: prepared.clone(),
                    ..Decoding::default()
                };
                let started = Instant::now();
                generate_all(model, &requests, &decoding, &mut |_, _| false)?;
                // The first repetition warms up.
                if repetition > 0 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
            }
        }
        for ((name, ..), own) in all.iter().zip(&seconds) {
            let ratio = median(seconds[1].iter().zip(own).map(|(bf16, own)| bf16 / own).collect());
            let speed = (batch * new_tokens) as f64 / median(own.clone());
            println!("{batch} at once, {name}: {speed:7.1} {ratio:6.2}");
        }
    }
    Ok(())
}
