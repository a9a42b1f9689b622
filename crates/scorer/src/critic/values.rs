//! The critic's arithmetic for one document, on plain slices in f64.
//!
//! For a response of N tokens `rewards` are r_t of these tokens, and `values` the N + 1 values
//! read at the prompt's last token and then at each response token. The last prompt token has
//! reward 0, and the value after the last response token is 0. V_t is what is still to come
//! *from* r_t on.

use crate::{InitialValue, Spread};

/// A sequence's reward as token rewards that sum to it: at the last token, in equal parts,
/// proportional to N - t, or to gamma^(N-1-t), with t = 0..N-1.
pub fn token_rewards(total: f64, n: usize, spread: Spread, gamma: f64) -> Vec<f64> {
    let shares: Vec<f64> = (0..n)
        .map(|t| {
            let after = n - 1 - t;
            match spread {
                Spread::Terminal => f64::from(u8::from(after == 0)),
                Spread::Uniform => 1.0,
                Spread::Length => (after + 1) as f64,
                Spread::Gae => gamma.powf(after as f64),
            }
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    shares.into_iter().map(|share| total * share / sum).collect()
}

/// Value targets by generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438),
/// backwards from the last response token to the last prompt token: N + 1 of them, in the order
/// of `values`.
///
/// ```text
/// delta_t  = r_t + gamma * V_{t+1} - V_t
/// A_t      = delta_t + gamma * lambda * A_{t+1}
/// target_t = V_t + A_t
/// ```
pub fn gae_targets(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let rewards = std::iter::once(0.0).chain(rewards.iter().copied());
    let steps: Vec<(f64, f64)> = rewards.zip(values.iter().copied()).collect();
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    let mut targets: Vec<f64> = steps
        .into_iter()
        .rev()
        .map(|(reward, value)| {
            let delta = reward + gamma * next_value - value;
            next_advantage = delta + gamma * lambda * next_advantage;
            next_value = value;
            value + next_advantage
        })
        .collect();
    targets.reverse();
    targets
}

/// The discounted return from each token on, at the last prompt token and at each response token:
/// what V is to estimate, whatever lambda.
pub fn returns(rewards: &[f64], gamma: f64) -> Vec<f64> {
    let zeros = vec![0.0; rewards.len() + 1];
    gae_targets(rewards, &zeros, gamma, 1.0)
}

/// Stage 2's scores of the N response tokens: `s[j] = r_{j-1} + gamma * V_j - V_{j-1}`.
///
/// Before the first response token stand the last prompt token's value (`prompt`) or 0 (`zero`),
/// and its reward 0.
pub fn scores(rewards: &[f64], values: &[f64], gamma: f64, initial: InitialValue) -> Vec<f64> {
    let Some((&prompt, response)) = values.split_first() else {
        return Vec::new();
    };
    let mut before = match initial {
        InitialValue::Prompt => prompt,
        InitialValue::Zero => 0.0,
    };
    let earlier = std::iter::once(0.0).chain(rewards.iter().copied());
    earlier
        .zip(response)
        .map(|(reward, &value)| {
            let score = reward + gamma * value - before;
            before = value;
            score
        })
        .collect()
}
