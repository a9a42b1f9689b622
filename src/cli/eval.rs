//! `wmtp eval`: a model on a benchmark.

use super::{
    Failure, Model, ModelSource, Output, SettingsArgs,
    common::{data_source, generation_dtype, open_device, open_model, parse_range, resolve_model},
};
use crate::{
    data::load,
    eval::{
        self, EvalReport, EvalRequest, Mbpp, Progress,
        sandbox::{Limits, ProcessRunner},
    },
    pipeline::ModelGenerator,
    settings::{Settings, expand_home},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use wmtp_model::Sampling;

/// `wmtp eval <mbpp>`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, clap::Subcommand)]
enum Benchmark {
    /// MBPP: short Python functions, judged by their asserts.
    Mbpp(MbppArgs),
}

#[derive(Debug, clap::Args)]
struct MbppArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME; the newest run's best checkpoint if absent.
    #[arg(long, value_name = "URI")]
    model: Option<String>,
    /// Task ids, inclusive (eval.tasks); the test split is 11-510.
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_range)]
    tasks: Option<(u32, u32)>,
    /// Completions for each problem (eval.samples).
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// The k of pass@k, separated by commas (eval.k).
    #[arg(long, value_name = "1,10", value_delimiter = ',')]
    k: Option<Vec<usize>>,
    /// Sampling temperature, 0 is greedy (eval.temperature).
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Nucleus (eval.top_p).
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Tokens after which a completion is cut (eval.max_new_tokens).
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// How a problem becomes a prompt: few-shot, zero-shot or chat (eval.prompt).
    #[arg(long, value_name = "STYLE")]
    prompt: Option<String>,
    /// Every random draw follows from it (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the samples here, too.
    #[arg(long, value_name = "FILE")]
    save_samples: Option<PathBuf>,
    /// Where run directories are made (paths.runs).
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Evaluates.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let Benchmark::Mbpp(args) = args.benchmark;
    let settings = args
        .settings
        .sources(None)
        .flag("--tasks", "eval.tasks", args.tasks)
        .flag("--samples", "eval.samples", args.samples)
        .flag("--k", "eval.k", args.k)
        .flag("--temperature", "eval.temperature", args.temperature)
        .flag("--top-p", "eval.top_p", args.top_p)
        .flag("--max-new-tokens", "eval.max_new_tokens", args.max_new_tokens)
        .flag_text("--prompt", "eval.prompt", args.prompt.as_deref())
        .flag("--seed", "seed", args.seed)
        .flag("--output", "paths.runs", args.output)
        .load()?;
    let runs = expand_home(&settings.config.paths.runs);
    let (device_name, device) = open_device(&settings)?;
    let dtype = generation_dtype(&settings, &device_name)?;
    let model = match args.model {
        Some(uri) => resolve_model(&uri, &settings.config, output)?,
        None => newest_best(&runs)?,
    };
    if let Some(file) = &args.save_samples {
        let parent = file
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if !parent.is_dir() {
            return Err(Failure::usage(format!(
                "--save-samples: there is no directory `{}`",
                parent.display()
            )));
        }
    }
    // Without Python nothing can be judged: better known before the model is loaded.
    let runner = ProcessRunner::new()?;
    let problems = load(&data_source(&settings.recipe.data.source, &settings.config, output)?)?;
    let (loaded, tokenizer) = open_model(&model, Some(1), dtype, &settings, &device, output)?;
    let e = &settings.recipe.eval;
    let benchmark = Mbpp::new(problems, e.prompt, &tokenizer)?;
    let request = request(&settings, &runs);
    request.check()?;
    let sampling = Sampling {
        temperature: e.temperature,
        top_p: e.top_p,
        max_new_tokens: e.max_new_tokens,
    };
    let mut generator = ModelGenerator::new(loaded, tokenizer, sampling);
    generator.decoding.rows = e.batch;
    tracing::info!(model = %model.uri, device = %device_name, "evaluating");
    let started = Instant::now();
    let report = eval::run(&benchmark, &request, &mut generator, &runner, &mut |p| show(p, started))?;
    if let Some(file) = &args.save_samples {
        let from = report.run_dir.join("samples.jsonl");
        std::fs::copy(&from, file).map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", file.display())))?;
    }
    let mut json = report.to_json()?;
    if let Some(object) = json.as_object_mut() {
        object.insert("model".into(), model.uri.clone().into());
        object.insert("precision".into(), e.precision.name().into());
    }
    output.result(&json, &report_text(&model, &report))
}

