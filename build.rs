//! Puts into the program what it was built from and for: the commit, where the sources are a git checkout or
//! the environment names it (`WMTP_COMMIT`, for sources without one), and the target.

use std::{path::Path, process::Command};

/// The answer of `git ARGS`, or nothing without git or a checkout.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Only files that exist: a watched file that is absent makes every build start from scratch.
    // HEAD names a branch; the branch's commit stands in a file of its own or among packed ones.
    let branch = git(&["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in ["HEAD", branch.as_deref().unwrap_or("HEAD"), "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    if let Some(commit) = git(&["rev-parse", "HEAD"]) {
        println!("cargo:rustc-env=WMTP_COMMIT={commit}");
    } else {
        // rustc reads the variable of the same name itself.
        println!("cargo:rerun-if-env-changed=WMTP_COMMIT");
    }
    if let Ok(target) = std::env::var("TARGET") {
        println!("cargo:rustc-env=WMTP_TARGET={target}");
    }
}
