use super::{EvalError, Judge, Judgement, StopRule};
use wmtp_data::PromptStyle;

/// A set of problems, each with a prompt and a way to judge an answer.
///
/// A benchmark knows neither the model nor how many samples are drawn.
pub trait Benchmark: Send + Sync {
    /// Its name on the command line and in reports: `mbpp`.
    fn name(&self) -> &str;

    /// Which of its sets: `full`, `sanitized`, `test`.
    fn variant(&self) -> &str;

    /// Whether its numbers are those of MBPP's problems, which training data may hold.
    fn has_mbpp_tasks(&self) -> bool {
        false
    }

    /// The numbers of all problems, ascending.
    fn tasks(&self) -> Vec<u32>;

    /// The numbers of the problems evaluated if none are named.
    fn default_tasks(&self) -> Vec<u32> {
        self.tasks()
    }

    /// A problem's name in `samples.jsonl`: `Mbpp/11`.
    fn task_id(&self, task: u32) -> String;

    /// The problem that a name means: its `task_id`, or another name that the benchmark knows.
    fn task_named(&self, name: &str) -> Option<u32> {
        self.tasks().into_iter().find(|&task| self.task_id(task) == name)
    }

    /// The problem that another program's file means: by [`Benchmark::task_named`], else by the only
    /// name that is equal but for case, else by its number.
    fn task_meant(&self, name: &str) -> Option<u32> {
        let name = name.trim();
        self.task_named(name).or_else(|| {
            let tasks = self.tasks();
            let mut alike = tasks
                .iter()
                .filter(|&&task| self.task_id(task).eq_ignore_ascii_case(name));
            match (alike.next(), alike.next()) {
                (Some(&only), None) => Some(only),
                (Some(_), Some(_)) => None,
                (None, _) => name.parse().ok().filter(|number| tasks.contains(number)),
            }
        })
    }

    /// How prompts are written.
    fn prompt_style(&self) -> PromptStyle;

    /// The prompt for a problem.
    ///
    /// # Errors
    /// An unknown problem.
    fn prompt(&self, task: u32) -> Result<&str, EvalError>;

    /// What ends a completion.
    fn stop(&self) -> StopRule<'_>;

    /// The completion in what a model wrote for a problem, cut at its stop: all of it, or the program
    /// in an assistant's answer.
    fn completion(&self, task: u32, text: &str) -> String;

    /// Where its problems come from, if they are not built in: kept with the result.
    fn origin(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Does what has to be done before answers to `tasks` are judged, on at most `threads` threads, so that
    /// faults of the problems are found before anything is drawn.
    ///
    /// # Errors
    /// Problems that cannot be judged by; a sandbox that fails.
    fn prepare(&self, tasks: &[u32], judge: &Judge<'_>, threads: usize) -> Result<(), EvalError> {
        let _ = (tasks, judge, threads);
        Ok(())
    }

    /// Judges an answer.
    ///
    /// # Errors
    /// An unknown problem, or a sandbox that fails; what is wrong with the answer is the verdict.
    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError>;

    /// Whether an answer is the reference solution, but for white space at line ends and blank
    /// lines around it.
    ///
    /// # Errors
    /// An unknown problem.
    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError>;

    /// All texts of a problem that decide a verdict: its tests, and how they are run.
    ///
    /// # Errors
    /// An unknown problem.
    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError>;
}

/// An answer to a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// What follows the prompt.
    Completion(&'a str),
    /// A whole program.
    Program(&'a str),
}

impl<'a> Answer<'a> {
    /// What was written.
    pub fn text(self) -> &'a str {
        match self {
            Self::Completion(text) | Self::Program(text) => text,
        }
    }

    /// The whole program, for a prompt that is its beginning.
    pub(super) fn program_with(self, prompt: &str) -> String {
        match self {
            Self::Completion(text) => format!("{prompt}{text}"),
            Self::Program(text) => text.to_owned(),
        }
    }
}

/// LF line ends, nothing after the last character of a line, no blank lines around it.
pub(super) fn normalised(code: &str) -> String {
    let lines: Vec<&str> = code.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalising_forgets_line_ends_and_outer_blank_lines_only() {
        assert_eq!(
            normalised("\r\ndef f(x): \r\n    return x\r\n\r\n"),
            "def f(x):\n    return x"
        );
        assert_ne!(
            normalised("def f(x):\n    return x"),
            normalised("def f(x):\n\treturn x")
        );
        assert_ne!(normalised("a\n\nb"), normalised("a\nb"));
    }
}
