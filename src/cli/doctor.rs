//! `wmtp doctor`: what works on this machine, and what to do about what does not.

use super::{Failure, Output, SettingsArgs};
use crate::{
    device::{self, Available, Backend},
    machine::Machine,
    settings::{Config, expand_home},
};
use serde::Serialize;
use std::{fmt::Write, path::Path, process::Command};

/// `wmtp doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    features: Vec<&'static str>,
    devices: Vec<Available>,
    auto: Option<String>,
    python: Python,
    cores: usize,
    memory_bytes: Option<u64>,
    avx512: bool,
    cache: Cache,
    /// Nothing that training or evaluation needs is missing.
    ok: bool,
}

/// Evaluation runs programs with it.
#[derive(Serialize)]
struct Python {
    found: bool,
    version: Option<String>,
}

#[derive(Serialize)]
struct Cache {
    path: String,
    writable: bool,
    problem: Option<String>,
}

/// Prints what was found. Finding fault is a success of the doctor, not a failure.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let report = examine(&settings.config);
    let json = serde_json::to_value(&report).map_err(Failure::failed)?;
    output.result(&json, &for_people(&report))
}

fn examine(config: &Config) -> Report {
    let auto = device::resolve("auto").ok().map(|(name, _)| name);
    let python = python();
    let cache = cache(&expand_home(&config.paths.cache));
    let machine = Machine::here();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        features: Backend::ALL
            .into_iter()
            .filter(|b| b.is_built_in())
            .map(Backend::name)
            .collect(),
        devices: device::available(),
        ok: auto.is_some() && python.found && cache.writable,
        auto,
        python,
        cores: machine.cores,
        memory_bytes: machine.memory_bytes,
        avx512: avx512(),
        cache,
    }
}

fn python() -> Python {
    let answer = Command::new("python3")
        .arg("--version")
        .output()
        .ok()
        .filter(|o| o.status.success());
    let version = answer.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    Python {
        found: version.is_some(),
        version,
    }
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

/// Tried by writing, and leaving nothing behind that was not there.
fn cache(path: &Path) -> Cache {
    let existing = path.ancestors().find(|p| p.is_dir()).unwrap_or(path);
    let probe = existing.join(format!(".wmtp-probe-{}", std::process::id()));
    let tried = std::fs::write(&probe, b"");
    let _ = std::fs::remove_file(&probe);
    Cache {
        path: path.display().to_string(),
        writable: tried.is_ok(),
        problem: tried.err().map(|e| e.to_string()),
    }
}

fn for_people(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line(
        "wmtp",
        format!("{}, backends built in: {}", report.version, report.features.join(", ")),
    );
    for device in &report.devices {
        line("device", format!("{}: {}", device.name, device.description));
    }
    match &report.auto {
        Some(name) => line("auto", format!("takes {name}")),
        None => line("auto", "finds no device: build with --features flex".into()),
    }
    match &report.python.version {
        Some(version) => line("python3", version.clone()),
        None => line("python3", "not found: `wmtp eval` needs it to run programs".into()),
    }
    line("cores", report.cores.to_string());
    if let Some(bytes) = report.memory_bytes {
        line("memory", format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)));
    }
    line(
        "AVX-512",
        if report.avx512 {
            "yes".into()
        } else {
            "no: matrix products are slower".into()
        },
    );
    match &report.cache.problem {
        None => line("cache", format!("{} is writable", report.cache.path)),
        Some(problem) => line(
            "cache",
            format!("{}: {problem}; choose another with paths.cache", report.cache.path),
        ),
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
