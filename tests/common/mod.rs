//! What the tests of the built program share.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The built program, with an environment that no setting of the caller's reaches. Without a model it takes
/// builtin:micro and MBPP; what it does with nothing named is [`bare_wmtp`]'s.
pub fn wmtp(home: &Path) -> Command {
    let mut command = bare_wmtp(home);
    command.env("WMTP_DATA__SOURCE", "builtin:mbpp");
    command
}

/// The same as a new user has it: the small world where no model and no data are named.
pub fn bare_wmtp(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmtp"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("WMTP_") || key.starts_with("HF_")) {
        command.env_remove(key);
    }
    command.current_dir(home).env("WMTP_PATHS__CACHE", home.join("cache"));
    command
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output as one JSON document.
pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!(
            "not one JSON document ({e}): {}",
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

/// The lines of a `.jsonl` file.
pub fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// Bytes of the weights in a checkpoint: the model and, where there are any, the extra heads.
pub fn weights(run: &Path, checkpoint: &str) -> Vec<Vec<u8>> {
    let dir: PathBuf = run.join("checkpoints").join(checkpoint);
    let model = dir.join("model.safetensors");
    let mut files = vec![std::fs::read(&model).unwrap_or_else(|e| panic!("{}: {e}", model.display()))];
    files.extend(std::fs::read(dir.join("mtp_heads.safetensors")));
    files
}
