//! The small world (crate `wmtp-world`): generated tasks that a model of a few million parameters learns in
//! minutes. Evaluated are tasks of combinations that training never shows.

use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule,
    bench::{GREEDY, Profiles, Request, Spec},
    benchmark::normalised,
    verdict::{Checked, Names},
};
use wmtp_data::PromptStyle;
use wmtp_world::{Task, World, WorldConfig};

/// The entry in the list of benchmarks.
pub(super) const SPEC: Spec = Spec {
    name: "world",
    about: "The small world: generated tasks of combinations that training never shows",
    prompt: PromptStyle::ZeroShot,
    variants: &["held-out"],
    file: None,
    tests_apart: false,
    timeout_seconds: None,
    profiles: Profiles {
        quick: &[GREEDY],
        paper: &[&["eval.temperature=0.2", "eval.samples=20", "eval.k=[1, 10]"]],
    },
    load: open,
    // Its own training tasks can't hold its held-out ones, and other data can't hold either.
    evaluation: &[],
    evaluation_file: None,
};

fn open(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    request.variant(&SPEC)?;
    if request.source != "builtin:world" {
        return Err(EvalError::Request(format!(
            "world's tasks are generated, so `--data {}` can't be read: leave --data out",
            request.source
        )));
    }
    if request.style != PromptStyle::ZeroShot {
        return Err(EvalError::Request(
            "world has one kind of prompt: take --prompt zero-shot, or leave it out".into(),
        ));
    }
    Ok(Box::new(SmallWorld::new(World::new(&WorldConfig::default()).held_out)))
}

/// Ends a program.
const STOP: [&str; 1] = ["[DONE]"];

/// The benchmark, with every prompt written out.
#[derive(Clone, Debug)]
pub struct SmallWorld {
    tasks: Vec<(Task, String)>,
}

impl SmallWorld {
    /// Of these tasks.
    pub fn new(tasks: Vec<Task>) -> Self {
        let mut tasks: Vec<(Task, String)> = tasks.into_iter().map(|task| (task.clone(), task.prompt())).collect();
        tasks.sort_by_key(|(task, _)| task.id);
        Self { tasks }
    }

    fn entry(&self, id: u32) -> Result<&(Task, String), EvalError> {
        let found = self.tasks.binary_search_by_key(&id, |(task, _)| task.id);
        found.ok().and_then(|index| self.tasks.get(index)).ok_or_else(|| {
            EvalError::Request(format!(
                "world has no held-out task {id}; they are numbered 1 to {}",
                self.tasks.len()
            ))
        })
    }
}

impl Benchmark for SmallWorld {
    fn name(&self) -> &str {
        "world"
    }

    fn variant(&self) -> &str {
        "held-out"
    }

    fn tasks(&self) -> Vec<u32> {
        self.tasks.iter().map(|(task, _)| task.id).collect()
    }

    fn task_id(&self, task: u32) -> String {
        format!("World/{task}")
    }

    fn prompt_style(&self) -> PromptStyle {
        PromptStyle::ZeroShot
    }

    fn prompt(&self, task: u32) -> Result<&str, EvalError> {
        Ok(&self.entry(task)?.1)
    }

    fn stop(&self) -> StopRule<'_> {
        StopRule::Strings(&STOP)
    }

    fn completion(&self, _task: u32, text: &str) -> String {
        text.to_owned()
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        let (task, _) = self.entry(task)?;
        let checks: Vec<&str> = task.tests.iter().map(String::as_str).collect();
        judge.check(&Checked {
            code: answer.text(),
            checks: &checks,
            names: Names {
                entry_point: Some(&task.entry_point),
                ..Names::default()
            },
        })
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        let (task, _) = self.entry(task)?;
        let answer = normalised(answer.text());
        Ok(task.right.iter().any(|program| normalised(&program.code) == answer))
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        Ok(self.entry(task)?.0.tests.iter().map(String::as_str).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_have_numbers_names_and_prompts() {
        let world = open(&Request {
            source: "builtin:world",
            variant: None,
            altered: false,
            style: PromptStyle::ZeroShot,
            tokenizer: None,
            all_tests: false,
        })
        .unwrap();
        assert_eq!(world.tasks().len(), 90);
        assert_eq!(world.task_named("World/7"), Some(7));
        let prompt = world.prompt(1).unwrap();
        assert!(prompt.starts_with("You are an expert Python programmer"), "{prompt}");
        assert!(prompt.ends_with("\n[BEGIN]\n") && prompt.matches("assert ").count() == 2);
        let error = world.prompt(91).unwrap_err().to_string();
        assert!(error.contains("1 to 90"), "{error}");
    }
}
