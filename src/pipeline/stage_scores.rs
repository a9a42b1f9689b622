//! Pass@1 of the model before training and after each stage, on the benchmark that `eval.after_stages` names.
//!
//! Greedy, one completion a problem, on the benchmark's default problems. The results are in the run's
//! directory: `stages.json`, and like those of `wmtp eval` in `evaluations`, the samples in `stages/NAME`.

use super::{ModelDir, ModelGenerator, PipelineError, request::Request};
use crate::{
    eval::{
        self, Benchmark, EvalRequest, Source, bench,
        sandbox::{Options, Sandbox},
    },
    report::outcomes,
    run::{Event, RunDir, file},
};
use serde::{Deserialize, Serialize};
use std::fs;
use wmtp_model::{LoadOptions, Sampling};

/// The stages after which the model is measured, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasuredStage {
    /// Before the first step.
    Start,
    /// After the unweighted stage (`train.pretrain`).
    Pretraining,
    /// After the weighted stage: the checkpoint that the run ends with.
    Weighted,
}

impl MeasuredStage {
    /// In file names and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pretraining => "pretraining",
            Self::Weighted => "weighted",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Start => "before training",
            Self::Pretraining => "after pretraining",
            Self::Weighted => "after weighted training",
        }
    }
}

/// Pass@1 at one point of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageScore {
    /// When.
    pub stage: MeasuredStage,
    /// Optimizer steps of that stage.
    pub step: usize,
    /// The benchmark and its set: `world (held-out)`.
    pub benchmark: String,
    /// Problems.
    pub tasks: usize,
    /// Pass@1, greedy.
    pub pass_at_1: f64,
    /// Its 95% interval over problems.
    pub ci95: [f64; 2],
}

impl StageScore {
    /// `0.511 (0.411 to 0.611) after pretraining`.
    pub fn text(&self) -> String {
        let [low, high] = self.ci95;
        format!("{:.3} ({low:.3} to {high:.3}) {}", self.pass_at_1, self.stage.words())
    }

    /// All scores of a run, in the order of the stages; none where nothing was measured.
    pub fn of(run: &RunDir) -> Vec<Self> {
        let text = fs::read_to_string(run.file(file::STAGE_SCORES)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// Measures a model after a stage; nothing where no benchmark is named. The run has trained: what keeps it from
/// being measured (no Python, no sandbox, a prompt longer than the model takes) is a warning and an event.
pub(super) fn measure(request: &Request, run: &RunDir, stage: MeasuredStage, step: usize, model: &ModelDir) {
    let Some(name) = &request.recipe.eval.after_stages else {
        return;
    };
    let mut scores = StageScore::of(run);
    if scores.iter().any(|score| (score.stage, score.step) == (stage, step)) {
        return;
    }
    let written = score(request, run, name, stage, step, model).and_then(|score| {
        let text = format!("{}: pass@1 {}", score.benchmark, score.text());
        scores.retain(|other| other.stage != stage);
        scores.push(score);
        scores.sort_by_key(|score| score.stage as u8);
        run.write_json(file::STAGE_SCORES, &scores)?;
        run.event(&Event {
            step,
            event: "pass-at-1",
            reason: text.clone(),
        })?;
        request.progress.message(&text);
        Ok(())
    });
    if let Err(error) = written {
        let problem = format!("pass@1 on {name} was not measured {}: {error}", stage.words());
        request.progress.warning(&problem);
        // The run's own files are checked where they are needed.
        let _ = run.event(&Event {
            step,
            event: "not-measured",
            reason: problem,
        });
    }
}

fn score(
    request: &Request,
    run: &RunDir,
    name: &str,
    stage: MeasuredStage,
    step: usize,
    model: &ModelDir,
) -> Result<StageScore, PipelineError> {
    let settings = &request.recipe.eval;
    let benchmark = open(name, request)?;
    let sandbox = Sandbox::with(&Options::default()).map_err(eval::EvalError::from)?;
    let dir = run.file(file::STAGES).join(stage.name());
    // A measurement that was interrupted, or of a run that has gone on since, is made again.
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(PipelineError::io("removing", &dir)(error));
        }
        _ => {}
    }
    let mut asked = EvalRequest {
        temperatures: vec![0.0],
        seed: request.seed(),
        max_new_tokens: settings.max_new_tokens,
        too_long: settings.too_long,
        limits: settings.limits(),
        origin: benchmark.origin().into_iter().collect(),
        verdict_cache: settings.verdicts(&request.cache()),
        ..EvalRequest::new(benchmark.default_tasks(), dir)
    };
    asked.origin.insert("model".into(), model.dir.display().to_string());
    asked.check()?;
    let options = LoadOptions {
        n_heads: Some(1),
        ..LoadOptions::default()
    };
    let loaded = model.load(&options, &request.device)?;
    let tokenizer = crate::data::Tokenizer::load(model.tokenizer())?
        .with_choice(request.recipe.data.choice())?
        .for_model(wmtp_model::CausalLm::config(&loaded).vocab_size)?;
    let sampling = Sampling {
        temperature: 0.0,
        top_p: asked.top_p,
        max_new_tokens: asked.max_new_tokens,
    };
    let mut generator = ModelGenerator::new(loaded, tokenizer, sampling);
    generator.decoding.rows = settings.batch;
    let finished = eval::run(
        benchmark.as_ref(),
        &asked,
        Source::Generator(&mut generator),
        &sandbox,
        &mut |_| {},
    )?;
    let json = finished.to_json()?;
    let intermediate = stage != MeasuredStage::Weighted;
    outcomes::keep_in(run.path(), stage.words(), Some(step), intermediate, &json)
        .map_err(|error| PipelineError::Setting(error.to_string()))?;
    Ok(StageScore {
        stage,
        step,
        benchmark: match finished.report.variant.as_str() {
            "full" => finished.report.benchmark.clone(),
            variant => format!("{} ({variant})", finished.report.benchmark),
        },
        tasks: finished.report.tasks,
        pass_at_1: finished.report.pass_at_1,
        ci95: finished.report.ci95,
    })
}

/// The benchmark with its usual prompts, from the problems that are built in.
fn open(name: &str, request: &Request) -> Result<Box<dyn Benchmark>, PipelineError> {
    let spec = bench::ALL.iter().find(|spec| spec.name == name && spec.file.is_none());
    let spec =
        spec.ok_or_else(|| PipelineError::Setting(format!("`eval.after_stages` is `{name}`, which is no benchmark")))?;
    let source = format!("builtin:{name}");
    Ok((spec.load)(&bench::Request {
        source: &source,
        variant: request.recipe.eval.variant.as_deref(),
        altered: false,
        style: spec.prompt,
        tokenizer: None,
        all_tests: false,
    })?)
}
