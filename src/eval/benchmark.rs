use super::{
    EvalError, Verdict,
    sandbox::{Limits, Runner},
};
use crate::data::PromptStyle;

/// A set of problems, each with a prompt and a way to judge a completion.
///
/// A benchmark knows neither the model nor how many samples are drawn.
pub trait Benchmark: Send + Sync {
    /// Its name on the command line and in reports: `mbpp`.
    fn name(&self) -> &str;

    /// The numbers of all problems, ascending.
    fn tasks(&self) -> Vec<u32>;

    /// The numbers of the problems evaluated if none are named.
    fn default_tasks(&self) -> Vec<u32>;

    /// A problem's name in `samples.jsonl`: `Mbpp/11`.
    fn task_id(&self, task: u32) -> String;

    /// How prompts are written.
    fn prompt_style(&self) -> PromptStyle;

    /// The prompt for a problem.
    ///
    /// # Errors
    /// An unknown problem.
    fn prompt(&self, task: u32) -> Result<&str, EvalError>;

    /// A completion ends before the first of these.
    fn stop(&self) -> &[&str];

    /// Judges a completion, already cut at its stop string.
    ///
    /// # Errors
    /// An unknown problem, or a sandbox that fails; what is wrong with the completion is the verdict.
    fn judge(&self, task: u32, completion: &str, runner: &dyn Runner, limits: &Limits) -> Result<Verdict, EvalError>;

    /// Whether a completion is the reference solution, but for white space at line ends and blank
    /// lines around it.
    ///
    /// # Errors
    /// An unknown problem.
    fn is_reference(&self, task: u32, completion: &str) -> Result<bool, EvalError>;
}
