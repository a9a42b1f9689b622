//! `wmtp eval`: a model, or completions made elsewhere, on a benchmark.

mod args;
mod show;
mod source;
mod tracking;
mod training;

use super::{
    Failure, Output,
    common::data_source,
    generate::{speculation, speculation_text},
};
use crate::{
    data::{PromptStyle, Tokenizer},
    eval::{
        self, Benchmark, EvalRequest, Finished, Source,
        bench::{self, Spec},
        parse_task_names,
        sandbox::Sandbox,
    },
    paths::expand_home,
    run::file,
    settings::{Settings, TaskChoice},
};
pub use args::Args;
use args::Which;
use show::Bar;
pub(super) use source::newest_best;
use source::{Answers, Asked, Located};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Evaluates, or estimates: settings, problems with their prompts, answers, verdicts, report.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let Which { benchmark: spec, args } = args.which;
    args.check(&spec)?;
    let (mut settings, resumed) = args.resolve(&spec)?;
    let speculative = args.speculative || resumed.as_deref().is_some_and(source::was_speculative);
    let asked = Asked::new(args.model.as_deref(), args.predictions.as_deref(), resumed.as_deref());
    let runs = expand_home(&settings.config.paths.runs);

    // Given completions were prompted elsewhere.
    let style = settings.recipe.eval.prompt.filter(|_| !asked.is_a_file());
    let style = style.unwrap_or(spec.prompt);
    // What costs little is checked before a download, except that only the model has its chat template.
    let located = match style {
        PromptStyle::Chat => Some(asked.locate(&settings, &runs, output)?),
        PromptStyle::ZeroShot | PromptStyle::FewShot => None,
    };
    let tokenizer = match &located {
        Some(model) => chat_tokenizer(model, &mut settings)?,
        None => None,
    };
    let benchmark = benchmark(&spec, &settings, style, tokenizer.as_ref(), output)?;
    let benchmark = benchmark.as_ref();
    let mut request = request(&settings, benchmark, &runs, resumed)?;
    if !asked.is_a_file() {
        check(&request, benchmark)?;
    }

    let located = match located {
        Some(found) => found,
        None => asked.locate(&settings, &runs, output)?,
    };
    let given = located.predictions(&mut settings, benchmark, &mut request, args.samples)?;
    check(&request, benchmark)?;
    // Without Python nothing can be judged: this is checked before the model is loaded.
    let sandbox = args.sandbox()?;
    let model_dir = located.directory().map(Path::to_owned);
    let mut answers = match given {
        Some(predictions) => Answers::File(predictions),
        None => located.model(&settings, &mut request, style, speculative, output)?,
    };
    request.training = training::training_tasks(benchmark, &request.tasks, model_dir.as_deref());
    request.files = vec![
        (file::CONFIG.into(), settings.config.to_yaml()),
        (file::RECIPE.into(), settings.recipe.to_yaml()),
    ];

    if let Some(estimate) = args.estimate(benchmark, &request, &mut answers, &settings)? {
        if args.dry_run {
            return output.result(&serde_json::to_value(&estimate)?, &show::estimate(&estimate));
        }
        say!("{}", show::estimate(&estimate));
    }
    let finished = evaluate(benchmark, &request, &mut answers, &sandbox)?;
    keep(&finished, model_dir.as_deref(), &settings);
    report(&finished, &answers, &settings, args.save_samples.as_deref(), output)
}

/// The model's tokenizer with the date that its chat template prints, which the settings record.
fn chat_tokenizer(model: &Located, settings: &mut Settings) -> Result<Option<Tokenizer>, Failure> {
    let tokenizer = model.tokenizer()?;
    Ok(tokenizer.map(|tokenizer| {
        settings.recipe.data.record_chat_date(&tokenizer);
        settings.recipe.data.dated(tokenizer)
    }))
}

/// Samples, judges and counts, with a progress bar.
fn evaluate(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    answers: &mut Answers,
    sandbox: &Sandbox,
) -> Result<Finished, Failure> {
    tracing::info!(from = %answers.name(), benchmark = benchmark.name(), "evaluating");
    let mut bar = Bar::new();
    let source = match answers {
        Answers::Model(generator) => Source::Generator(generator.as_mut()),
        Answers::File(predictions) => Source::Given(predictions),
    };
    let finished = eval::run(benchmark, request, source, sandbox, &mut |progress| bar.set(progress));
    bar.finish();
    Ok(finished?)
}

/// Leaves the result with the evaluated run and its trackers. It is complete in the evaluation's own
/// directory, so a failure here is a warning.
fn keep(finished: &Finished, model: Option<&Path>, settings: &Settings) {
    if let (Some(model), Ok(result)) = (model, finished.to_json()) {
        keep_with_run(model, &result);
    }
    if let Err(failure) = tracking::log(finished, settings) {
        say!(
            "warning: this evaluation was not logged to the run's trackers: {}",
            failure.message()
        );
    }
}

