//! What the test programs share: the sandbox that they test, and being run again as somebody else.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::Command,
};
use wmtp_sandbox::{Isolation, Options};

/// Interpreter and isolation of a run by somebody else; `python3` and Landlock in the first run.
const PYTHON: &str = "WMTP_TEST_PYTHON";
const ISOLATION: &str = "WMTP_TEST_ISOLATION";
/// Set where programs' directories are to be watched though they could be mounted.
pub const WATCHED: &str = "WMTP_TEST_WATCHED";
/// A user and group without rights anywhere.
const NOBODY: u32 = 65534;

pub fn python() -> PathBuf {
    std::env::var_os(PYTHON).map_or("python3".into(), PathBuf::from)
}

pub fn isolation() -> Isolation {
    match std::env::var(ISOLATION).as_deref() {
        Ok("bubblewrap") => Isolation::Bubblewrap,
        _ => Isolation::Landlock,
    }
}

pub fn watched() -> bool {
    std::env::var_os(WATCHED).is_some()
}

pub fn options() -> Options {
    Options {
        python: python(),
        isolation: isolation(),
        mount: !watched(),
        ..Options::default()
    }
}

pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Says something that the test runner does not hold back.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Runs all tests of this program again but those whose name begins with `again_`.
pub fn again(what: &str, prepare: impl FnOnce(&mut Command)) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("tests"); // the build's folder may be closed to others
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["--skip", "again_", "--nocapture"])
        .current_dir(dir.path());
    prepare(&mut command);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        output.status.success(),
        "{what}: {}\n{}\n{}",
        output.status,
        text[0],
        text[1]
    );
    let passed = text[0].lines().find(|line| line.starts_with("test result: ok."));
    let passed = passed.unwrap_or_else(|| panic!("{what}: no result\n{}", text[0]));
    assert!(!passed.contains(" 0 passed"), "{what}: {passed}");
    say(&format!("{what}: {passed}"));
}

/// As an ordinary user, with the first interpreter that such a one may run.
pub fn again_as_an_ordinary_user() {
    if !is_root() {
        say("NOT RUN AS ROOT: these tests ran as an ordinary user only");
        return;
    }
    let candidates = ["/usr/bin/python3", "/usr/local/bin/python3", "/opt/python/bin/python3"];
    let python = candidates.iter().find(|path| {
        let mut ask = Command::new(path);
        ask.args(["-I", "-c", ""]).uid(NOBODY).gid(NOBODY);
        ask.status().is_ok_and(|status| status.success())
    });
    let python = python.expect("an ordinary user can run no python3: install the system's");
    again("as an ordinary user", |command| {
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .env(PYTHON, python);
        command.uid(NOBODY).gid(NOBODY);
    });
}

/// Why bubblewrap can't be tested here, if it can't: it is not installed, or this machine (a container without
/// user namespaces, say) lets it run nothing.
pub fn without_bubblewrap() -> Option<String> {
    let mut bwrap = Command::new("bwrap");
    bwrap.args(["--ro-bind", "/", "/", "--unshare-all", "--", "/bin/true"]);
    let why = match bwrap.output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    assert!(
        std::env::var("WMTP_CI_STRICT").as_deref() != Ok("1"),
        "bubblewrap is meant to work here: {why}"
    );
    say(&format!("NOT TESTED BEHIND BUBBLEWRAP: {why}"));
    Some(why)
}

/// Behind bubblewrap, where that works.
pub fn again_behind_bubblewrap() {
    if without_bubblewrap().is_none() {
        again("behind bubblewrap", |command| {
            command.env(ISOLATION, "bubblewrap");
        });
    }
}
