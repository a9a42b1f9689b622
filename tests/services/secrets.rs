//! Nothing that a run leaves behind holds a secret: its directory, its cache, what it prints, what
//! it sends.

use crate::{
    common::wmtp,
    unique,
    world::{kept, mlflow, read_back, run_dir, train},
};
use std::{
    path::Path,
    process::{Command, Output},
};

const SECRETS: &[(&str, &str)] = &[
    ("HF_TOKEN", "hf_plantedsecretone"),
    ("AWS_SECRET_ACCESS_KEY", "plantedsecrettwo"),
    ("AWS_SESSION_TOKEN", "plantedsecretthree"),
    ("MLFLOW_TRACKING_PASSWORD", "plantedsecretfour"),
    ("MLFLOW_TRACKING_USERNAME", "planteduserfive"),
];
const IN_ADDRESSES: &[&str] = &[
    "plantedsecretsix",
    "plantedusersix",
    "plantedsecretseven",
    "plantedsecreteight",
];

fn planted() -> impl Iterator<Item = &'static str> {
    // The token is tried in a run of its own: it takes the place of name and password.
    let token = ["plantedsecretnine"];
    SECRETS
        .iter()
        .map(|(_, value)| *value)
        .chain(IN_ADDRESSES.iter().copied())
        .chain(token)
}

/// With all secrets in the environment, and the server's address with a password in it.
fn plant(command: &mut Command, server: &str) {
    command.envs(SECRETS.iter().copied());
    command.env("HF_ENDPOINT", "http://plantedusersix:plantedsecretseven@127.0.0.1:1");
    command.env(
        "AWS_ENDPOINT_URL",
        "http://plantedusersix:plantedsecreteight@127.0.0.1:1",
    );
    command.env(
        "MLFLOW_TRACKING_URI",
        server.replacen("://", "://plantedusersix:plantedsecretsix@", 1),
    );
    command.arg("-v");
}

fn assert_clean(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for secret in planted() {
        if let Some(at) = text.find(secret) {
            let around: String = text
                .chars()
                .skip(text[..at].chars().count().saturating_sub(80))
                .take(200)
                .collect();
            panic!("{what} holds {secret}: ...{around}...");
        }
    }
}

fn assert_clean_output(what: &str, output: &Output) {
    assert_clean(&format!("{what}, standard output"), &output.stdout);
    assert_clean(&format!("{what}, standard error"), &output.stderr);
}

/// Every file's content and name below a directory; how many there were.
fn assert_clean_files(dir: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        assert_clean("a file's name", path.to_string_lossy().as_bytes());
        if path.is_dir() {
            files += assert_clean_files(&path);
        } else {
            assert_clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
            files += 1;
        }
    }
    files
}

fn by_environment(home: &Path, experiment: &str, name: &str) -> Command {
    let mut command = train(home, "http://unused", experiment, name, 4);
    command.args(["--set", "tracking.mlflow.uri=null", "--set", "tracking.kinds=[mlflow]"]);
    command
}

#[test]
fn no_secret_is_left_behind_anywhere() {
    let home = tempfile::tempdir().unwrap();
    let experiment = unique("secrets");
    let server = mlflow();
    for (name, server, token) in [
        ("reached", server.as_str(), None),
        ("by-token", server.as_str(), Some("plantedsecretnine")),
        ("unreached", "http://127.0.0.1:1", None),
    ] {
        let mut command = by_environment(home.path(), &experiment, name);
        plant(&mut command, server);
        command.args(["--set", "tracking.wait_seconds=10"]);
        if server.ends_with(":1") {
            command.args(["--set", "tracking.wait_seconds=0.5"]);
        }
        command.envs(token.map(|token| ("MLFLOW_TRACKING_TOKEN", token)));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_clean_output(name, &output);

        let mut command = wmtp(home.path());
        command.args([
            "eval",
            "mbpp",
            "--tasks",
            "11-12",
            "--max-new-tokens",
            "4",
            "--temperature",
            "0",
        ]);
        command.args([
            "--prompt",
            "zero-shot",
            "--output",
            "runs",
            "--set",
            "tracking.kinds=[mlflow]",
        ]);
        command.args([
            "--set",
            "tracking.wait_seconds=1",
            "--set",
            &format!("tracking.experiment={experiment}"),
        ]);
        command.args(["--model", &format!("runs/{name}/checkpoints/last")]);
        plant(&mut command, server);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_clean_output("eval", &output);
    }
    // What fails is said without secrets, too.
    let spoilt = "tracking.mlflow.uri=http://plantedusersix:plantedsecretsix@host";
    for args in [
        ["--set", spoilt].as_slice(),
        &["--model", "hf://owner/model"],
        &["--set", "data.source=http://plantedusersix:plantedsecretsix@host/x"],
        &["--set", "seed=http://plantedusersix:plantedsecretsix@host/x"],
        &["--resume", "nothing-there"],
    ] {
        let mut command = by_environment(home.path(), &experiment, "refused");
        plant(&mut command, &server);
        let output = command.args(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert_clean_output(&args.join(" "), &output);
    }
    assert!(assert_clean_files(home.path()) > 50);
    for name in ["reached", "by-token"] {
        let id = kept(&run_dir(home.path(), name), "mlflow")["kept"]["run_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let everything = read_back("texts", &server, &id).to_string();
        assert!(everything.contains("mbpp/pass_at_1") && everything.contains("samples.jsonl"));
        assert_clean("MLflow", everything.as_bytes());
    }
}
