//! `wmtp sweep`: variants of a recipe, trained, evaluated and compared.

use super::{Failure, Lines, Output, SettingsArgs, common::stop_on_signals};
use crate::sweep::{
    self, ArmPlan, Limits, Overlay, Parallel, ParallelWord, Ran, Status, Sweep, SweepError, Table, TrackedSweep,
    job_lines, write_table,
};
use serde_json::json;
use std::{fmt::Write, path::PathBuf};

/// `wmtp sweep SWEEP.yaml`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sweep file.
    #[arg(value_name = "SWEEP.yaml")]
    file: PathBuf,
    /// For all arms: files over the sweep's own, settings over its `set`.
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where the sweep's directory is made (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
    /// Number of arms run in parallel, instead of the file's `parallel`.
    #[arg(long, value_name = "auto|N", value_parser = parallel)]
    parallel: Option<Parallel>,
    /// Run one arm and make no table: for one job of a job array.
    #[arg(long, value_name = "ARM", conflicts_with_all = ["emit", "collect"])]
    arm: Option<String>,
    /// Print a command line for every arm, and run nothing.
    #[arg(long, value_enum, value_name = "jobs")]
    emit: Option<Emit>,
    /// Make the table from arms that ran elsewhere: directories of sweeps, their parents, or run
    /// directories.
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["emit", "dry_run"])]
    collect: Vec<PathBuf>,
    /// Show the arms and their estimated cost, and run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Throughput in tokens per second for time estimates, instead of that of finished arms.
    #[arg(long, value_name = "TOKENS", requires = "dry_run")]
    speed: Option<f64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Emit {
    /// One line an arm, for a shell or a cluster's array of jobs.
    Jobs,
}

fn parallel(text: &str) -> Result<Parallel, String> {
    match text.parse() {
        Ok(0) | Err(_) if text != "auto" => Err("write auto, or a number of 1 or more".into()),
        Ok(n) => Ok(Parallel::Count(n)),
        Err(_) => Ok(Parallel::Word(ParallelWord::Auto)),
    }
}

/// Runs, shows, emits or collects.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    if args.speed.is_some_and(|speed| !(speed > 0.0 && speed.is_finite())) {
        return Err(Failure::usage("--speed must be above 0"));
    }
    let (files, sets) = args.settings.parts();
    let overlay = Overlay {
        files,
        sets,
        output: args.output.clone(),
    };
    let mut sweep = Sweep::read(&args.file, &overlay)?;
    if let Some(parallel) = args.parallel {
        sweep.config.parallel = parallel;
    }
    if args.emit.is_some() {
        return emit(&sweep, &args, &overlay, output);
    }
    if args.dry_run {
        return dry_run(&sweep, args.speed, output);
    }
    if !args.collect.is_empty() {
        return collect(&sweep, &args.collect, output);
    }
    let arms = match &args.arm {
        None => (0..sweep.arms.len()).collect(),
        Some(name) => vec![sweep.named(name).ok_or_else(|| no_such_arm(&sweep, name))?],
    };
    let tracked = TrackedSweep::begin(&sweep, &Lines)?;
    let ran = work(&sweep, &arms)?;
    if args.arm.is_some() {
        tracked.leave();
        return one_arm(&sweep, &arms, &ran, output);
    }
    let table = Table::of_run(&sweep, &ran)?;
    write(&sweep, &table)?;
    tracked.end(&table);
    finish(&sweep, &table, output)
}

fn no_such_arm(sweep: &Sweep, name: &str) -> Failure {
    Failure::usage(format!(
        "--arm {name}: {} has no such arm with these settings; `wmtp sweep FILE --dry-run` lists them (an arm's name changes when a setting does)",
        sweep.path.display()
    ))
}

