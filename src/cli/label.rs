//! `wmtp label`: labels of candidates, found by running their row's tests.

use super::{
    Failure, Output, SettingsArgs,
    bar::CountBar,
    common::{open_rows, rows_output, sandbox, stop_on_signals},
};
use crate::{
    eval::{
        Judge, VerdictCache,
        label::{Pool, label_file},
        sandbox::Runner,
    },
    paths::expand_home,
};
use serde_json::json;
use std::{path::PathBuf, thread};

/// `wmtp label FILE`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Rows with candidates and `tests`: a data file, a folder, a pattern or hf://OWNER/NAME
    /// (docs/data.md has the columns).
    #[arg(value_name = "FILE")]
    file: String,
    /// The rows with their labels, as JSON lines: NAME.labelled.jsonl beside FILE if absent.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
    /// Wall-clock timeout per program, in seconds (eval.timeout_seconds).
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Programs that run at once: as many as there are cores if absent.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Run every program, even if its verdict is cached (eval.verdict_cache).
    #[arg(long)]
    no_verdict_cache: bool,
    /// Run programs even if this host lacks a sandbox layer: they can then read, write and connect to
    /// whatever you can.
    #[arg(long)]
    unsafe_exec: bool,
}

/// Labels.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    if args.jobs == Some(0) {
        return Err(Failure::usage("--jobs must be 1 or more"));
    }
    let settings = args
        .settings
        .sources(None)
        .flag("--timeout", "eval.timeout_seconds", args.timeout)
        .flag(
            "--no-verdict-cache",
            "eval.verdict_cache",
            args.no_verdict_cache.then_some(false),
        )
        .load()?;
    let source = open_rows(&args.file, &settings, output)?;
    let target = rows_output(args.output.as_deref(), &args.file, "labelled")?;
    let sandbox = sandbox(args.unsafe_exec)?;
    let e = &settings.recipe.eval;
    let limits = e.limits();
    let cache = e.verdicts(&expand_home(&settings.config.paths.cache));
    let cache = cache.as_deref().map(VerdictCache::new);
    let judge = Judge::new(&sandbox, &limits).with_cache(cache.as_ref());
    let stop = stop_on_signals()?;
    let pool = Pool {
        judge: &judge,
        threads: args
            .jobs
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)),
        stop: &stop,
    };
    let mut bar = CountBar::new("candidates");
    let labelled = label_file(&source, &target, &pool, &mut |far| {
        bar.set(far.done, far.total, format!("{} right", far.passed));
    });
    bar.finish();
    let report = labelled?;
    let mut json = serde_json::to_value(&report)?;
    json["output"] = json!(target.display().to_string());
    json["sandbox"] = json!(sandbox.level());
    json["python"] = json!(sandbox.python());
    json["timeout_seconds"] = json!(limits.wall.as_secs_f64());
    let cached = match report.cached {
        0 => String::new(),
        n => format!("; {n} verdicts from the cache"),
    };
    output.result(
        &json,
        &format!(
            "{} rows, {}{cached}\nlabelled rows: {}",
            report.rows,
            report.counts,
            target.display()
        ),
    )
}
