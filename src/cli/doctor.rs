//! `wmtp doctor`: what works on this machine with these settings, and what to do about what does not.
//!
//! Each check is carried out, not inferred: a program is run in the sandbox, a file is written into
//! the cache, the servers that the settings name are asked. Exit code 1 if a required check fails.

use super::{Failure, Output, SettingsArgs, version};
use crate::{
    device::{self, Available},
    eval::sandbox::{Limits, Options, Program, Runner, Sandbox, Status},
    paths::expand_home,
    run::Machine,
    settings::Config,
    storage::RemoteRuns,
    text::gib,
    track::{self, TrackerKind},
};
use burn::tensor::Tensor;
use serde::Serialize;
use std::{fmt::Write, path::Path};

/// `wmtp doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    commit: Option<&'static str>,
    target: &'static str,
    features: Vec<&'static str>,
    devices: Vec<Available>,
    cores: usize,
    memory_bytes: Option<u64>,
    /// The vector instruction sets of this machine that computing chooses from.
    instruction_sets: Vec<&'static str>,
    /// The instructions that matrix products use, as `WMTP_GEMM` spells them.
    matrix_products: &'static str,
    /// Whether these are AVX-512 or more.
    avx512: bool,
    checks: Vec<HealthCheck>,
    /// Every check holds.
    ok: bool,
}

/// One thing that was tried.
#[derive(Serialize)]
struct HealthCheck {
    name: &'static str,
    ok: bool,
    /// What was found; where it failed, what to do.
    text: String,
}

impl HealthCheck {
    fn new(name: &'static str, found: Result<String, String>) -> Self {
        Self {
            name,
            ok: found.is_ok(),
            text: found.unwrap_or_else(|problem| problem),
        }
    }
}

/// Prints what was found.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let report = examine(&settings.config);
    output.result(&serde_json::to_value(&report)?, &for_people(&report))?;
    let failed: Vec<&str> = report.checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::Found(format!("not ready: {}; see above", failed.join(", "))))
}

fn examine(config: &Config) -> Report {
    let machine = Machine::here();
    let mut checks = vec![
        HealthCheck::new("device", device(&config.devices.backend)),
        HealthCheck::new("sandbox", sandbox()),
        HealthCheck::new("cache", directory(&expand_home(&config.paths.cache), "paths.cache")),
        HealthCheck::new("runs", directory(&expand_home(&config.paths.runs), "paths.runs")),
    ];
    if config.tracking.kinds.contains(&TrackerKind::Mlflow) {
        checks.push(HealthCheck::new("mlflow", track::ask_mlflow(&config.tracking.mlflow)));
    }
    if let Some(url) = &config.storage.runs {
        checks.push(HealthCheck::new("s3", bucket(url, config)));
    }
    Report {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("WMTP_COMMIT"),
        target: version::TARGET,
        features: version::features(),
        devices: device::available(),
        cores: machine.cores,
        memory_bytes: machine.memory_bytes,
        instruction_sets: wmtp_kernels::instruction_sets(),
        matrix_products: wmtp_kernels::Isa::chosen().map_or("none", wmtp_kernels::Isa::name),
        avx512: wmtp_kernels::Isa::chosen().is_ok_and(|isa| isa >= wmtp_kernels::Isa::Avx512),
        ok: checks.iter().all(|check| check.ok),
        checks,
    }
}

/// The device that the settings name opens and computes a product.
fn device(backend: &str) -> Result<String, String> {
    let (name, device) = device::resolve(backend).map_err(|error| error.to_string())?;
    let factor = Tensor::<2>::from_data([[1.0f32, 2.0], [3.0, 4.0]], &device);
    match device::to_f32(factor.clone().matmul(factor)) {
        Ok(product) if product == [7.0, 10.0, 15.0, 22.0] => {}
        Ok(wrong) => {
            return Err(format!(
                "{name} computed {wrong:?} for [[1, 2], [3, 4]] squared: do not use it"
            ));
        }
        Err(error) => {
            return Err(format!(
                "{name}: {error}; check its driver, or take another with `--device`"
            ));
        }
    }
    Ok(if name == backend {
        name
    } else {
        format!("{backend} takes {name}")
    })
}

/// A program runs in the sandbox, with every layer.
fn sandbox() -> Result<String, String> {
    const SAID: &str = "wmtp";
    let sandbox = Sandbox::with(&Options::default()).map_err(|e| format!("{e}: `wmtp eval --unsafe-exec`"))?;
    let program = Program {
        source: &format!("print('{SAID}')"),
        stdin: b"",
    };
    let outcome = sandbox.run(&program, &Limits::default()).map_err(|e| e.to_string())?;
    if outcome.status == Status::Exit(0) && outcome.stdout.trim_ascii() == SAID.as_bytes() {
        Ok(format!("Python {}, layers {}", sandbox.python(), sandbox.level()))
    } else {
        Err(format!(
            "a program that prints `{SAID}` ended with {:?}: {}",
            outcome.status,
            String::from_utf8_lossy(&outcome.stderr).trim()
        ))
    }
}

/// Written into and read back, leaving nothing that was not there; with the free space.
fn directory(path: &Path, key: &str) -> Result<String, String> {
    let existing = path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".wmtp-probe-{}", std::process::id()));
    let tried = std::fs::write(&probe, b"wmtp").and_then(|()| std::fs::read(&probe));
    // What could not be written needs no removal.
    let _ = std::fs::remove_file(&probe);
    let place = path.display();
    match tried {
        Ok(bytes) if bytes == b"wmtp" => Ok(match free_bytes(existing) {
            Some(bytes) => format!("{place} is writable, {:.1} GiB free", gib(bytes)),
            None => format!("{place} is writable"),
        }),
        Ok(_) => Err(format!(
            "{place} does not keep what is written; choose another with `{key}`"
        )),
        Err(error) => Err(format!("{place}: {error}; choose another with `{key}`")),
    }
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// The bucket that runs are mirrored to can be listed.
fn bucket(url: &str, config: &Config) -> Result<String, String> {
    let mut storage = config.storage.clone();
    storage.retries = 0;
    storage.timeout_seconds = storage.timeout_seconds.min(10);
    let names = RemoteRuns::open(url, &storage).and_then(|runs| runs.names());
    names
        .map(|names| format!("{url} answers, runs there: {}", names.len()))
        .map_err(|e| e.to_string())
}

fn for_people(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line(
        "wmtp",
        format!(
            "{}{} for {}, features {}",
            report.version,
            report.commit.map(|commit| format!(" ({commit})")).unwrap_or_default(),
            report.target,
            report.features.join(", ")
        ),
    );
    for device in &report.devices {
        line("found", format!("{}: {}", device.name, device.description));
    }
    line("cores", report.cores.to_string());
    if let Some(bytes) = report.memory_bytes {
        line("memory", format!("{:.1} GiB", gib(bytes)));
    }
    line("vectors", report.instruction_sets.join(", "));
    line("products", version::matrix_products());
    for check in &report.checks {
        line(
            check.name,
            format!("{}{}", if check.ok { "" } else { "FAILED: " }, check.text),
        );
    }
    line(
        "verdict",
        if report.ok {
            "ready".into()
        } else {
            "not ready, see above".into()
        },
    );
    out
}
