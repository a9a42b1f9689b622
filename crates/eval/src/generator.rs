//! What an evaluation asks of a model. Nothing here knows which.

use super::{EvalError, StopRule};

/// One completion to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationRequest {
    /// The text to continue.
    pub prompt: String,
    /// The seed of this completion's own draws.
    pub seed: u64,
    /// Sampling temperature, 0 for greedy.
    pub temperature: f64,
}

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text, without the prompt; what follows the stop may still be on it.
    pub text: String,
    /// Tokens generated for it.
    pub tokens: usize,
}

/// Tokens of a prompt that is too long, and how many the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptLength {
    /// Of the prompt.
    pub tokens: usize,
    /// That the model was made for.
    pub positions: usize,
}

/// Takes a finished completion, with the index of its request.
pub type Done<'a> = dyn FnMut(usize, Completion) -> Result<(), EvalError> + 'a;

/// Turns prompts into completions.
pub trait Generator {
    /// How long the request's prompt is, if that is more than the model takes.
    ///
    /// # Errors
    /// A prompt that cannot be tokenised.
    fn prompt_too_long(&self, request: &GenerationRequest) -> Result<Option<PromptLength>, EvalError> {
        let _ = request;
        Ok(None)
    }

    /// One completion for each request, handed to `done` once each, in any order, as they finish.
    /// A completion may end where `stop` says so. The same request gives the same text, whatever
    /// else is asked for.
    ///
    /// # Errors
    /// [`EvalError::Generate`], or what `done` returned, which ends all others at their next token.
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        stop: &StopRule<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError>;
}