/// Leaves the result with the run whose checkpoint was evaluated, and renews that run's report.
fn keep_with_run(model: &Path, result: &serde_json::Value) {
    let kept = crate::report::outcomes::keep(model, result);
    let renewed = kept.and_then(|run| run.map(|run| crate::report::write(&run, None)).transpose());
    if let Err(error) = renewed {
        say!("warning: {error}");
    }
}

fn report(
    finished: &Finished,
    answers: &Answers,
    settings: &Settings,
    save: Option<&Path>,
    output: &Output,
) -> Result<(), Failure> {
    if let Some(file) = save {
        let from = finished.run_dir.join(file::SAMPLES);
        std::fs::copy(&from, file).map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", file.display())))?;
    }
    let mut json = finished.to_json()?;
    if let (Some(object), Answers::Model(_)) = (json.as_object_mut(), answers) {
        let model = finished.report.origin.get("model").cloned().unwrap_or_default();
        object.insert("model".into(), model.into());
        object.insert("precision".into(), settings.recipe.eval.precision.name().into());
    }
    let mut text = show::report(finished, &answers.name());
    if let Answers::Model(generator) = answers
        && generator.decoding.speculative
    {
        let (effort, tokens) = &generator.spent;
        json["speculative"] = speculation(effort, *tokens);
        text += &format!("\n{}", speculation_text(effort, *tokens));
    }
    output.result(&json, &text)
}

/// Whether it can be carried out, every task included.
fn check(request: &EvalRequest, benchmark: &dyn Benchmark) -> Result<(), Failure> {
    request.check()?;
    for &task in &request.tasks {
        benchmark.prompt(task)?;
    }
    Ok(())
}

/// Finds and reads the benchmark's problems, and writes their prompts.
fn benchmark(
    spec: &Spec,
    settings: &Settings,
    style: PromptStyle,
    tokenizer: Option<&Tokenizer>,
    output: &Output,
) -> Result<Box<dyn Benchmark>, Failure> {
    let e = &settings.recipe.eval;
    let builtin = format!("builtin:{}", spec.name);
    let is_file = e.data.as_deref().is_some_and(|data| !data.starts_with("builtin:"));
    if let Some(problem) = spec.file.filter(|_| !is_file) {
        return Err(Failure::usage(problem));
    }
    let source = data_source(e.data.as_deref().unwrap_or(&builtin), &settings.config, output)?;
    Ok((spec.load)(&bench::Request {
        source: &source,
        variant: e.variant.as_deref(),
        altered: e.altered_data,
        style,
        tokenizer,
        all_tests: e.all_tests,
    })?)
}

/// What is drawn and judged, and where the run is kept.
fn request(
    settings: &Settings,
    benchmark: &dyn Benchmark,
    runs: &Path,
    resumed: Option<PathBuf>,
) -> Result<EvalRequest, Failure> {
    let e = &settings.recipe.eval;
    let tasks = match &e.tasks {
        None => benchmark.default_tasks(),
        Some(TaskChoice::Range((first, last))) => (*first..=*last).collect(),
        Some(TaskChoice::Text(text)) => parse_task_names(text, benchmark)
            .map_err(|error| Failure::usage(format!("`eval.tasks` (--tasks): {error}")))?,
    };
    let mut origin: BTreeMap<String, String> = benchmark.origin().into_iter().collect();
    if let (PromptStyle::Chat, Some(date)) = (benchmark.prompt_style(), &settings.recipe.data.chat_date) {
        origin.insert("chat_date".to_owned(), date.clone());
    }
    if e.altered_data {
        origin.insert("altered_data".to_owned(), "true".to_owned());
    }
    if e.all_tests {
        origin.insert("all_tests".to_owned(), "true".to_owned());
    }
    Ok(EvalRequest {
        samples: e.samples,
        k: e.k.clone(),
        temperatures: e.temperature.all(),
        top_p: e.top_p,
        seed: settings.config.seed,
        max_new_tokens: e.max_new_tokens,
        too_long: e.too_long,
        limits: e.limits(),
        resume: resumed.is_some(),
        origin,
        verdict_cache: e.verdicts(&expand_home(&settings.config.paths.cache)),
        ..EvalRequest::new(tasks, resumed.unwrap_or_else(|| new_directory(runs, benchmark.name())))
    })
}

/// `eval-mbpp-` and the time; with a number where there is one of this second.
fn new_directory(runs: &Path, name: &str) -> PathBuf {
    let name = eval::plain_name(name);
    let name = format!("eval-{name}-{}", crate::clock::local().strftime("%Y%m%d-%H%M%S"));
    let plain = runs.join(&name);
    let numbered = (2..1000).map(|number| runs.join(format!("{name}-{number}")));
    std::iter::once(plain.clone())
        .chain(numbered)
        .find(|dir| !dir.exists())
        .unwrap_or(plain)
}
