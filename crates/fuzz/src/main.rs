//! `wmtp-fuzz TARGET|all --executions N --seed S`: each target in a process of its own, which may end as it likes.

use clap::Parser;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::Instant,
};
use wmtp_fuzz::{
    Kind, Scratch, Target,
    run::{Counts, Plan, RUNNING, left, replay, run, save},
    targets::TARGETS,
    watch::{TOO_LARGE, TOO_LONG},
};

/// Fuzzes the parsers of foreign input. A finding's input is kept in a file; the exit code is 1 where there is one.
#[derive(Debug, Parser)]
#[command(name = "wmtp-fuzz")]
struct Arguments {
    /// A target's name, the beginning of several, `memory`, `loader`, or `all`
    #[arg(default_value = "all")]
    target: String,
    /// Lists the targets, and runs none
    #[arg(long)]
    list: bool,
    /// Executions of each target
    #[arg(long, default_value_t = 10_000)]
    executions: u64,
    /// Executions of each loader of files, where that is another number
    #[arg(long)]
    loader_executions: Option<u64>,
    /// Seed of all inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of the first execution
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run every N-th target only, counted from M: `M/N`, to divide the targets among processes
    #[arg(long, value_parser = part, default_value = "0/1")]
    part: (usize, usize),
    /// Where inputs of findings are kept
    #[arg(long, default_value = "target/fuzz")]
    findings: PathBuf,
    /// Run the target on this file alone, without a limit
    #[arg(long)]
    input: Option<PathBuf>,
    /// The process that runs the target: its scratch directory stays the caller's
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn part(text: &str) -> Result<(usize, usize), String> {
    let numbers = text
        .split_once('/')
        .and_then(|(m, n)| Some((m.parse().ok()?, n.parse().ok()?)));
    numbers
        .filter(|(m, n)| m < n)
        .ok_or_else(|| format!("`{text}` is not `M/N` with M below N"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&'static Target> = TARGETS
        .iter()
        .filter(|target| is_meant(target, &arguments.target))
        .collect();
    if chosen.is_empty() {
        eprintln!("there is no target `{}`: --list names them", arguments.target);
        return ExitCode::from(2);
    }
    if arguments.list {
        for target in chosen {
            println!("{:20} {:8} {}", target.name, target.kind.name(), target.what);
        }
        return ExitCode::SUCCESS;
    }
    match work(&arguments, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzzing failed: {error}");
            ExitCode::from(2)
        }
    }
}

fn is_meant(target: &Target, name: &str) -> bool {
    // Those that are wrong on purpose are meant by their whole names alone.
    let of_test = target.name.starts_with("test-");
    let by_kind =
        (name == "memory" && target.kind == Kind::Memory) || (name == "loader" && target.kind == Kind::Loader);
    target.name == name || (!of_test && (name == "all" || by_kind))
}

/// Whether there was no finding.
fn work(arguments: &Arguments, chosen: &[&'static Target]) -> io::Result<bool> {
    let [first, ..] = chosen else { return Ok(true) };
    if let Some(input) = &arguments.input {
        let outcome = replay(first, fs::read(input)?, &Scratch::new()?)?;
        println!("{}: {outcome:?}", first.name);
        return Ok(true);
    }
    if let Some(scratch) = &arguments.child {
        let plan = Plan {
            seed: arguments.seed,
            from: arguments.from,
            executions: arguments.executions,
        };
        run(first, plan, scratch, &arguments.findings)?;
        return Ok(true);
    }
    println!(
        "{:20} {:>10} {:>9} {:>8} {:>10} {:>8} {:>9} {:>9}",
        "target", "executions", "accepted", "reasons", "per second", "peak MB", "longest", "findings"
    );
    let mut sound = true;
    let (m, n) = arguments.part;
    for target in chosen.iter().skip(m).step_by(n) {
        sound &= of_target(arguments, target)?;
    }
    Ok(sound)
}

/// Runs a target in processes: one, unless executions end it.
fn of_target(arguments: &Arguments, target: &'static Target) -> io::Result<bool> {
    /// Processes that a target may end before it is left.
    const MOST_ENDS: usize = 10;
    let executions = match (target.kind, arguments.loader_executions) {
        (Kind::Loader, Some(number)) => number,
        _ => arguments.executions,
    };
    let begun = Instant::now();
    let mut counts = Counts::default();
    for _ in 0..MOST_ENDS {
        let rest = executions.saturating_sub(counts.executions);
        if rest == 0 {
            break;
        }
        let scratch = Scratch::new()?;
        let said = scratch.path().join("said");
        let from = arguments.from + counts.executions;
        let status = child(arguments, target, from, rest, &scratch, &said)?;
        let (mut found, input) = left(&scratch.path().join(RUNNING)).unwrap_or_default();
        if !status.success() {
            let words = fs::read_to_string(&said).unwrap_or_default();
            let (kind, words) = (kind_of(status), words.trim_end());
            let path = save(&arguments.findings, target.name, kind, words, &input)?;
            println!("{}: {kind} ({status}): {}", target.name, path.display());
            let lines = words.lines().rev().take(3);
            lines.for_each(|line| println!("    {line}"));
            found.findings += 1;
            // One that ends before its first execution would do so again.
            found.executions = found.executions.max(1);
        }
        counts = counts.and(found);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{:20} {:>10} {:>8.2}% {:>8} {:>10.0} {:>8.1} {:>6.1} ms {:>9}",
        target.name,
        counts.executions,
        counts.accepted_percent(),
        counts.reasons,
        counts.executions as f64 / seconds,
        counts.peak as f64 / 1e6,
        counts.longest as f64 / 1e3,
        counts.findings
    );
    if counts.accepted == 0 {
        println!(
            "{}: nothing was accepted, so nothing behind the first checks is tried",
            target.name
        );
    }
    Ok(counts.findings == 0 && counts.accepted > 0)
}

fn child(
    arguments: &Arguments,
    target: &Target,
    from: u64,
    executions: u64,
    scratch: &Scratch,
    said: &Path,
) -> io::Result<ExitStatus> {
    let number = |n: u64| n.to_string();
    let (executions, seed, from) = (number(executions), number(arguments.seed), number(from));
    let mut command = Command::new(std::env::current_exe()?);
    let given: [(&str, &OsStr); 5] = [
        ("--executions", executions.as_ref()),
        ("--seed", seed.as_ref()),
        ("--from", from.as_ref()),
        ("--findings", arguments.findings.as_ref()),
        ("--child", scratch.path().as_ref()),
    ];
    command.arg(target.name);
    for (flag, value) in given {
        command.arg(flag).arg(value);
    }
    command.stdin(Stdio::null()).stderr(File::create(said)?).status()
}

/// What ended a process.
fn kind_of(status: ExitStatus) -> &'static str {
    match status.code() {
        Some(TOO_LONG) => "slow",
        Some(TOO_LARGE) => "memory",
        Some(_) => "exit",
        None => "abort",
    }
}
