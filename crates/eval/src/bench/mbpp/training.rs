//! MBPP as training data: its problems with their reference solutions, and its labelled solutions.

use super::{data, pairs};
use crate::bench;
use std::collections::HashSet;
use wmtp_data::{DataConfig, DataError, EvaluationProblem, Splits, Tokenizer, text};

/// MBPP's problems with their reference solutions, and `data.text`: what the token loss trains on. A
/// reference has reward 1 where `mbpp_pairs.jsonl` (if it is there) says that it passed.
///
/// # Errors
/// Unreadable or incomplete files, task ranges that overlap each other or the test split,
/// evaluation problems in the training set, or nothing left to train on.
pub fn problems(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Splits, DataError> {
    if config.source == *DataConfig::NO_PROBLEMS {
        return Splits::text_alone(config, tokenizer, &bench::evaluation_problems()?);
    }
    let source = config.source.to_string();
    let tasks = data::load(&source)?;
    let labelled = pairs::load_if_present(&source)?;
    let passed: HashSet<(u32, &str)> = labelled
        .iter()
        .filter(|s| s.is_correct)
        .map(|s| (s.task_id, s.code.as_str()))
        .collect();
    Splits::build(
        config,
        tokenizer,
        &evaluation(&tasks)?,
        &text::load(&config.text)?,
        |wanted| {
            let mut examples = data::examples(&tasks, wanted, config.prompt, tokenizer)?;
            for example in &mut examples {
                let known = passed.contains(&(example.problem, example.code.as_str()));
                example.reward = known.then_some(1.0);
            }
            Ok(examples)
        },
    )
}

/// Labelled solutions, correct and incorrect: what the critic's value head learns from ([`pairs::load_labelled`]).
///
/// # Errors
/// As [`problems`].
pub fn solutions(config: &DataConfig, tokenizer: &Tokenizer) -> Result<Splits, DataError> {
    if config.source == *DataConfig::NO_PROBLEMS {
        return Err(DataError::Setting {
            key: "data.source",
            problem:
                "is `none`, and the critic learns from labelled solutions; take builtin:mbpp, or train another pipeline"
                    .into(),
        });
    }
    let source = config.source.to_string();
    let tasks = data::load(&source)?;
    let labelled = pairs::load_labelled(&source)?;
    Splits::build(config, tokenizer, &evaluation(&tasks)?, &[], |wanted| {
        pairs::examples(&labelled, &tasks, wanted, config.prompt, tokenizer)
    })
}

/// Every benchmark's evaluation problems, and the test tasks of the data's own `problems`.
fn evaluation(problems: &[data::Problem]) -> Result<Vec<EvaluationProblem>, DataError> {
    let mut all = data::test_problems("mbpp", problems);
    all.extend(bench::evaluation_problems()?);
    Ok(all)
}