fn request(settings: &Settings, runs: &Path) -> EvalRequest {
    let e = &settings.recipe.eval;
    let name = format!("eval-mbpp-{}", jiff::Zoned::now().strftime("%Y%m%d-%H%M%S"));
    EvalRequest {
        samples: e.samples,
        k: e.k.clone(),
        temperature: e.temperature,
        top_p: e.top_p,
        seed: settings.config.seed,
        batch_size: e.batch,
        max_new_tokens: e.max_new_tokens,
        limits: Limits {
            wall: Duration::from_secs(e.timeout_seconds),
            ..Limits::default()
        },
        ..EvalRequest::new((e.tasks.0..=e.tasks.1).collect(), runs.join(name))
    }
}

fn show(progress: &Progress, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    let left = seconds / progress.done.max(1) as f64 * (progress.total - progress.done) as f64;
    eprintln!(
        "{:>5}/{} samples  {} passed  {:.0} tok/s  about {left:.0} s left",
        progress.done,
        progress.total,
        progress.passed,
        progress.tokens as f64 / seconds.max(1e-9)
    );
}

fn report_text(model: &Model, report: &EvalReport) -> String {
    let mut text = format!(
        "{} on {} problems of {}, {} sample(s) each, temperature {}\n",
        model.uri, report.tasks, report.benchmark, report.samples, report.temperature
    );
    for (k, share) in &report.pass_at_k {
        let interval = if *k == 1 {
            format!("  (95% interval {:.3} to {:.3})", report.ci95[0], report.ci95[1])
        } else {
            String::new()
        };
        text += &format!("pass@{k}  {share:.4}{interval}\n");
    }
    text += &format!("exact   {:.4}\n", report.exact);
    let results: Vec<String> = report
        .results
        .0
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    text += &format!("results {}\n", results.join(", "));
    let speed = report.tokens as f64 / report.seconds.max(1e-9);
    text += &format!(
        "{} tokens in {:.1} s ({speed:.0} tok/s); sandbox level `{}`, Python {}\nsamples and report: {}",
        report.tokens,
        report.seconds,
        report.sandbox,
        report.python,
        report.run_dir.display()
    );
    text
}

/// The best checkpoint of the run that was started last.
fn newest_best(runs: &Path) -> Result<Model, Failure> {
    let started = |run: &Path| std::fs::metadata(run.join("run.json")).and_then(|m| m.modified()).ok();
    std::fs::read_dir(runs)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|run| run.join("checkpoints/best/config.json").is_file())
        // Equal times: the later name.
        .max_by_key(|run| (started(run), run.clone()))
        .map(|run| run.join("checkpoints/best"))
        .map(|best| Model {
            uri: best.display().to_string(),
            source: ModelSource::Directory(best),
        })
        .ok_or_else(|| {
            Failure::usage(format!(
                "no --model was given and {} holds no run with a best checkpoint: train first, or give --model",
                runs.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    #[test]
    fn the_newest_run_with_a_best_checkpoint_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newest_best(dir.path()).unwrap_err().message().contains("--model"));
        for (name, age, has_best) in [("c-old", 300, true), ("a-new", 100, true), ("b-newest", 0, false)] {
            let run = dir.path().join(name);
            fs::create_dir_all(run.join("checkpoints/best")).unwrap();
            let json = fs::File::create(run.join("run.json")).unwrap();
            json.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            if has_best {
                fs::write(run.join("checkpoints/best/config.json"), "{}").unwrap();
            }
        }
        let best = dir.path().join("a-new/checkpoints/best");
        assert_eq!(newest_best(dir.path()).unwrap().source, ModelSource::Directory(best));
    }
}
