//! What a run will cost, before it starts.

use super::{Benchmark, EvalError, EvalRequest, GenerationRequest, Generator, lengths, sample_seed};
use serde::Serialize;
use std::time::Instant;

/// The cost of a run. Judging is not included: it runs in parallel with generating.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Problems.
    pub tasks: usize,
    /// Completions to draw, over all temperatures.
    pub samples: usize,
    /// Tokens to generate.
    pub tokens: u64,
    /// Tokens of one completion: the mean of the probe, or the most there can be.
    pub tokens_per_sample: f64,
    /// Tokens per second.
    pub tokens_per_second: f64,
    /// Hours.
    pub hours: f64,
    /// Completions that were drawn to measure; 0 if the speed was stated, and then tokens and hours
    /// are the most there can be.
    pub probe: usize,
}

fn samples(request: &EvalRequest) -> usize {
    request.tasks.len() * request.samples * request.temperatures.len()
}

/// From a stated speed, with every completion as long as it may get.
pub fn from_speed(request: &EvalRequest, tokens_per_second: f64) -> Estimate {
    let samples = samples(request);
    let tokens = samples as f64 * request.max_new_tokens as f64;
    Estimate {
        tasks: request.tasks.len(),
        samples,
        tokens: tokens as u64,
        tokens_per_sample: request.max_new_tokens as f64,
        tokens_per_second,
        hours: tokens / tokens_per_second / 3600.0,
        probe: 0,
    }
}

/// From a probe: up to `most` completions, of problems spread over all, at the middle temperature.
/// They are thrown away. Its seconds hold the work on prompts, too.
///
/// # Errors
/// Those of the generator.
pub fn from_probe(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    generator: &mut dyn Generator,
    most: usize,
) -> Result<Estimate, EvalError> {
    let long = lengths::too_long(benchmark, &request.tasks, generator, request.too_long)?;
    let tasks: Vec<u32> = request
        .tasks
        .iter()
        .copied()
        .filter(|task| !long.contains(task))
        .collect();
    let samples = tasks.len() * request.samples * request.temperatures.len();
    let count = most.min(samples).max(1);
    let middle = request.temperatures.get(request.temperatures.len() / 2).copied();
    let mut requests = Vec::new();
    for place in 0..count {
        let at = place * tasks.len() / count;
        let Some(&task) = tasks.get(at) else { continue };
        requests.push(GenerationRequest {
            prompt: benchmark.prompt(task)?.to_owned(),
            seed: sample_seed(request.seed, &benchmark.task_id(task), place),
            temperature: middle.unwrap_or(0.0),
        });
    }
    let started = Instant::now();
    let mut tokens = 0;
    generator.generate(&requests, &benchmark.stop(), &mut |_, completion| {
        tokens += completion.tokens;
        Ok(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let drawn = requests.len().max(1) as f64;
    let tokens_per_sample = tokens as f64 / drawn;
    Ok(Estimate {
        tasks: request.tasks.len(),
        samples,
        tokens: (samples as f64 * tokens_per_sample) as u64,
        tokens_per_sample,
        tokens_per_second: tokens as f64 / seconds.max(1e-9),
        hours: samples as f64 * seconds / drawn / 3600.0,
        probe: requests.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_stated_speed_gives_the_most_there_can_be() {
        let request = EvalRequest {
            samples: 200,
            temperatures: vec![0.2, 0.8],
            max_new_tokens: 500,
            ..EvalRequest::new((11..=510).collect(), PathBuf::from("nowhere"))
        };
        let estimate = from_speed(&request, 1000.0);
        assert_eq!((estimate.samples, estimate.tokens), (200_000, 100_000_000));
        assert!((estimate.hours - 100_000.0 / 3600.0).abs() < 1e-9);
    }
}