/// Runs the arms that are not finished.
fn work(sweep: &Sweep, arms: &[usize]) -> Result<Ran, Failure> {
    let stop = stop_on_signals()?;
    std::fs::create_dir_all(&sweep.dir)
        .map_err(|e| Failure::failed(format!("making `{}` failed: {e}", sweep.dir.display())))?;
    let open: Vec<usize> = arms.iter().copied().filter(|&arm| is_open(sweep, arm)).collect();
    say!(
        "sweep {}: {} arms, {} of them finished before; directory {}",
        sweep.name,
        arms.len(),
        arms.len() - open.len(),
        sweep.dir.display()
    );
    if open.is_empty() {
        return Ok(Ran::default());
    }
    let limits = limits(sweep, &open)?;
    let threads = limits
        .threads
        .map_or_else(String::new, |n| format!(", {n} threads each"));
    say!("{} at once{threads}", limits.at_once);
    Ok(sweep::run(sweep, &open, limits, &stop, &Lines)?)
}

/// Plans are made only where memory decides.
fn limits(sweep: &Sweep, open: &[usize]) -> Result<Limits, SweepError> {
    let plans = match sweep.config.parallel {
        Parallel::Count(_) => vec![Ok(ArmPlan::on_processor()); open.len()],
        Parallel::Word(_) if open.len() == 1 => vec![Ok(ArmPlan::on_processor())],
        Parallel::Word(_) => sweep::plans(sweep, open)?,
    };
    Ok(sweep::limits(sweep, &plans))
}

fn is_open(sweep: &Sweep, arm: usize) -> bool {
    let arm = sweep.arms.get(arm);
    !arm.is_some_and(|arm| sweep::state(sweep, arm).is_ok_and(|state| state.is_finished()))
}

fn one_arm(sweep: &Sweep, arms: &[usize], ran: &Ran, output: &Output) -> Result<(), Failure> {
    let Some(arm) = arms.first().and_then(|&n| sweep.arms.get(n)) else {
        return Ok(());
    };
    let finished = arms.iter().all(|&n| !is_open(sweep, n));
    let dir = sweep.run_dir(arm);
    output.result(
        &json!({"sweep": sweep.name, "arm": arm.name, "finished": finished, "run_dir": dir}),
        &format!("{}: {}", arm.name, if finished { "finished" } else { "not finished" }),
    )?;
    if finished {
        return Ok(());
    }
    let reason = arms.iter().find_map(|&n| ran.failure(n));
    Err(Failure::Found(reason.unwrap_or("asked to stop").to_owned()))
}

fn collect(sweep: &Sweep, roots: &[PathBuf], output: &Output) -> Result<(), Failure> {
    if let Some(root) = roots.iter().find(|root| !root.is_dir()) {
        return Err(Failure::usage(format!(
            "--collect: there is no directory `{}`",
            root.display()
        )));
    }
    let table = Table::collect(sweep, roots);
    if table.count(Status::Missing) == table.arms.len() {
        return Err(Failure::usage(format!(
            "--collect: no arm of {} with these settings is there; give the flags that the jobs had",
            sweep.path.display()
        )));
    }
    write(sweep, &table)?;
    finish(sweep, &table, output)
}

/// Prints the table and tells what is missing.
fn finish(sweep: &Sweep, table: &Table, output: &Output) -> Result<(), Failure> {
    let mut json = serde_json::to_value(table)?;
    json["dir"] = json!(sweep.dir);
    output.result(&json, &summary(sweep, table))?;
    let [failed, unfinished, missing] = [Status::Failed, Status::Unfinished, Status::Missing].map(|s| table.count(s));
    if failed + unfinished + missing == 0 {
        return Ok(());
    }
    Err(Failure::Found(format!(
        "of {} arms {failed} failed, {unfinished} are unfinished and {missing} are missing: {} says why; the same command resumes them",
        table.arms.len(),
        sweep.dir.join("sweep.md").display()
    )))
}

/// The table's files, and the sweep file as it was.
fn write(sweep: &Sweep, table: &Table) -> Result<(), Failure> {
    write_table(table, &sweep.dir)?;
    let text = super::common::read_text(&sweep.path.to_string_lossy())?;
    let path = sweep.dir.join("sweep.yaml");
    crate::fs::write(&path, text.as_bytes())
        .map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", path.display())))
}

