//! Prompts that are longer than the model takes.

use super::{Benchmark, EvalError, GenerationRequest, Generator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use wmtp_data::PromptStyle;

/// What becomes of problems whose prompt is longer than the model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// The evaluation is refused before anything is drawn.
    #[default]
    Refuse,
    /// They count as failed (`error: prompt_too_long`); the others are evaluated.
    Fail,
}

/// The error of a problem that is counted as failed.
pub(super) const PROMPT_TOO_LONG: &str = "prompt_too_long";

/// The problems of `tasks` whose prompt is too long.
///
/// # Errors
/// There are some, and they are to be refused; a prompt that cannot be tokenised.
pub(super) fn too_long(
    benchmark: &dyn Benchmark,
    tasks: &[u32],
    generator: &dyn Generator,
    policy: TooLong,
) -> Result<BTreeSet<u32>, EvalError> {
    let mut found = BTreeSet::new();
    let mut first = None;
    for &task in tasks {
        let request = GenerationRequest {
            prompt: benchmark.prompt(task)?.to_owned(),
            seed: 0,
            temperature: 0.0,
        };
        if let Some(length) = generator.prompt_too_long(&request)? {
            first.get_or_insert((task, length));
            found.insert(task);
        }
    }
    match (first, policy) {
        (Some((task, length)), TooLong::Refuse) => {
            let shorter = match benchmark.prompt_style() {
                PromptStyle::FewShot => "`--prompt zero-shot`, ",
                PromptStyle::ZeroShot | PromptStyle::Chat => "",
            };
            Err(EvalError::Request(format!(
                "the prompt of `{}` has {} tokens, more than the model's {} positions ({} of {} problems): use \
                 {shorter}other `--tasks`, or `--too-long fail`",
                benchmark.task_id(task),
                length.tokens,
                length.positions,
                found.len(),
                tasks.len()
            )))
        }
        _ => Ok(found),
    }
}
