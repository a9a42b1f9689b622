//! Whether the layers hold: a program that tries what each of them forbids, run like any other.

use crate::{Limits, Options, Program, Runner, Sandbox, SandboxError, Status, io_error, runner::layer};
use std::{
    collections::HashSet,
    io,
    os::unix::ffi::OsStrExt,
    sync::{Mutex, OnceLock},
};

/// Prints the layers that let something through, then `end`. Standard input names a file outside.
const PROBE: &str = r#"
import os, sys, resource
outside = os.fsencode(sys.stdin.buffer.read())
def through(layer, action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return
    print(layer, getattr(action, "__name__", "?"))
def listing():
    if os.path.basename(outside) not in os.listdir(os.path.dirname(outside)):
        raise OSError("another directory of that name")
def fork():
    if os.fork() == 0:
        os._exit(0)
through("landlock", open, outside)
through("landlock", open, outside, "a")
through("landlock", listing)
through("landlock", os.listdir, "/proc/self")
through("seccomp", fork)
through("seccomp", os.kill, os.getppid(), 0)
through("seccomp", os.chmod, "main.py", 0o700)
try:
    from _socket import socket
    through("seccomp", socket)
except ImportError:
    pass
if resource.getrlimit(resource.RLIMIT_AS)[0] != MEMORY:
    print("rlimits getrlimit")
with open("own", "w") as own:
    own.write("x")
print("end")
"#;

/// Refuses a sandbox of which a layer does not hold.
pub(crate) fn verify(sandbox: &Sandbox, options: &Options) -> Result<(), SandboxError> {
    static VERIFIED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    let lock = || {
        let verified = VERIFIED.get_or_init(Mutex::default).lock();
        verified.unwrap_or_else(|poisoned| poisoned.into_inner())
    };
    let key = format!("{options:?} {}", sandbox.level());
    if lock().contains(&key) {
        return Ok(());
    }
    let answer = run(sandbox)?;
    for name in ["landlock", "seccomp", "rlimits"] {
        if let Some(what) = answer.iter().find_map(|line| line.strip_prefix(name)) {
            let shown = if name == "landlock" { file_layer(sandbox) } else { name };
            return Err(layer(
                shown,
                &io::Error::other(format!("it is there but let{what} through")),
            ));
        }
    }
    lock().insert(key);
    Ok(())
}

/// Whether one layer holds; a start that fails because of it means no.
pub(crate) fn holds(sandbox: &Sandbox, name: &str) -> Result<bool, SandboxError> {
    match run(sandbox) {
        Ok(answer) => Ok(!answer.iter().any(|line| line.starts_with(name))),
        Err(SandboxError::Layer { layer, .. }) if layer == name => Ok(false),
        Err(error) => Err(error),
    }
}

fn file_layer(sandbox: &Sandbox) -> &'static str {
    match sandbox.layers().first() {
        Some(name) if name == "bubblewrap" => "bubblewrap",
        _ => "landlock",
    }
}

/// The lines that the probe prints before `end`.
fn run(sandbox: &Sandbox) -> Result<Vec<String>, SandboxError> {
    let limits = Limits::default();
    let outside = tempfile::NamedTempFile::new().map_err(io_error("make a temporary file"))?;
    let program = Program {
        source: &PROBE.replace("MEMORY", &limits.memory_bytes.to_string()),
        stdin: outside.path().as_os_str().as_bytes(),
    };
    let outcome = sandbox.run(&program, &limits)?;
    let text = String::from_utf8_lossy(&outcome.stdout);
    match text.strip_suffix("end\n") {
        Some(lines) if outcome.status == Status::Exit(0) => Ok(lines.lines().map(str::to_owned).collect()),
        _ => {
            let said = String::from_utf8_lossy(&outcome.stderr);
            let last = said.lines().last().unwrap_or_default();
            let reason = format!("the interpreter does not run in it ({:?}: {last})", outcome.status);
            Err(layer(file_layer(sandbox), &io::Error::other(reason)))
        }
    }
}
