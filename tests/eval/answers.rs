//! A generator whose answers are known, and what the tests of runs share.

use super::runner;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use wmtp::{
    data::PromptStyle,
    eval::bench::mbpp,
    eval::{
        Benchmark, Completion, Done, EvalError, EvalRequest, Finished, GenerationRequest, Generator, Mbpp, MbppVariant,
        Source, StopRule, run,
    },
};

pub fn benchmark() -> Mbpp {
    Mbpp::load("builtin:mbpp", MbppVariant::Full, false, PromptStyle::FewShot, None).unwrap()
}

/// Answers from the prompt alone: the reference, or by the seed's parity something wrong. The last
/// request is answered first.
pub struct Answers {
    by_prompt: BTreeMap<String, String>,
    wrong_at_odd_seeds: bool,
    /// Fails when asked for more than so many.
    pub most: usize,
    pub answered: usize,
}

impl Answers {
    pub fn new(benchmark: &Mbpp, wrong_at_odd_seeds: bool) -> Self {
        let by_prompt = mbpp::load("builtin:mbpp")
            .unwrap()
            .into_iter()
            .map(|problem| (benchmark.prompt(problem.task_id).unwrap().to_owned(), problem.code))
            .collect();
        Self {
            by_prompt,
            wrong_at_odd_seeds,
            most: usize::MAX,
            answered: 0,
        }
    }
}

impl Generator for Answers {
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        stop: &StopRule<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError> {
        assert_eq!(*stop, StopRule::Strings(&["[DONE]"]));
        for (index, request) in requests.iter().enumerate().rev() {
            if self.answered == self.most {
                return Err(EvalError::Generate("the power went".into()));
            }
            self.answered += 1;
            let wrong = self.wrong_at_odd_seeds && (request.seed + (request.temperature * 10.0) as u64) % 2 == 1;
            let completion = match wrong {
                true => Completion {
                    text: "def nothing(): pass".into(),
                    tokens: 4,
                },
                false => Completion {
                    text: format!("{}\n[DONE]\n\nYou are", self.by_prompt[&request.prompt]),
                    tokens: 10,
                },
            };
            done(index, completion)?;
        }
        Ok(())
    }
}

pub fn go(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    generator: &mut dyn Generator,
) -> Result<Finished, EvalError> {
    run(benchmark, request, Source::Generator(generator), runner(), &mut |_| ())
}

pub fn samples(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
