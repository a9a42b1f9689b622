//! Which of the evaluated problems the model has seen: from the recipes of the runs that made it.

use crate::{
    data::PromptStyle,
    eval::{
        Benchmark,
        bench::mbpp::FEW_SHOT_TASKS,
        training_tasks::{MBPP_TRAINING, TaskSet, TrainingTasks},
    },
    report::outcomes::run_of,
    settings::yaml_to_json,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Longest chain of runs, each started from a checkpoint of the one before.
const GENERATIONS: usize = 16;

/// Flags problems among `tasks`. Only MBPP's numbers (benchmarks `mbpp` and those named after it) can be in
/// training data that settings name; `model` is None where completions are given.
pub(super) fn training_tasks(benchmark: &dyn Benchmark, tasks: &[u32], model: Option<&Path>) -> TrainingTasks {
    if !benchmark.has_mbpp_tasks() {
        return TrainingTasks::default();
    }
    let of = |wanted: &dyn Fn(u32) -> bool| TaskSet::of(tasks.iter().copied().filter(|&task| wanted(task)));
    let recipes = model.map(recipes).unwrap_or_default();
    let trained = |task| {
        recipes
            .iter()
            .any(|data| range(&data["train_tasks"], task) && !lists(&data["exclude_tasks"], task))
    };
    let validated = |task| recipes.first().is_some_and(|data| range(&data["valid_tasks"], task));
    let shots = model.is_some() && benchmark.prompt_style() == PromptStyle::FewShot;
    TrainingTasks {
        trained_on: of(&trained),
        validated_on: of(&validated),
        mbpp_training_split: of(&|task| (MBPP_TRAINING.0..=MBPP_TRAINING.1).contains(&task)),
        in_prompt: of(&|task| shots && FEW_SHOT_TASKS.contains(&task)),
    }
}

/// The section `data` of the recipe of the run whose checkpoint `model` is, then of the run that it
/// started from, and so on.
fn recipes(model: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    let mut next: Option<PathBuf> = Some(model.to_owned());
    while let Some((run, _)) = next
        .filter(|_| all.len() < GENERATIONS)
        .and_then(|model| run_of(&model))
    {
        let recipe = std::fs::read_to_string(run.join(crate::run::file::RECIPE)).unwrap_or_default();
        let recipe = yaml_to_json(&recipe).unwrap_or_default();
        let base = recipe["model"]["base"].as_str().map(PathBuf::from);
        all.push(recipe["data"].clone());
        next = base;
    }
    all
}

fn range(value: &Value, task: u32) -> bool {
    let end = |i: usize| value[i].as_u64();
    matches!((end(0), end(1)), (Some(first), Some(last)) if (first..=last).contains(&u64::from(task)))
}

fn lists(value: &Value, task: u32) -> bool {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(Value::as_u64).any(|other| other == u64::from(task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{HumanEval, Mbpp, MbppVariant};
    use std::fs;

    fn mbpp(style: PromptStyle) -> Mbpp {
        Mbpp::load("builtin:mbpp", MbppVariant::Full, false, style, None).unwrap()
    }

    fn run(home: &Path, name: &str, recipe: &str) -> PathBuf {
        let model = home.join(name).join("checkpoints/best");
        fs::create_dir_all(&model).unwrap();
        fs::write(home.join(name).join("run.json"), "{}").unwrap();
        fs::write(home.join(name).join("recipe.yaml"), recipe).unwrap();
        model
    }

    #[test]
    fn what_a_run_and_its_ancestors_trained_on_is_flagged() {
        let home = tempfile::tempdir().unwrap();
        let first = run(
            home.path(),
            "first",
            "data: {train_tasks: [601, 700], exclude_tasks: [608], valid_tasks: [511, 520]}",
        );
        let recipe = format!("model: {{base: {first:?}}}\ndata: {{train_tasks: [900, 974], valid_tasks: [511, 600]}}");
        let second = run(home.path(), "second", &recipe);
        let tasks: Vec<u32> = vec![11, 550, 607, 608, 609, 800, 950];
        let seen = training_tasks(&mbpp(PromptStyle::ZeroShot), &tasks, Some(&second));
        assert_eq!(seen.trained_on.tasks, "607, 609, 950");
        assert_eq!(seen.validated_on.tasks, "550");
        assert_eq!(seen.mbpp_training_split.tasks, "607-609, 800, 950");
        assert_eq!(seen.in_prompt.count, 0);
    }

    #[test]
    fn without_a_run_the_split_and_the_prompt_are_flagged() {
        let seen = training_tasks(
            &mbpp(PromptStyle::FewShot),
            &[2, 5, 11, 601],
            Some(Path::new("nowhere")),
        );
        assert_eq!(
            (seen.in_prompt.tasks.as_str(), seen.mbpp_training_split.tasks.as_str()),
            ("2", "601")
        );
        assert_eq!(seen.trained_on.count, 0);
        assert!(
            training_tasks(&mbpp(PromptStyle::FewShot), &[2, 11], None).is_empty(),
            "given answers had other prompts"
        );
        let humaneval = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
        assert!(training_tasks(&humaneval, &[3, 150], None).is_empty());
    }
}
