//! The program in an answer of a row.

use crate::{
    EvalError, Judge, Judgement, StopRule, Verdict,
    bench::{contest::check_output, own::begins},
    extract,
    verdict::{Checked, Names},
};
use std::borrow::Cow;
use wmtp_data::{Body, Sample, Tests, chat};

/// Ends a program, as in MBPP's prompts.
const DONE: [&str; 1] = ["[DONE]"];

/// A program, and the tests that it is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate<'a> {
    /// The program.
    pub program: Cow<'a, str>,
    /// The prompt, where it begins the program.
    pub(super) given: &'a str,
    /// The tests.
    pub tests: &'a Tests,
}

impl<'a> Candidate<'a> {
    /// The program that a sample has:
    ///
    /// * of a conversation, the one in the assistant's last turn;
    /// * of a completion whose prompt begins the function `entry_point`, prompt and completion;
    /// * else the answer up to `[DONE]`, or, where it is no Python and has a code block, the program in it.
    pub fn new(sample: &'a Sample, tests: &'a Tests) -> Self {
        let entry_point = match tests {
            Tests::Asserts { entry_point, .. } => entry_point.as_deref(),
            Tests::InputOutput(_) => None,
        };
        let mut given = "";
        let program = match &sample.body {
            Body::Completion { prompt, completion } => match entry_point.filter(|name| begins(prompt, name)) {
                Some(_) => {
                    given = prompt;
                    Cow::Owned(format!("{prompt}{completion}"))
                }
                None => in_text(completion, entry_point),
            },
            Body::Text(text) => in_text(text, entry_point),
            Body::Instruction(instruction) => in_text(&instruction.output, entry_point),
            Body::Chat { messages, .. } => {
                let is_answer = |message: &&chat::Message| {
                    message.get("role").and_then(serde_json::Value::as_str) == Some("assistant")
                };
                let answer = messages.iter().rev().find(is_answer).map(chat::content);
                Cow::Owned(extract::program(&answer.unwrap_or_default(), entry_point.as_slice()))
            }
        };
        Self { program, given, tests }
    }

    /// The verdict on it.
    ///
    /// # Errors
    /// Only when the sandbox fails.
    pub fn judge(&self, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        if self.program.trim().is_empty() {
            return Ok(Judgement::of(Verdict::Syntax, None));
        }
        match self.tests {
            Tests::Asserts {
                setup,
                asserts,
                entry_point,
            } => {
                let setup = Some(setup.as_str()).filter(|setup| !setup.is_empty());
                let checks: Vec<&str> = setup.into_iter().chain(asserts.iter().map(String::as_str)).collect();
                judge.check(&Checked {
                    code: &self.program,
                    checks: &checks,
                    names: Names {
                        entry_point: entry_point.as_deref(),
                        given: self.given,
                        ..Names::default()
                    },
                })
            }
            Tests::InputOutput(pairs) => {
                let tests = (1..)
                    .zip(pairs)
                    .map(|(number, (input, output))| (format!("test {number}"), input.as_str(), output.as_str()));
                check_output(tests, &self.program, false, judge)
            }
        }
    }
}

/// The program in a text that is meant to be one.
fn in_text<'a>(text: &'a str, wanted: Option<&str>) -> Cow<'a, str> {
    let text = StopRule::Strings(&DONE).cut(text);
    match extract::is_wrapped(text) {
        true => Cow::Owned(extract::program(text, wanted.as_slice())),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmtp_data::Instruction;

    fn asserts(entry_point: Option<&str>) -> Tests {
        Tests::Asserts {
            setup: String::new(),
            asserts: vec!["assert f(1) == 2".into()],
            entry_point: entry_point.map(str::to_owned),
        }
    }

    fn completion(prompt: &str, completion: &str) -> Sample {
        Sample::new(Body::Completion {
            prompt: prompt.into(),
            completion: completion.into(),
        })
    }

    fn program(sample: &Sample, tests: &Tests) -> String {
        Candidate::new(sample, tests).program.into_owned()
    }

    const F: &str = "def f(x):\n    return x + 1";

    #[test]
    fn a_completion_is_the_program_up_to_done() {
        let tests = asserts(Some("f"));
        assert_eq!(
            program(&completion("Write f.", &format!("{F}\n[DONE]\nx")), &tests),
            format!("{F}\n")
        );
        assert_eq!(program(&completion("Write f.", F), &tests), F);
    }

    #[test]
    fn a_prompt_that_begins_the_function_is_the_beginning_of_the_program() {
        let prompt = "def g(x):\n    return x\n\ndef f(x):\n";
        let sample = completion(prompt, "    return x + 1\n");
        assert_eq!(
            program(&sample, &asserts(Some("f"))),
            format!("{prompt}    return x + 1\n")
        );
        // Without the function's name nothing says so.
        assert_eq!(program(&sample, &asserts(None)), "    return x + 1\n");
    }

    #[test]
    fn a_code_block_is_taken_out_of_the_words_around_it() {
        let text = format!("Here you are:\n\n```python\n{F}\n```\n\nIt adds one.");
        assert_eq!(program(&completion("Write f.", &text), &asserts(None)).trim_end(), F);
        // A docstring with a fence is Python as it stands.
        let docstring = "def f(x):\n    \"\"\"\n    ```\n    f(1)\n    ```\n    \"\"\"\n    return x + 1";
        assert_eq!(program(&completion("Write f.", docstring), &asserts(None)), docstring);
        // Words without a block are no program: the model would learn them.
        let words = format!("{F}\n\nIt adds one.");
        assert_eq!(program(&completion("Write f.", &words), &asserts(None)), words);
    }

    #[test]
    fn instructions_and_conversations_have_their_program_in_the_answer() {
        let instruction = Sample::new(Body::Instruction(Instruction {
            instruction: "Write f.".into(),
            output: F.into(),
            ..Instruction::default()
        }));
        assert_eq!(program(&instruction, &asserts(None)), F);
        let chat = Sample::new(Body::Chat {
            messages: vec![
                chat::message("user", "Write f."),
                chat::message("assistant", &format!("Sure.\n```\n{F}\n```")),
            ],
            tools: None,
            trained_from: 1,
        });
        assert_eq!(program(&chat, &asserts(Some("f"))).trim_end(), F);
    }
}