fn summary(sweep: &Sweep, table: &Table) -> String {
    let mut text = sweep::summary(table);
    let _ = write!(text, "table and plots: {}", sweep.dir.join("sweep.html").display());
    text
}

fn emit(sweep: &Sweep, args: &Args, overlay: &Overlay, output: &Output) -> Result<(), Failure> {
    let mut reading = vec![args.file.to_string_lossy().into_owned()];
    for (is_config, file) in &overlay.files {
        let flag = if *is_config { "--config" } else { "--recipe" };
        reading.extend([flag.to_owned(), file.to_string_lossy().into_owned()]);
    }
    reading.extend(overlay.sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    if let Some(dir) = &args.output {
        reading.extend(["--output".to_owned(), dir.to_string_lossy().into_owned()]);
    }
    // As it was typed: what works here works in a job that starts in the same directory.
    let program = std::env::args().next().unwrap_or_else(|| "wmtp".into());
    let lines = job_lines(sweep, &program, &reading);
    output.result(&json!({"sweep": sweep.name, "jobs": lines}), &lines.join("\n"))
}

fn dry_run(sweep: &Sweep, speed: Option<f64>, output: &Output) -> Result<(), Failure> {
    let all: Vec<usize> = (0..sweep.arms.len()).collect();
    let plans = sweep::plans(sweep, &all)?;
    let open: Vec<_> = all.iter().copied().filter(|&arm| is_open(sweep, arm)).collect();
    let left: Vec<_> = open.iter().filter_map(|&n| plans.get(n).cloned()).collect();
    let limits = sweep::limits(sweep, &left);
    let table = Table::of_run(sweep, &Ran::default())?;
    let measured = table
        .settings
        .iter()
        .filter_map(|row| row.cost.tokens_per_second)
        .map(|e| e.mean);
    let measured: Vec<f64> = measured.collect();
    let speed = speed.or_else(|| (!measured.is_empty()).then(|| measured.iter().sum::<f64>() / measured.len() as f64));
    let tokens: f64 = left
        .iter()
        .filter_map(|plan| plan.as_ref().ok())
        .map(|plan| plan.tokens)
        .sum();
    let seconds = speed.map(|speed| tokens / speed / limits.at_once as f64);
    let arms: Vec<_> = sweep
        .arms
        .iter()
        .zip(&table.arms)
        .zip(&plans)
        .map(|((arm, row), plan)| {
            let (plan, problem) = match plan {
                Ok(plan) => (Some(plan), None),
                Err(problem) => (None, Some(problem)),
            };
            json!({"name": arm.name, "settings": sweep.label(arm), "status": row.status.name(), "plan": plan, "problem": problem})
        })
        .collect();
    let document = json!({
        "sweep": sweep.name, "dir": sweep.dir, "arms": arms, "open": open.len(), "at_once": limits.at_once,
        "tokens": tokens, "tokens_per_second": speed, "training_seconds": seconds,
    });
    let mut text = format!(
        "sweep {}: {} arms, {} to run, {} at once\n",
        sweep.name,
        arms.len(),
        open.len(),
        limits.at_once
    );
    for (arm, plan) in arms.iter().zip(&plans) {
        let cost = match plan {
            Ok(plan) => format!("{} steps, about {:.2} GiB", plan.steps, crate::text::gib(plan.memory)),
            Err(problem) => format!("can't be planned: {problem}"),
        };
        let word = |key: &str| arm[key].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(text, "{:<40} {:<10} {cost}", word("name"), word("status"));
    }
    let time = match (seconds, speed) {
        (Some(seconds), Some(speed)) => format!(
            "about {} of training at {speed:.0} tokens/s an arm",
            crate::text::duration(seconds)
        ),
        _ => "their time is known once an arm has run, or with --speed".into(),
    };
    let _ = write!(text, "{tokens:.0} tokens to train on; {time}; evaluations come on top");
    output.result(&document, &text)
}
